"""What qctl does with a queue whose slot is moving to another node of a real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from qctl import AsyncQueue, Job, Queue, Worker
from qctl.config.settings import Settings
from qctl.connection import slot_moves as moving
from qctl.connection.address import Arg, Client, parse_url
from qctl.connection.cluster import key_slot
from qctl.connection.connect import connect
from qctl.connection.socket_client import SocketClient
from qctl.errors import ExitStatus, ReplyError
from qctl.ops.doctor.findings import Finding
from qctl.ops.doctor.run import examine
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Dedup, JobOptions
from qctl.wire.read.census import read_census
from qctl.wire.read.children import children
from qctl.wire.read.rights import DRAIN, read_missing_rights
from qctl.wire.replies import to_dict
from qctl.wire.schedulers import migration, scheduling
from qctl.wire.schedulers.iterations import Iteration, Registered
from qctl.wire.states import DELAY_FACTOR
from qctl.wire.write import cancelling, worker_calls
from qctl.wire.write.adding import FlowJob, NewJob, add_calls, flow_call, flow_nodes
from qctl.wire.write.limits import GlobalRateLimit, set_limits
from qctl.wire.write.pausing import free_lease, hold_lease, pause, resume
from qctl.wire.write.transitions import (
    promote,
    remove_jobs,
    report_cleaned,
    retry_finished,
    retry_stalled,
)
from tests.labs.build import holder, is_paused, put, row
from tests.labs.cli import Ran, run
from tests.labs.clusters import Cluster, Move
from tests.labs.jobs import discovered
from tests.labs.servers import wait_until

NOW = 1_700_000_000_000
HELD_BY = "t:0"
# A legacy repeatable, and its pending job.
FAR = 4_000_000_000_000
LEGACY, LEGACY_JOB = "n::::60000", f"repeat:legacy:{FAR}"
Act = Callable[[Client, QueueKeys], Any]


def call(make: Callable[[QueueKeys], scripts.ScriptCall]) -> Act:
    return lambda client, keys: scripts.run_call(client, make(keys))


def step(client: Client, keys: QueueKeys, wanted: int, *done: str) -> Any:
    """A worker's step: ``done`` jobs have completed, ``wanted`` are fetched."""
    groups = (1, HELD_BY, "-1||", 1, "", "", len(done)) if done else (0,)
    jobs = [word for job_id in done for word in (job_id, "null")]
    fixed = (NOW, HELD_BY, 30_000, wanted, 0, *worker_calls.step_options("", None, None))
    return client.call(*worker_calls.step_head(keys), *fixed, *groups, *jobs)


def fill(client: Client, keys: QueueKeys, name: str) -> None:
    """A queue with something for the script ``name`` to do."""
    jobs = [NewJob("plain") for _ in range(9)]
    others = [NewJob("d", job_id="d", delay=3600), NewJob("p", job_id="p", priority=2)]
    scripts.run_all(client, add_calls(keys, [*jobs, *others], NOW))
    step(client, keys, 4)
    scripts.run_call(client, fail(keys, "1"))
    step(client, keys, 0, "2")
    put(client, "parent", "active", keys=keys, lock=HELD_BY)
    client.call("SADD", keys("parent:dependencies"), keys("child"))
    put(client, "lost", "active", keys=keys)
    client.call("SADD", keys("stalled"), "lost")
    scripts.run_call(client, upsert(keys))
    hold_lease(client, keys, holder("me"))
    client.call("HSET", keys.cancel_requests, "3", "asked")
    if name == "migrate_repeatable":
        put(client, LEGACY_JOB, "delayed", keys=keys, score=FAR * DELAY_FACTOR, rjk=LEGACY)
        client.call("ZADD", keys("repeat"), FAR, LEGACY)
    if name == "resume":
        pause(client, keys, holder("me"))


def fail(keys: QueueKeys, job_id: str) -> scripts.ScriptCall:
    return worker_calls.fail(
        keys, job_id, HELD_BY, NOW, reason="no", stacktrace="[]", attempts=1, attempts_made=1,
        keep="-1||", metrics_minutes=5,
    )  # fmt: skip


def upsert(keys: QueueKeys) -> scripts.ScriptCall:
    schedule = scheduling.Schedule(every=60)
    return scheduling.upsert_call(keys, "s", schedule, None, None, JobOptions(), NOW)


def migrate_repeatable(client: Client, keys: QueueKeys) -> str:
    fields = to_dict(client.call("HGETALL", keys(LEGACY_JOB)))
    pending = Iteration(LEGACY_JOB, "delayed", fields)
    entry = Registered(LEGACY, FAR, None, {}, f"repeat:{LEGACY}:", pending)
    new = migration.NewScheduler(
        id="new", name="n", pattern=None, every_ms=60_000, tz=None, limit=None, start_ms=None,
        end_ms=None, next_ms=FAR,
    )  # fmt: skip
    return migration.migrate(client, keys, entry, new, NOW)


def next_iteration(client: Client, keys: QueueKeys) -> Any:
    due = client.call("ZSCORE", keys("repeat"), "s")
    job_id = f"repeat:s:{due}"
    fields = to_dict(client.call("HGETALL", keys(job_id)))
    made = scheduling.next_iteration_call(keys, job_id, fields, NOW)
    assert made is not None
    return scripts.run_call(client, made)


def add(client: Client, keys: QueueKeys) -> Any:
    jobs = [NewJob("n"), NewJob("n", priority=1), NewJob("n", dedup=Dedup("x")), NewJob("n")]
    return scripts.run_all(client, add_calls(keys, jobs, NOW))


def add_flow(client: Client, keys: QueueKeys) -> Any:
    below = [FlowJob("kid", keys.name, job_id=f"kid{n}") for n in range(2)]
    nodes = flow_nodes(FlowJob("top", keys.name, job_id="top", children=below))
    return scripts.run_call(client, flow_call(keys.prefix, nodes, NOW))


# By the script they run; those of the second row name every key that they use.
REFUSED: dict[str, Act] = {
    "add": add,
    "add_flow": add_flow,
    "census": lambda client, keys: read_census(client, keys).counts,
    "report_cleaned": lambda client, keys: report_cleaned(client, keys, 1),
    "fail": call(lambda keys: fail(keys, "3")),
    "give_back": call(lambda keys: worker_calls.give_back(keys, [("3", HELD_BY), ("4", HELD_BY)])),
    "migrate_repeatable": migrate_repeatable,
    "next_iteration": next_iteration,
    "pause": lambda client, keys: pause(client, keys, holder("me")).changed,
    "promote": lambda client, keys: promote(client, keys, ["d", "5"]),
    "remove_jobs": lambda client, keys: remove_jobs(client, keys, ["1", "d", "9", "3"]),
    "remove_scheduler": call(lambda keys: scheduling.remove_call(keys, "s")),
    "resume": lambda client, keys: resume(client, keys).moved,
    "retry": call(
        lambda keys: worker_calls.retry(keys, "3", HELD_BY, NOW, delay_ms=9, counted=True)
    ),
    "retry_finished": lambda client, keys: retry_finished(client, keys, ["1", "2", "9"]),
    "retry_stalled": lambda client, keys: retry_stalled(client, keys, {"lost": "", "3": ""}),
    "set_limits": lambda client, keys: set_limits(client, keys, 5, GlobalRateLimit(9, 1000)),
    "stalled_check": call(lambda keys: worker_calls.stalled_check(keys, NOW, 30_000, 1)),
    "update_job": call(lambda keys: worker_calls.update_job(keys, "3", "progress", "7")),
    "upsert_scheduler": call(upsert),
    "wait_children": call(lambda keys: worker_calls.wait_children(keys, "parent", HELD_BY, NOW)),
    "settle_and_fetch": lambda client, keys: step(client, keys, 3, "3"),
}
DONE: dict[str, Act] = {
    "disown": lambda client, keys: free_lease(client, keys, "me"),
    "hold_lease": lambda client, keys: hold_lease(client, keys, holder("you")),
    "rights": lambda client, keys: read_missing_rights(client, keys, DRAIN),
    "swap_request": lambda client, keys: cancelling.answer(
        client, keys, cancelling.Request("3", HELD_BY, "", "asked"), cancelling.CANCELLING
    ),
    "renew": call(lambda keys: worker_calls.renew(keys, 30_000, "3", HELD_BY)),
}


def contents(client: Client, keys: QueueKeys) -> dict[str, Any]:
    """All there is of a queue, without what the time of day decides."""
    names = {name for node in client.masters() for name in node.call("KEYS", f"*{keys.prefix}*")}
    readers = {
        "string": lambda name: client.call("GET", name),
        "list": lambda name: client.call("LRANGE", name, 0, -1),
        "set": lambda name: sorted(client.call("SMEMBERS", name)),
        "zset": lambda name: client.call("ZRANGE", name, 0, -1, "WITHSCORES"),
        "hash": lambda name: sorted(to_dict(client.call("HGETALL", name)).items()),
        "stream": lambda name: [to_dict(flat) for _, flat in client.call("XRANGE", name, "-", "+")],
    }
    found = {name: readers[client.call("TYPE", name)](name) for name in sorted(names)}
    return {alike(name, keys): alike(value, keys) for name, value in found.items()}


def alike(value: Any, keys: QueueKeys) -> Any:
    """The same for queues of all prefixes, and for all ids of events."""
    return re.sub(r"[0-9]{13}-[0-9]+", "ID", repr(value).replace(keys.prefix, "{}"))


PARTS: dict[str, Callable[[list[str]], list[str]]] = {
    "none": lambda _: [],
    "odd": lambda names: names[1::2],
    "even": lambda names: names[::2],
    "all": lambda names: names,
}


@contextlib.contextmanager
def no_patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "PATIENCE_S", 0.0)
        yield


_tags = (f"tag{n}" for n in itertools.count())


@pytest.fixture
def ready(cluster: Cluster) -> Cluster:
    """With the worker's script known to all nodes."""
    for master in cluster.client.masters():
        master.call("SCRIPT", "LOAD", scripts.source("settle_and_fetch"))
    return cluster


def expected(client: Client, name: str, act: Act) -> tuple[Any, dict[str, Any]]:
    """What it answers and leaves where no slot moves."""
    keys = QueueKeys("{control}", "q")
    fill(client, keys, name)
    return act(client, keys), contents(client, keys)


def test_every_script_is_tried() -> None:
    folder = files("qctl.wire") / "lua"
    names = {path.name.removesuffix(".lua") for path in folder.iterdir() if path.is_file()}
    assert names == {*REFUSED, *DONE}


@pytest.mark.parametrize("name", REFUSED)
def test_a_script_waits_until_the_queue_has_moved(ready: Cluster, name: str) -> None:
    client, act = ready.client, REFUSED[name]
    answer, left = expected(client, name, act)
    for parts in (("none", "odd", "all"), ("even",)):
        tag = next(_tags)
        keys = QueueKeys(f"{{{tag}}}", "q")
        fill(client, keys, name)
        before = contents(client, keys)
        with Move(ready, tag) as move:
            for part in parts:
                move.carry(PARTS[part](move.left()))
                with no_patience(), pytest.raises(ReplyError) as caught:
                    act(client, keys)
                assert caught.value.code == "TRYAGAIN"
                assert caught.value.exit_status == ExitStatus.UNREACHABLE
                assert contents(client, keys) == before
        assert act(client, keys) == answer
        assert contents(client, keys) == left


@pytest.mark.parametrize("name", DONE)
def test_a_script_with_a_single_key_runs_where_that_is(ready: Cluster, name: str) -> None:
    client, act = ready.client, DONE[name]
    answer, left = expected(client, name, act)
    for part in PARTS.values():
        tag = next(_tags)
        keys = QueueKeys(f"{{{tag}}}", "q")
        fill(client, keys, name)
        with Move(ready, tag) as move:
            move.carry(part(move.left()))
            assert act(client, keys) == answer
            assert contents(client, keys) == left
        assert contents(client, keys) == left


def test_a_new_queue_is_not_begun_in_a_slot_that_moves(ready: Cluster) -> None:
    with Move(ready, "unborn"), Queue("q", redis_url=ready.url, prefix="{unborn}") as queue:
        with no_patience(), pytest.raises(ReplyError) as caught:
            queue.add("x")
        assert caught.value.code == "TRYAGAIN"
    assert contents(ready.client, queue.keys) == {}


def test_an_add_waits_for_the_end_of_the_move(cluster: Cluster) -> None:
    keys = QueueKeys("{waits}", "q")
    added: list[str] = []

    async def add_soon() -> None:
        async with AsyncQueue("q", redis_url=cluster.url, prefix=keys.prefix) as queue:
            added.append(await queue.add("x"))

    with (
        Queue("q", redis_url=cluster.url, prefix=keys.prefix) as queue,
        ThreadPoolExecutor() as pool,
    ):
        added.append(queue.add("x"))
        with Move(cluster, "waits") as move:
            adds = [
                pool.submit(lambda: added.append(queue.add("x"))),
                pool.submit(lambda: asyncio.run(add_soon())),
            ]
            move.carry(move.left()[::2])
            # Each is refused a few times.
            assert wait(adds, timeout=0.3).done == set()
        for each in adds:
            each.result()
    assert sorted(added) == ["1", "2", "3"]
    assert sorted(row(cluster.client, "wait", keys)) == ["1", "2", "3"]


def test_what_cannot_wait_says_why(cluster: Cluster) -> None:
    keys = QueueKeys("{says}", "q")
    put(cluster.client, "1", keys=keys)
    words = ("--prefix", keys.prefix, "--redis", cluster.url)

    async def add_soon() -> None:
        async with AsyncQueue("q", redis_url=cluster.url, prefix=keys.prefix) as queue:
            await queue.add("x")

    with Move(cluster, "says") as move, no_patience():
        move.carry(move.left()[::2])
        for command in (("jobs", "add", "q", "x"), ("pause", "q")):
            ran = run(*command, *words, PM2_HOME="/nonexistent")
            assert ran.code == ExitStatus.UNREACHABLE, ran.err
            assert "the cluster is moving these keys to another node" in ran.err
            assert "redis-cli --cluster check" in ran.err
        with pytest.raises(ReplyError) as caught:
            asyncio.run(add_soon())
        assert caught.value.code in {"ASK", "TRYAGAIN"}
        assert caught.value.exit_status == ExitStatus.UNREACHABLE
    assert row(cluster.client, "wait", keys) == ["1"]


@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "add", "q", "x"),
        ("pause", "q"),
        ("resume", "q"),
        ("jobs", "promote", "q", "later"),
        ("jobs", "remove", "q", "waits", "--yes"),
        ("jobs", "retry", "q", "bad"),
        ("jobs", "retry-stalled", "q", "--yes"),
        ("purge", "q", "--state", "failed", "--yes"),
    ],
    ids=" ".join,
)
def test_no_command_changes_a_part_of_a_queue(cluster: Cluster, words: tuple[str, ...]) -> None:
    keys = QueueKeys(f"{{{next(_tags)}}}", "q")
    put(cluster.client, "waits", keys=keys)
    put(cluster.client, "later", "delayed", keys=keys, score=2**54)
    put(cluster.client, "bad", "failed", keys=keys, score=1, finishedOn=1)
    put(cluster.client, "hung", "active", keys=keys)
    if words[0] == "resume":
        cluster.client.call("HSET", keys("meta"), "paused", "1")
    before = contents(cluster.client, keys)
    where = ("--prefix", keys.prefix, "--redis", cluster.url)
    with Move(cluster, keys.prefix[1:-1]) as move:
        for part in ("odd", "all"):
            move.carry(PARTS[part](move.left())[: 3 if part == "all" else None])
            with no_patience():
                ran = run(*words, *where, PM2_HOME="/nonexistent")
            assert contents(cluster.client, keys) == before
            assert ran.code == ExitStatus.UNREACHABLE, ran


@pytest.mark.parametrize("part", PARTS)
def test_all_is_read_while_a_queue_moves(ready: Cluster, part: str) -> None:
    client, tag = ready.client, next(_tags)
    keys = QueueKeys(f"{{{tag}}}", "q")
    fill(client, keys, "resume")
    words = ("--prefix", keys.prefix, "--redis", ready.url)
    reads = (
        ("status", "q", "--json"), ("jobs", "list", "q", "--state", "waiting", "--json"),
        ("jobs", "show", "q", "3", "--json"), ("schedules", "list", "q", "--json"),
        ("metrics",),
    )  # fmt: skip

    def shape(out: str) -> str:
        """Without ages and times."""
        times = r'"[0-9-]{10}T[^"]*"|"[a-z_]*_s": *[0-9.]+|[0-9]+ s\b|[0-9.]{3,}'
        return re.sub(times, "#", out)

    def seen() -> list[Ran]:
        return [run(*read, *words, PM2_HOME="/nonexistent") for read in reads]

    before = seen()
    with Move(ready, tag) as move, no_patience():
        move.carry(PARTS[part](move.left()))
        for read, then, now in zip(reads, before, seen(), strict=True):
            assert (now.code, now.err) == (then.code, then.err), read
            assert shape(now.out) == shape(then.out), read


@pytest.mark.parametrize("tag", ["a", "b", "c"])
def test_a_queue_that_moves_while_it_is_looked_for_is_found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    """The tags lie on different nodes."""
    client, keys = cluster.client, QueueKeys(f"{{{tag}}}", "q")
    put(client, "1", keys=keys)
    with Move(cluster, tag) as move:
        call_node = SocketClient.call

        def call_and_move(node: SocketClient, *command: Arg, timeout_s: float = 0.0) -> Any:
            reply = call_node(node, *command, timeout_s=timeout_s)
            if command[0] == "SCAN":
                monkeypatch.undo()
                move.carry(move.left())
            return reply

        monkeypatch.setattr(SocketClient, "call", call_and_move)
        assert discovered(client, keys.prefix) == ["q"]


def test_the_doctor_names_a_queue_that_moves(cluster: Cluster) -> None:
    for tag in ("ill", "well"):
        put(cluster.client, "1", "completed", keys=QueueKeys("bull", f"{{{tag}}}"))
    settings = Settings(pm2_home=Path("/nonexistent"), state_home=Path("/nonexistent"))

    def found() -> list[Finding]:
        address = parse_url(cluster.url)
        diagnosis = examine(cluster.client, address, settings, sleep=lambda _: None)
        return [each for each in diagnosis.findings if each.check == "moving-slots"]

    with Move(cluster, "ill") as move:
        move.carry(move.left()[::2])
        (finding,) = found()
    assert finding.subject.name == "{ill}"
    assert finding.evidence == {"slot": key_slot(b"ill")}
    assert finding.commands == (f"redis-cli --cluster check 127.0.0.1:{cluster.nodes[0].port}",)
    assert found() == []


def test_children_are_read_while_a_queue_moves(cluster: Cluster) -> None:
    client, keys = cluster.client, QueueKeys("{kin}", "q")
    put(client, "parent", keys=keys)
    put(client, "child", keys=keys, lock="t", parentKey=keys("parent"))
    client.call("SADD", keys("parent:dependencies"), keys("child"))
    client.call("SADD", keys("child:dependencies"), keys("grandchild"))
    (before,) = children(client, keys, "parent")
    with Move(cluster, "kin") as move, no_patience():
        move.carry([keys("parent:dependencies"), keys("child:lock"), keys("child")])
        assert list(children(client, keys, "parent")) == [before]


def test_a_drain_sits_out_a_move(ready: Cluster) -> None:
    client, keys = ready.client, QueueKeys("{drained}", "q")
    scripts.run_all(client, add_calls(keys, [NewJob("x"), NewJob("x")], NOW))
    step(client, keys, 1)
    words = ("drain", "q", "--yes", "--json", "--timeout", "60s", "--prefix", keys.prefix)

    def move_and_end() -> None:
        # With a connection of its own, as for any thread.
        with contextlib.closing(connect(ready.url)[1]) as own:
            wait_until(lambda: is_paused(own, keys), "the drain to pause the queue")
            with Move(ready, "drained") as move, no_patience():
                move.carry(move.left()[::2])
                time.sleep(1)
            step(own, keys, 0, "1")

    with ThreadPoolExecutor() as pool:
        moved = pool.submit(move_and_end)
        ran = run(*words, "--redis", ready.url, PM2_HOME="/nonexistent")
        moved.result()
    assert ran.code == 0, ran.err
    assert is_paused(client, keys)
    assert row(client, "paused", keys) == ["2"]
    assert json.loads(ran.out)["lost"] == 0


def test_a_job_keeps_its_lock_through_a_long_move(cluster: Cluster) -> None:
    keys = QueueKeys("{long}", "q")
    worker = Worker(
        "q", redis_url=cluster.url, prefix=keys.prefix, lock_ttl_s=1, stalled_interval_s=0.5
    )
    goes_on = asyncio.Event()
    ran: list[str] = []

    @worker.task()
    async def note(job: Job) -> None:
        ran.append(job.id)
        await goes_on.wait()

    async def main() -> None:
        async with AsyncQueue("q", redis_url=cluster.url, prefix=keys.prefix) as queue:
            await queue.add("x")
        await worker.start()
        async with asyncio.timeout(20):
            while not ran:
                await asyncio.sleep(0.01)
        with Move(cluster, "long") as move:
            for part in ([], move.left()[::2], move.left()):
                move.carry(part)
                await asyncio.sleep(1)
                assert cluster.client.call("PTTL", keys.lock("1")) > 0
        goes_on.set()
        await worker.wait_until_idle()
        await worker.stop()

    asyncio.run(main())
    assert ran == ["1"]
    assert cluster.client.call("ZRANGE", keys("completed"), 0, -1) == ["1"]


def test_jobs_go_on_while_a_queue_moves_from_node_to_node(cluster: Cluster) -> None:
    """Two producers and a worker; the keys move a few at a time."""
    keys = QueueKeys("{busy}", "q")
    settings: Any = {"redis_url": cluster.url, "prefix": keys.prefix}
    worker = Worker("q", **settings, concurrency=5)
    added: list[str] = []
    ran: Counter[str] = Counter()
    is_over = threading.Event()

    @worker.task()
    async def note(job: Job) -> None:
        await job.update_progress(1)
        ran[job.id] += 1

    def produce() -> None:
        with Queue("q", **settings) as queue:
            while not is_over.is_set():
                added.append(queue.add("x"))
                added.extend(queue.add_bulk([NewJob("y"), NewJob("z", delay=0.05)]))

    async def produce_soon() -> None:
        async with AsyncQueue("q", **settings) as queue:
            while not is_over.is_set():
                added.append(await queue.add("x", priority=1))

    def move_on() -> None:
        for _ in range(3):
            goal = len(added) + 20
            wait_until(lambda goal=goal: len(added) > goal, "further adds")
            with Move(cluster, "busy") as move:
                while left := move.left():
                    move.carry(left[: max(len(left) // 10, 1)])
                    time.sleep(0.01)
        is_over.set()

    async def main() -> None:
        await worker.start()
        mover = asyncio.create_task(asyncio.to_thread(move_on))
        producer = asyncio.create_task(asyncio.to_thread(produce))
        await asyncio.gather(mover, producer, produce_soon())
        async with asyncio.timeout(30):
            while len(ran) < len(added):
                await asyncio.sleep(0.01)
        await worker.wait_until_idle()
        await worker.stop()

    asyncio.run(main())
    assert len(set(added)) == len(added)
    assert ran == Counter(added)
    assert cluster.client.call("ZCARD", keys("completed")) == len(added)
