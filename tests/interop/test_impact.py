"""What ``impact`` predicts, against what a plain ``pm2 restart`` then does to real jobs."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import shlex
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.replies import to_dict
from tests.labs.drains import Lab, kill
from tests.labs.node import MODULES
from tests.labs.servers import wait_until

# So that what takes a minute by BullMQ's defaults takes seconds.
QUICK = {"LOCK_MS": 1600, "STALLED_MS": 1200}


def ask(lab: Lab, *words: str) -> dict[str, Any]:
    done = lab.qctl("impact", *words, "--json")
    assert done.code == 0, done.err
    return done.json


def ids(refs: Sequence[dict[str, str]] | None, queue: str = "q") -> list[str]:
    assert refs is not None
    assert {ref["queue"] for ref in refs} <= {queue}
    return [ref["id"] for ref in refs]


class PlainRestart:
    """``pm2 restart``, as typed by hand; at work from now on."""

    def __init__(self, lab: Lab, app: str) -> None:
        self._old = psutil.Process(lab.pm2.pid(app))
        self._ended_ms = 0
        self._threads = [
            threading.Thread(target=self._watch),
            threading.Thread(target=lab.pm2.run, args=("restart", app), kwargs={"check": False}),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ended_ms(self) -> int:
        """When the old process had gone, epoch milliseconds; waits for that and for PM2."""
        for thread in self._threads:
            thread.join(60)
        assert self._ended_ms, "the old process has not ended"
        return self._ended_ms

    def _watch(self) -> None:
        self._old.wait(45)
        self._ended_ms = int(time.time() * 1000)


def events(lab: Lab, queue: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """When, and the fields, of the events of one name."""
    for entry, flat in lab.client.call("XRANGE", lab.keys(queue)("events"), "-", "+"):
        fields = to_dict(flat)
        if fields["event"] == name:
            yield int(entry.partition("-")[0]), fields


def stalls_since(lab: Lab, queue: str, since_ms: int) -> dict[str, int]:
    """Ids of the jobs that a check took from a worker since then, with when."""
    return {f["jobId"]: at for at, f in events(lab, queue, "stalled") if at >= since_ms}


def wait_stalls(lab: Lab, queue: str, since_ms: int, count: int) -> dict[str, int]:
    wait_until(
        lambda: len(stalls_since(lab, queue, since_ms)) >= count,
        f"{count} jobs of {queue} to be found stalled",
        timeout_s=30,
    )
    return stalls_since(lab, queue, since_ms)


def failed_for_good(lab: Lab, queue: str) -> set[str]:
    reason = STALLED_TOO_OFTEN
    return {f["jobId"] for _, f in events(lab, queue, "failed") if f["failedReason"] == reason}


def test_apps_that_end_at_once(lab: Lab) -> None:
    """Who is interrupted, who fails for good, and when they run again; both versions at a time."""
    queues = {5: "five", 6: "six"}
    twice: dict[int, str] = {}
    for version, queue in queues.items():
        lab.app(f"app{version}", queue, version=version, concurrency=3, **QUICK)
        (twice[version],) = lab.add(30_000, queue=queue, version=version)
    for version, queue in queues.items():
        lab.wait_started(twice[version], queue=queue)
        # Its first stall; it is the second that the limit does not allow.
        kill(lab.pm2.pid(f"app{version}"))
    told, restarts, expected = {}, {}, {}
    for version, queue in queues.items():
        wait_until(lambda: len(lab.rows(twice[version], queue)) == 2, "its second start")  # noqa: B023
    for version, queue in queues.items():
        added = lab.add(20_000, 20_000, queue=queue, version=version)
        lab.wait_started(*added, queue=queue)
        expected[version] = sorted([twice[version], *added])
        told[version] = ask(lab, "--target", f"pm2:app{version}")
        restarts[version] = PlainRestart(lab, f"app{version}")
    for version, queue in queues.items():
        answer, ended_ms = told[version], restarts[version].ended_ms
        interrupted = ids(answer["interrupted"], queue)
        stalls = wait_stalls(lab, queue, ended_ms, len(interrupted))
        assert sorted(stalls) == sorted(interrupted) == expected[version]
        (delay,) = answer["recovery"]
        for at_ms in stalls.values():
            assert delay["min_s"] <= (at_ms - ended_ms) / 1000 <= delay["max_s"]
        wait_until(lambda: failed_for_good(lab, queue), "one to fail for good")  # noqa: B023
        assert [*failed_for_good(lab, queue)] == ids(answer["fails_for_good"], queue)
        assert ids(answer["fails_for_good"], queue) == [twice[version]]
        # What its first end did is known, too.
        (last,) = answer["last_restarts"]
        assert (last["queue"], last["interrupted"]) == (queue, [twice[version]])
        check_words(answer, version)


def check_words(answer: dict[str, Any], version: int) -> None:
    """What else was said of it."""
    assert answer["verdict"]["word"] == "drain first"
    assert "and 1 of them would fail for good" in answer["verdict"]["reasons"][0]
    assert answer["verdict"]["commands"] == [f"qctl restart pm2:app{version}"]
    assert [process["stop_signal"] for process in answer["processes"]] == ["SIGINT"]
    assert (answer["handles_signal"], answer["kill_after_s"]) == (None, 1.6)
    # No comparable job has completed, so none is known to end before SIGKILL.
    assert answer["interrupted_if_handled"] == answer["interrupted"]
    assert answer["unattributed"] == []
    (delay,) = answer["recovery"]
    assert delay["by"] == "restarted"
    assert delay["interval_assumed"] or abs(delay["interval_ms"] - 1200) < 300
    assert 1600 <= delay["lock_ms"] <= 3200


def test_apps_that_finish_their_jobs(lab: Lab) -> None:
    """One that gets the time for it, and one that is killed before its longest job has ended."""
    kill_timeouts_ms = {"patient": 30_000, "hasty": 5000}
    long_ms = {"patient": 7000, "hasty": 20_000}
    added, told, restarts = {}, {}, {}
    for app, kill_timeout in kill_timeouts_ms.items():
        options = {"kill_timeout": kill_timeout}
        lab.app(app, app, concurrency=2, options=options, HANDLE_SIGINT=1, **QUICK)
        have_run(lab, app, short=4000, long=long_ms[app])
    for app in kill_timeouts_ms:
        added[app] = lab.bull().add_bulk(app, [job("short", 4000), job("long", long_ms[app])])
        lab.wait_started(*added[app], queue=app)
        told[app] = ask(lab, app)
        restarts[app] = PlainRestart(lab, app)
    for app, killed in (("hasty", added["hasty"][1:]), ("patient", [])):
        answer = told[app]
        assert answer["target"] == f"pm2:{app}"
        # On a slow machine the short one may have ended by then.
        assert {added[app][1]} <= {*ids(answer["interrupted"], app)} <= {*added[app]}
        assert ids(answer["interrupted_if_handled"], app) == killed
        assert answer["verdict"]["word"] == "drain first"
        remaining_s = answer["downtime"]["drain_wait_p50_s"]
        assert 0 < remaining_s <= long_ms[app] / 1000
        stalls = wait_stalls(lab, app, restarts[app].ended_ms, len(killed))
        assert [*stalls] == killed
        lab.wait_completed([i for i in added[app] if i not in killed], app)
    lab.prove_runs("patient")
    # Else it would be waited for at the end.
    kill(lab.pm2.pid("hasty"))


def job(name: str, ms: int) -> dict[str, Any]:
    return {"name": name, "data": {"ms": ms}, "opts": {}}


def have_run(lab: Lab, queue: str, **ms: int) -> None:
    """A history of jobs that took so long; really they were shorter, to spare the time."""
    ran = lab.bull().add_bulk(queue, [job(name, 1) for name in ms])
    lab.wait_completed(ran, queue)
    for job_id, took in zip(ran, ms.values(), strict=True):
        lab.client.call("HINCRBY", lab.keys(queue)(job_id), "processedOn", -took)


def test_jobs_of_other_workers_are_not_counted(lab: Lab) -> None:
    lab.app("mine", WORKER_NAME="mine", **QUICK)
    other = lab.bull(fresh=True)
    other.start_worker("q", name="other", lockDuration=1600, stalledInterval=1200)
    added = lab.add(15_000, 15_000)
    lab.wait_started(*added)
    mine = [job_id for job_id in added if lab.rows(job_id)[0]["worker"] == "mine"]
    told = ask(lab, "q")
    assert told["target"] == "pm2:mine"
    assert ids(told["interrupted"]) == mine
    assert [job["held_by"] for job in told["jobs"]].count("other") == 1
    (queue,), (delay,) = told["queues"], told["recovery"]
    assert (queue["workers"], queue["other_workers"], delay["by"]) == (1, 1, "others")
    restart = PlainRestart(lab, "mine")
    stalls = wait_stalls(lab, "q", restart.ended_ms, 1)
    assert [*stalls] == mine
    after_s = (stalls[mine[0]] - restart.ended_ms) / 1000
    assert delay["min_s"] <= after_s <= delay["max_s"]
    other.kill()


def test_a_cluster_of_two_processes(lab: Lab) -> None:
    lab.app("pair", instances=2, cluster=True)
    added = lab.add(20_000, 20_000)
    lab.wait_started(*added)
    told = ask(lab, "q")
    assert (told["target"], told["verdict"]["word"]) == ("pm2:pair", "drain first")
    assert [process["queues"] for process in told["processes"]] == [["q"], ["q"]]
    assert sorted(ids(told["interrupted"])) == sorted(added)
    assert [job["held_by"] for job in told["jobs"]] == ["target", "target"]
    assert told["unattributed"] == []


@contextlib.contextmanager
def tunnel(port: int) -> Iterator[int]:
    """A proxy before Redis, so that Redis sees another address than the worker has; its port."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as redis:
                ends = {self.request: redis, redis: self.request}
                with contextlib.suppress(OSError):
                    while True:
                        for end in select.select([*ends], [], [])[0]:
                            data = end.recv(65_536)
                            if not data:
                                return
                            ends[end].sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Forward) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_jobs_of_workers_that_cannot_be_seen(lab: Lab) -> None:
    """Behind a proxy, or closing; each time somebody else could have the job, by its name."""
    with tunnel(lab.server.port) as port:
        lab.app("far", "far", REDIS_PORT=port, WORKER_NAME="w")
        lab.app("closing", "closing", HANDLE_SIGTERM=1)
        other, hidden = lab.bull(), dict[str, str]()
        for queue, options in (("far", {"name": "w"}), ("closing", {})):
            (hidden[queue],) = lab.add(20_000, queue=queue)
            lab.wait_started(hidden[queue], queue=queue)
            other.start_worker(queue, **options)
        os.kill(lab.pm2.pid("closing"), signal.SIGTERM)
        lab.wait_workers("closing", 1)
        for words in (("--target", "pm2:far"), ("closing", "--target", "pm2:closing")):
            told = ask(lab, *words)
            queue = words[-1].removeprefix("pm2:")
            assert told["verdict"]["word"] == "drain first"
            assert {"queue": queue, "id": hidden[queue]} in told["unattributed"]
            # It was its own: it ends with the process.
            kill(lab.pm2.pid(queue))
            assert [row["ev"] for row in lab.rows(hidden[queue], queue)] == ["start"]


TWO_PREFIXES = """
const { Worker } = require(process.env.BULL);
const connection = { host: "127.0.0.1", port: Number(process.env.REDIS_PORT) };
for (const [queue, prefix] of [["q", "bull"], ["emails", "staging"]])
  new Worker(queue, async () => {}, { connection, prefix });
"""


def test_a_worker_under_another_prefix_is_named_by_its_queue(lab: Lab) -> None:
    script = lab.folder / "two.js"
    script.write_text(TWO_PREFIXES)
    env = {"BULL": MODULES / "bullmq6", "REDIS_PORT": lab.server.port}
    lab.pm2.start("app", script, env)
    lab.wait_workers("q")
    lab.wait_workers("emails", prefix="staging")
    done = lab.qctl("impact", "q")
    assert done.code == 0, done.err
    assert base64.b64encode(b"emails").decode() not in done.out
    assert "also serves emails@staging, whose jobs were not read" in done.out.replace("\n", " ")


def test_the_commands_for_an_app_under_several_prefixes_work_as_typed(lab: Lab) -> None:
    lab.prefix = "{$QUEUE}"
    lab.app("app", "emails,videos")
    both = ["emails@{emails}", "videos@{videos}"]
    # Nothing is known of a queue before its first job.
    for queue in ("emails", "videos"):
        lab.add(0, queue=queue)
    told = ask(lab, "--prefix", "{$QUEUE}", "--target", "pm2:app")
    assert (told["verdict"]["word"], told["prefix"]) == ("safe", None)
    assert told["processes"][0]["queues"] == both
    (held,) = lab.hold(queue="videos")
    # The job that runs is under a prefix that was not selected, in the first of these.
    for words in (
        ("--prefix", "{emails}", "--target", "pm2:app"),
        ("--prefix", "{$QUEUE}"),
        ("--all-prefixes",),
        ("emails@{emails}", "videos@{videos}"),
    ):
        told = ask(lab, *words)
        is_all = words[1:2] != ("{emails}",)
        assert told["verdict"]["word"] == "drain first"
        assert told["foreign"] == ([] if is_all else [both[1]])
        assert told["interrupted"] == ([{"queue": both[1], "id": held}] if is_all else [])
        (typed,) = told["verdict"]["commands"]
        planned = lab.qctl(*shlex.split(typed)[1:], "--dry-run", "--json")
        assert planned.code == 0, (typed, planned.err)
        assert (planned.json["queues"], planned.json["target"]) == (both, "pm2:app")
    old = lab.pm2.pid("app")
    restart = lab.steps(*shlex.split(typed)[1:])
    restart.await_step("waiting")
    lab.release("videos")
    report = restart.finish().report
    assert (report["outcome"], report["interrupted"], report["lost"]) == ("restarted", 0, 0)
    assert report["old_pids"] == [old]
    lab.prove([held], "videos")
    # Under the prefix in force, `bull`, it serves nothing.
    done = lab.qctl("impact", "--target", "pm2:app")
    assert (done.code, done.out) == (2, "")
    assert "emails@{emails}, videos@{videos}" in done.err
