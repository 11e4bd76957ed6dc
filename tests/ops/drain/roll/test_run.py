"""A roll with real processes and a manager that does as the test says; PM2 is not needed."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import RefusedError
from qctl.manage.pm2.manager import Pm2
from qctl.manage.protocol import ManagedProcess, RestartCall
from qctl.ops.drain import choose
from qctl.ops.drain import finish as drain_end
from qctl.ops.drain.context import DrainOptions
from qctl.ops.drain.plan import describe, make_plan
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.roll.rollable import require_rollable
from qctl.ops.drain.run import drain
from qctl.ops.drain.steps import DrainReport, Step
from qctl.ops.processes.restart import Restart
from qctl.ops.processes.targets import Connections, Target
from qctl.wire.events import Event
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.clients import Workers, client_name
from qctl.wire.write.pausing import hold_lease
from tests.labs.build import Q, holder, put
from tests.labs.drains import is_alive

# A process that is connected as a worker of the queue q.
CHILD = """
import socket, sys, time
redis = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
redis.sendall(f"CLIENT SETNAME {sys.argv[2]}\\r\\n".encode())
redis.recv(64)
print("up", flush=True)
time.sleep(120)
"""


class Master:
    """Two processes; replaces one by starting the new one first, as qctl's own master does.

    Args:
        port: of the Redis that they connect to.
        named: whether the workers have names: ``w<slot>-<number>``, counted from 0.
    """

    kind = "qctl"

    def __init__(self, port: int, *, named: bool) -> None:
        self.port = port
        self.named = named
        self._numbers = itertools.count()
        self.slots = [self.spawn(0), self.spawn(1)]
        self.old: list[subprocess.Popen[bytes]] = []
        self.refusal: str | None = None
        self.on_replace: Callable[[int], object] = str
        self.leaves = True
        # Slots whose old process stays although the others leave.
        self.stays: set[int] = set()
        # Slots that are not online, and their status.
        self.down: dict[int, str] = {}
        self.on_process: Callable[[], object] = str

    def spawn(self, slot: int) -> subprocess.Popen[bytes]:
        worker = f"w{slot}-{next(self._numbers)}" if self.named else None
        name = client_name("bull", "q", worker)
        command = [sys.executable, "-S", "-E", "-c", CHILD, str(self.port), name]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        child.stdout.close()
        return child

    def processes(self) -> Sequence[ManagedProcess]:
        return [
            ManagedProcess(
                target="qctl:app", key=f"app/{slot}", name="app", namespace="",
                status=self.down.get(slot, "online"), pid=child.pid,
                started_at_ms=0, restarts=0, mode="fork", stop_signal="SIGTERM",
                kill_timeout_ms=0, ready_timeout_ms=0, cpu_percent=None, rss_bytes=None,
            )
            for slot, child in enumerate(self.slots)
        ]  # fmt: skip

    def process(self, key: str) -> ManagedProcess | None:
        self.on_process()
        return next((process for process in self.processes() if process.key == key), None)

    def find(self, name: str) -> Sequence[ManagedProcess]:  # noqa: ARG002 - as in Manager
        return self.processes()

    def targets(self) -> Sequence[str]:
        return ["qctl:app"]

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        if self.refusal is None:
            threading.Thread(target=self._replace, args=[int(process.key[-1])]).start()
        return self

    def _replace(self, slot: int) -> None:
        old = self.slots[slot]
        self.slots[slot] = self.spawn(slot)
        self.down.pop(slot, None)
        self.on_replace(slot)
        if self.leaves and slot not in self.stays:
            self.end(old)
        else:
            self.old.append(old)

    def error(self) -> str | None:
        return self.refusal

    def close(self) -> None:
        pass

    @staticmethod
    def end(child: subprocess.Popen[bytes]) -> None:
        child.kill()
        child.wait(10)

    def end_all(self) -> None:
        for child in [*self.slots, *self.old]:
            self.end(child)


@pytest.fixture
def master(
    request: pytest.FixtureRequest, client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Master]:
    named = "names" in request.node.name
    made = Master(int(redis_url.rpartition(":")[2].split("/")[0]), named=named)
    target = Target("qctl:app", made, tuple(made.processes()), ())
    monkeypatch.setattr(choose, "open_target", lambda *_: target)
    # Nobody takes jobs here.
    monkeypatch.setattr(drain_end, "FIRST_START_S", 0.1)
    yield made
    made.end_all()


def add_event(client: Client, name: str, job_id: str, **fields: str) -> None:
    words = [part for pair in fields.items() for part in pair]
    client.call("XADD", Q("events"), "*", "event", name, "jobId", job_id, *words)


def finish(client: Client, job_id: str) -> None:
    """End a job, as its worker does."""
    client.call("LREM", Q("active"), 0, job_id)
    client.call("DEL", Q.lock(job_id))
    client.call("ZADD", Q("completed"), 1, job_id)
    add_event(client, "completed", job_id, prev="active")


def roll(
    redis_url: str,
    *,
    at_once: str | None = None,
    strategy: str = "roll",
    stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> tuple[list[Step], DrainReport]:
    arguments: dict[str, Any] = {"target": "qctl:app", "then_restart": True, "strategy": strategy}
    address, client = connect(redis_url)
    settings = Settings(redis_url=redis_url, watch_s=1.0)
    try:
        plan = make_plan(client, address, settings, [], **arguments, max_unavailable=at_once)
        steps = list(drain(client, address, settings, plan, DrainOptions(**options), stop))
        assert client.call("KEYS", "qctl:[^d]*") == []
    finally:
        client.close()
    report = steps[-1]
    assert isinstance(report, DrainReport)
    return steps, report


def test_each_process_is_replaced_in_turn_and_nothing_is_paused(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "1", "active", lock="a:1")
    old = [child.pid for child in master.slots]
    seen: list[tuple[int, bool]] = []

    def look(slot: int) -> None:
        seen.append((slot, is_alive(old[0])))
        if slot == 0:
            finish(client, "1")

    master.on_replace = look
    steps, report = roll(redis_url)
    assert [s.step for s in steps if s.step != "waiting"] == [
        *("restarting", "ready", "restarting", "ready", "report")
    ]
    assert seen == [(0, True), (1, False)]
    assert (report.outcome, report.strategy, report.error) == ("restarted", "roll", None)
    assert (report.completed, report.interrupted, report.lost) == (1, 0, 0)
    assert (report.paused_s, report.active_at_start, report.exit_status) == (0, 1, 0)
    assert report.old_pids == tuple(old)
    assert report.new_pids == tuple(child.pid for child in master.slots)
    assert not any(e.get("event") == "paused" for e in _events(client))


def _events(client: Client) -> list[dict[str, str]]:
    rows = client.call("XRANGE", Q("events"), "-", "+")
    return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in rows]


def test_a_job_that_was_left_behind_is_put_back_and_ends_the_roll(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "0")

    def take_with_it(slot: int) -> None:
        # Taken after the start; its lock is renewed by nobody.
        client.call("LMOVE", Q("wait"), Q("active"), "RIGHT", "LEFT")
        client.call("SET", Q.lock("0"), "dead:1", "PX", 700)
        replaced.append(slot)

    replaced: list[int] = []
    master.on_replace = take_with_it
    steps, report = roll(redis_url)
    assert (report.outcome, report.exit_status) == ("aborted", 1)
    assert (report.interrupted, report.recovered, report.lost) == (1, 1, 0)
    assert report.active_at_start == 0
    assert [(job.id, job.result) for job in report.jobs] == [("0", "interrupted")]
    assert "left 1 job behind" in (report.error or "")
    assert "recovered" in [step.step for step in steps]
    assert client.call("LRANGE", Q("wait"), 0, -1) == ["0"]
    assert replaced == [0]
    assert len(report.new_pids) == 1


def test_by_the_names_of_workers_it_is_told_at_once_whose_a_job_is(
    master: Master, client: Client, redis_url: str
) -> None:
    # Its lock outlasts any test.
    put(client, "1", "active", lock="other:1", pb="of another host")
    _, report = roll(redis_url)
    assert (report.outcome, report.interrupted) == ("restarted", 0)
    assert [(job.id, job.result) for job in report.jobs] == [("1", "running")]


@pytest.mark.parametrize("is_put_back", [False, True])
def test_by_the_names_a_job_that_a_worker_elsewhere_has_lost_ends_no_roll(
    master: Master, client: Client, redis_url: str, is_put_back: bool
) -> None:
    """Its host may be cut off from Redis; a stalled check may have put the job back."""
    put(client, "1", "active", lock="other:1", pb="of another host")

    def lose(slot: int) -> None:
        if slot == 0:
            client.call("DEL", Q.lock("1"))
            if is_put_back:
                client.call("LREM", Q("active"), 1, "1")
                client.call("LPUSH", Q("wait"), "1")
                add_event(client, "waiting", "1", prev="active")
                add_event(client, "stalled", "1")

    master.on_replace = lose
    _, report = roll(redis_url)
    assert (report.outcome, report.error, report.interrupted) == ("restarted", None, 0)
    result = "recovered" if is_put_back else "orphaned"
    assert [(job.id, job.result) for job in report.jobs] == [("1", result)]


def test_a_job_of_a_worker_with_names_that_is_still_waited_for(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "1", "active", lock="a:1", pb="w0-0")
    put(client, "2", "active", lock="b:1", pb="w1-1")
    master.leaves = False
    _, report = roll(redis_url, timeout_s=0.5)
    assert report.outcome == "timeout"
    assert [job.id for job in report.still_active] == ["1"]


def test_a_job_that_a_master_put_back_counts_as_interrupted_too(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "0")

    def die_with_it(slot: int) -> None:
        add_event(client, "active", "0", prev="waiting")
        add_event(client, "waiting", "0", prev="active")
        add_event(client, "stalled", "0")

    master.on_replace = die_with_it
    _, report = roll(redis_url)
    assert (report.outcome, report.interrupted, report.recovered) == ("aborted", 1, 1)


def test_what_events_that_are_missing_would_have_told_is_unknown(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "0")
    add_event(client, "waiting", "0")

    def die_with_it(slot: int) -> None:
        # In one step, or the first might be read before it is cut off.
        lua = """
            for _, name in ipairs({"stalled", "progress"}) do
              redis.call("XADD", KEYS[1], "*", "event", name, "jobId", "0")
            end
            redis.call("XTRIM", KEYS[1], "MAXLEN", 1)
        """
        client.call("EVAL", lua, 1, Q("events"))

    master.on_replace = die_with_it
    _, report = roll(redis_url)
    assert (report.interrupted, report.lost, report.idle_s) == (None, None, None)


def test_a_long_job_elsewhere_is_told_from_one_left_behind(
    master: Master, client: Client, redis_url: str
) -> None:
    # Neither ends during the roll. One lock is renewed; the other's worker takes a further job.
    put(client, "1", "active")
    put(client, "2", "active")
    client.call("SET", Q.lock("1"), "renews:1", "PX", 1500)
    client.call("SET", Q.lock("2"), "takes:1", "PX", 60_000)
    over = threading.Event()

    def live() -> None:
        address_client = connect(redis_url)[1]
        n = 0
        while not over.wait(0.2):
            n += 1
            address_client.call("PEXPIRE", Q.lock("1"), 1500)
            if n > 10:
                put(address_client, f"n{n}", "active", lock=f"takes:{n}")
        address_client.close()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        _, report = roll(redis_url)
    finally:
        over.set()
        thread.join()
    assert (report.outcome, report.interrupted, report.lost) == ("restarted", 0, 0)
    assert {job.id: job.result for job in report.jobs}.items() >= {
        "1": "running",
        "2": "running",
    }.items()
    assert report.exit_status == 0


def test_when_the_time_is_up_it_goes_no_further(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "1", "active", lock="a:1")
    master.leaves = False
    _, report = roll(redis_url, timeout_s=0.5)
    assert (report.outcome, report.exit_status) == ("timeout", 4)
    assert [job.id for job in report.still_active] == ["1"]
    assert is_alive(report.old_pids[0])
    assert report.new_pids == ()
    assert len(report.old_pids) == 1


def test_a_process_that_cannot_be_replaced_stays(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "1")
    master.refusal = "the new process died: no module named app"
    old = [child.pid for child in master.slots]
    _, report = roll(redis_url)
    assert (report.outcome, report.exit_status) == ("aborted", 1)
    assert "no module named app" in (report.error or "")
    assert [child.pid for child in master.slots] == old
    assert all(map(is_alive, old))


def results(report: DrainReport) -> list[tuple[str, str]]:
    return [(process.key, process.result) for process in report.processes]


def test_two_processes_are_replaced_at_the_same_time(
    master: Master, client: Client, redis_url: str
) -> None:
    """Each old process leaves only when the other's successor has started, too."""
    put(client, "1")
    both = threading.Barrier(2)
    master.on_replace = lambda _: both.wait(30)
    steps, report = roll(redis_url, at_once="100%")
    assert (report.outcome, report.exit_status) == ("restarted", 0)
    assert [step.step for step in steps if step.step in {"restarting", "ready"}] == [
        *("restarting", "restarting", "ready", "ready")
    ]
    assert report.new_pids == tuple(child.pid for child in master.slots)


def test_one_of_two_with_names_is_late_and_the_other_is_waited_for(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "1", "active", lock="a:1", pb="w0-0")
    master.stays = {0}
    _, report = roll(redis_url, at_once="2", timeout_s=0.5)
    assert (report.outcome, report.exit_status) == ("timeout", 4)
    assert results(report) == [("app/0", "asked"), ("app/1", "new")]
    assert [job.id for job in report.still_active] == ["1"]
    assert is_alive(report.old_pids[0])
    assert report.new_pids == (master.slots[1].pid,)


def test_a_job_that_one_of_two_left_behind_with_names(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "1", "active", lock="a:1", pb="w0-0")
    put(client, "2", "active", lock="b:1", pb="w1-1")

    def leave(slot: int) -> None:
        if slot == 0:
            finish(client, "1")
        else:
            client.call("PEXPIRE", Q.lock("2"), 700)

    one_after_another = threading.Lock()

    def leave_alone(slot: int) -> None:
        with one_after_another:
            leave(slot)

    master.on_replace = leave_alone
    _, report = roll(redis_url, at_once="2")
    assert (report.outcome, report.interrupted, report.recovered) == ("aborted", 1, 1)
    assert "qctl:app (id app/0), qctl:app (id app/1) left 1 job behind" in (report.error or "")
    assert results(report) == [("app/0", "new"), ("app/1", "new")]
    assert client.call("LRANGE", Q("wait"), 0, -1) == ["2"]


def test_each_failure_of_a_batch_is_reported(
    master: Master, client: Client, redis_url: str
) -> None:
    put(client, "1")
    master.refusal = "no module named app"
    _, report = roll(redis_url, at_once="2")
    assert (report.outcome, report.old_pids) == ("aborted", ())
    assert results(report) == [("app/0", "failed"), ("app/1", "failed")]
    assert (report.error or "").startswith("qctl:app (id app/0) was not replaced")
    (note,) = report.notes
    assert note.startswith("qctl:app (id app/1) was not replaced")
    assert note.endswith(": no module named app")


@pytest.fixture
def stops_first(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """The master is no longer known to start the new process first."""
    monkeypatch.setattr(master, "kind", "supervisord", raising=False)
    monkeypatch.setattr("qctl.ops.drain.restartable.require_rollable", lambda *_: None)


def test_a_process_that_is_down_is_replaced_first(
    master: Master,
    stops_first: None,
    client: Client,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(client, "1")
    master.down = {1: "errored"}
    target = choose.open_target(None, "")  # type: ignore[arg-type] - see ``master``
    processes = tuple(master.processes())
    monkeypatch.setattr(choose, "open_target", lambda *_: replace(target, processes=processes))
    steps, report = roll(redis_url)
    assert report.outcome == "restarted"
    assert [step.key for step in steps if step.step == "restarting"] == ["app/1", "app/0"]


def test_while_another_is_down_no_further_process_is_stopped(
    master: Master,
    stops_first: None,
    client: Client,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(client, "1")
    monkeypatch.setattr("qctl.ops.drain.roll.run.BOOT_S", 0.3)
    confirm = Restart.confirm

    def confirm_and_die(run: Restart) -> Generator[None, None, int]:
        pid = yield from confirm(run)
        master.down = {0: "errored"}
        return pid

    monkeypatch.setattr(Restart, "confirm", confirm_and_die)
    _, report = roll(redis_url)
    assert (report.outcome, report.exit_status) == ("aborted", 1)
    assert "qctl:app (id app/0) is not online" in (report.error or "")
    assert results(report) == [("app/0", "new"), ("app/1", "untouched")]
    assert any("not restarted: qctl:app id app/1" in note for note in report.notes)


def test_two_at_once_exclude_each_other(master: Master, client: Client, redis_url: str) -> None:
    put(client, "1")
    hold_lease(client, Q, holder("them", "restart"))
    with pytest.raises(RefusedError, match="another drain"):
        roll(redis_url)
    client.call("DEL", *client.call("KEYS", "qctl:*"))


def test_the_plan_says_how(master: Master, client: Client, redis_url: str) -> None:
    put(client, "1")
    address, other = connect(redis_url)
    settings = Settings(redis_url=redis_url)
    arguments: dict[str, Any] = {"target": "qctl:app", "then_restart": True}
    made = make_plan(other, address, settings, ["q"], **arguments)
    assert describe(made, other).strategy == "roll"
    made = make_plan(other, address, settings, ["q"], **arguments, strategy="pause")
    assert describe(made, other).strategy == "pause"
    made = make_plan(other, address, settings, ["q"], target="qctl:app", then_restart=False)
    assert made.strategy == "pause"
    other.close()


@pytest.mark.parametrize("strategy", ["roll", "pause"])
def test_ctrl_c_ends_the_wait_for_somebody_elses_stop(
    master: Master, client: Client, redis_url: str, strategy: str
) -> None:
    put(client, "1", "wait")
    asked: list[bool] = []
    master.down = dict.fromkeys((0, 1), "stopping")
    master.on_process = lambda: asked.append(True)
    _, report = roll(redis_url, strategy=strategy, stop=lambda: bool(asked))
    assert (report.outcome, report.error, report.old_pids) == ("aborted", "interrupted", ())


@pytest.mark.parametrize(
    ("count", "at_once", "changes", "says"),
    [
        (1, 1, {}, "fewer than 2 processes"),
        (2, 1, {"status": "errored"}, "fewer than 2 processes"),
        (2, 2, {}, "fewer than 3 processes"),
        (2, 1, {"stop_signal": "message"}, "message"),
    ],
)
def test_what_pm2_cannot_roll(count: int, at_once: int, changes: dict[str, str], says: str) -> None:
    one = ManagedProcess(
        target="pm2:app", key="0", name="app", namespace="", status="online", pid=None,
        started_at_ms=0, restarts=0, mode="fork", stop_signal="SIGINT", kill_timeout_ms=0,
        ready_timeout_ms=0, cpu_percent=None, rss_bytes=None,
    )  # fmt: skip
    manager = Pm2(Path())
    processes = [one, replace(one, key="1", **changes)][:count]
    with pytest.raises(RefusedError) as caught:
        require_rollable(
            Target("pm2:app", manager, tuple(processes), ()),
            Connections(Workers(), {}, {}),
            at_once,
        )
    assert says in caught.value.why
    assert "--strategy pause" in caught.value.hint
    assert ("--max-unavailable" in caught.value.hint) == (at_once > 1)


# The time in which nothing ran


def at(ms: int, name: str, job_id: str, prev: str = "") -> tuple[Any, Event]:
    return Q, Event(f"{ms}-0", name, {"jobId": job_id, "prev": prev})


def active(job_id: str) -> ActiveJob:
    return ActiveJob(Q, job_id, "job", 0, None, 0, None, "t:1", 30_000)


@pytest.mark.parametrize(
    ("events", "backlog", "idle_s"),
    [
        # A job of the backlog starts 2 s after the last one ended.
        ([at(1000, "completed", "1"), at(3000, "active", "2")], 0, 2.0),
        # One that came later had waited 0.5 s.
        (
            [at(1000, "completed", "1"), at(2500, "waiting", "2"), at(3000, "active", "2")],
            0,
            0.5,
        ),
        # Another still ran.
        (
            [at(500, "active", "2"), at(1000, "completed", "1"), at(3000, "active", "3")],
            0,
            0.0,
        ),
        # Nothing has started until the end, at 9 s.
        ([at(1000, "failed", "1")], 3, 8.0),
        ([at(1000, "failed", "1"), at(5000, "waiting", "2")], 1, 4.0),
        ([at(1000, "failed", "1")], 0, 0.0),
        # A failed attempt that is tried again later ends the run.
        ([at(1000, "delayed", "1", "active"), at(3000, "active", "2")], 0, 2.0),
    ],
)
def test_idle_is_the_longest_wait_while_nothing_ran(
    events: list[tuple[Any, Event]], backlog: int, idle_s: float
) -> None:
    ledger = RollLedger()
    ledger.begin([active("1")], backlog=0, at_ms=0)
    ledger.follow(events)
    ledger.backlog = backlog
    assert ledger.idle_s(9000) == idle_s
    assert ledger.active_at_start == 1


@pytest.mark.parametrize("is_at_start", [True, False])
def test_events_from_before_the_run_that_was_read_are_no_end(is_at_start: bool) -> None:
    ledger = RollLedger()
    ledger.begin([active("1")] if is_at_start else [], backlog=0, at_ms=500)
    if not is_at_start:
        ledger.add_jobs([(Q, "1")])
    ledger.follow(
        [at(100, "added", "1"), at(100, "delayed", "1"), at(400, "waiting", "1", "delayed")]
    )
    ledger.follow([at(401, "active", "1"), at(900, "completed", "1", "active")])
    assert [(row.id, row.result) for row in ledger.outcomes()] == [("1", "completed")]


def test_jobs_that_come_and_go_are_not_kept() -> None:
    ledger = RollLedger()
    ledger.begin([active("1")], backlog=0, at_ms=0)
    for n in range(100):
        ledger.follow([at(n, "active", f"j{n}"), at(n, "completed", f"j{n}", "active")])
    assert [row.id for row in ledger.outcomes()] == ["1"]
    assert ledger._started_since == set()
    ledger.add_jobs([(Q, "k")])
    ledger.follow([at(200, "completed", "k", "active")])
    assert [(row.id, row.result) for row in ledger.outcomes()] == [
        ("1", "lost"),
        ("k", "completed"),
    ]
