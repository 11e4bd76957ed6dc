"""A network partition: packets are dropped, and nobody gets an error before a time limit.

Redis, an app under PM2 and qctl's own worker are on three hosts; qctl runs beside PM2. The limits
of qctl's connections are short here, see ``partitions.py``, and so are the locks.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from qctl.connection.socket_client import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S
from qctl.ops.drain.watchdog import RENEW_S
from qctl.runtime.loop.listener import MAX_BLOCK_S, MAX_LEAVE_S
from tests.labs.drains import Running
from tests.labs.network import BOTH, RECEIVED, SENT, why_not
from tests.labs.partitions import BLOCK_S, CONNECT_S, GRACE_S, LOCK_S, REPLY_S, PartitionLab
from tests.labs.servers import wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")
# A client on a host: each line on stdin is the next of its steps, each line on stdout its result.
_CLIENT = """
import asyncio, sys
from qctl.connection.address import parse_url
from qctl.connection.socket_client import SocketClient
from qctl.errors import UnreachableError
from qctl.runtime.loop.connection import AsyncConnection

address = parse_url(sys.argv[1])

def step(result):
    print(result, flush=True)
    return sys.stdin.readline()

async def main():
    sync, other, in_loop = SocketClient(address), SocketClient(address), AsyncConnection(address)
    sync.call("PING"), other.call("PING"), await in_loop.call("PING")
    step("connected")
    sending = asyncio.create_task(in_loop.call("SET", "late:in-loop", 1))
    await asyncio.sleep(0)
    try:
        sync.call("SET", "late:sync", 1)
    except UnreachableError as error:
        step(error.why)
    try:
        await sending
    except UnreachableError as error:
        step(error.why)
    print("last", flush=True)
    other.call("SET", "late:killed", 1)

asyncio.run(main())
"""
NO_REPLY = f"no answer for {REPLY_S:g} s\n"


@pytest.fixture(scope="module")
def own_hosts(
    node_modules: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PartitionLab]:
    """The hosts, with an app of BullMQ on ``a`` and a worker of qctl on ``b``, for all tests."""
    if reason := why_not():
        pytest.skip(reason)
    lab = PartitionLab(tmp_path_factory.mktemp("hosts"))
    try:
        lab.app(instances=2, HANDLE_SIGINT=1, options={"kill_timeout": 20_000})
        lab.own = lab.worker()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def hosts(own_hosts: PartitionLab) -> Iterator[PartitionLab]:
    """They are connected again at the end of the test, and their handlers may end."""
    yield own_hosts
    own_hosts.network.join()
    own_hosts.release()


def test_the_documented_limits() -> None:
    """``docs/guarantees.md`` states them; the other tests have shorter ones."""
    assert (CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, MAX_BLOCK_S, MAX_LEAVE_S) == (5, 10, 10, 2)
    assert RENEW_S == 5


def test_a_command_that_failed_is_not_carried_out_later(hosts: PartitionLab) -> None:
    """The kernel would send it again after the partition, also for a process that was killed."""
    host = hosts.network["b"]
    client = host.popen(
        [sys.executable, "-c", _CLIENT, hosts.server.url],
        env={**hosts.env, "PYTHONPATH": f"{hosts.folder}:{Path.cwd()}"},
        stdin=subprocess.PIPE, stderr=None,
    )  # fmt: skip
    with client:
        assert client.stdin is not None
        assert client.stdout is not None
        answers = client.stdout
        assert answers.readline() == "connected\n"
        hosts.network.cut("b")
        client.stdin.write("\n" * 3)
        client.stdin.flush()
        assert [answers.readline() for _ in "123"] == [NO_REPLY, NO_REPLY, "last\n"]
        process = psutil.Process(client.pid)
        wait_until(lambda: process.status() == psutil.STATUS_SLEEPING, "the last to be sent")
        client.kill()
    hosts.network.join()
    wait_until(lambda: not host.leftovers, "nothing to be sent any more")
    assert hosts.client.call("KEYS", "late:*") == []


def test_the_drains_host_is_cut_off(hosts: PartitionLab) -> None:
    """Meanwhile a worker on another host takes the job whose lock has run out."""
    mine, other = by_worker(hosts, hosts.hold_anew(3))
    added = [*mine, other, *hosts.add(10, 10, 10)]
    drain = hosts.steps(*DRAIN)
    drain.await_step("waiting")
    hosts.network.cut("a")
    drain.await_step("waiting", redis_away=True)
    wait_until(lambda: hosts.places(mine[0]) == ["paused"], "a stalled check to put jobs back")
    wait_until(lambda: hosts.places(mine[1]) == ["paused"], "a stalled check to put jobs back")
    assert hosts.is_paused()
    hosts.release()
    hosts.network.join()
    done = drain.finish()
    report = done.report
    assert (done.code, report["outcome"], report["resumed"]) == (0, "restarted", True), done.err
    assert (report["completed"], report["interrupted"], report["lost"]) == (1, 2, 0)
    results = {job["id"]: job["result"] for job in report["jobs"]}
    assert results == {**dict.fromkeys(mine, "interrupted"), other: "completed"}
    assert any(note.startswith("Redis was away for ") for note in report["notes"])
    hosts.prove_ended(added, again=mine)


STEPS = ("plan", "paused", "waiting", "restarting", "ready", "resumed")
EVERY_CUT = [
    (step, host, what)
    for step in STEPS
    for host in ("redis", "a", "b")
    for what in (BOTH, SENT, RECEIVED)
]
ALL = os.environ.get("QCTL_PARTITIONS") == "all"
CUTS = [("waiting", "redis", BOTH), ("restarting", "a", RECEIVED)]


@pytest.mark.parametrize(("step", "host", "what"), EVERY_CUT if ALL else CUTS)
def test_a_cut_at_any_step(hosts: PartitionLab, step: str, host: str, what: str) -> None:
    """All of Redis' packets, or one way only: commands arrive, and their replies do not."""
    held = hosts.hold_anew(3)
    added = [*held, *hosts.add(10, 10, 10)]
    drain = hosts.steps(*DRAIN)
    if step in {"restarting", "ready", "resumed"}:
        drain.await_step("waiting")
        hosts.release()
    drain.await_step(step)
    hosts.network.cut(host, what=what)
    # Long enough for connections to break, and for locks to run out.
    time.sleep(LOCK_S + REPLY_S)
    hosts.network.join()
    hosts.release()
    done = drain.finish()
    if done.code == 6:
        # Before it has paused anything.
        assert (step, host == "b") == ("plan", False)
        hosts.prove_ended(added, again=None)
        return
    report = done.report
    assert (done.code, report["outcome"], report["lost"]) == (0, "restarted", 0), done.err
    hosts.prove_ended(added, again=None)
    twice = {job_id for job_id in added if len(hosts.starts(job_id)) == 2}
    interrupted = {job["id"] for job in report["jobs"] if job["result"] == "interrupted"}
    assert interrupted <= twice
    completed = {job["id"] for job in report["jobs"] if job["result"] == "completed"}
    assert not completed & twice


def cut_off_while_waiting(hosts: PartitionLab) -> tuple[list[str], Running]:
    """The held jobs, and a drain whose host is cut off while the drain waits for these jobs."""
    held = hosts.hold_anew(3)
    drain = hosts.steps(*DRAIN)
    drain.await_step("waiting")
    hosts.network.cut("a")
    return held, drain


def test_qctl_is_killed_behind_a_partition(hosts: PartitionLab) -> None:
    held, drain = cut_off_while_waiting(hosts)
    watchdog = drain.watchdog_pid
    drain.kill()
    assert hosts.is_paused()
    hosts.network.join()
    wait_until(lambda: hosts.put_right(watchdog, "q"), "the watchdog to resume")
    hosts.release()
    hosts.prove_ended(held, again=None)


@pytest.mark.skipif(not ALL, reason="waits 15 s for a lease: QCTL_PARTITIONS=all")
def test_another_drain_takes_over_meanwhile(hosts: PartitionLab) -> None:
    held, first = cut_off_while_waiting(hosts)
    wait_until(lambda: not hosts.client.call("EXISTS", hosts.keys().lease), "the lease to expire")
    hosts.release()
    second = hosts.start("drain", "q", "--output", "ndjson", host="b").finish()
    assert (second.code, second.report["outcome"], second.report["lost"]) == (0, "drained", 0)
    assert any("took the pause over" in note for note in second.report["notes"])
    hosts.network.join()
    done = first.finish()
    assert (done.code, done.report["outcome"], done.report["resumed"]) == (0, "restarted", False)
    assert done.report["still_paused"] == ["q"]
    assert hosts.is_paused()
    # The second drain, without a restart, leaves the queue paused.
    assert hosts.qctl("resume", "q").code == 0
    hosts.prove_ended(held, again=None)


def test_ctrl_c_behind_a_partition(hosts: PartitionLab) -> None:
    """It ends after one time limit, not after one for each command of its end."""
    held, drain = cut_off_while_waiting(hosts)
    watchdog = drain.watchdog_pid
    drain.signal(signal.SIGINT)
    done = drain.finish()
    report = done.report
    assert (done.code, report["outcome"]) == (130, "aborted")
    assert [report[name] for name in ("interrupted", "lost", "idle_s")] == [None] * 3
    assert any("watchdog (pid " in note for note in report["notes"])
    hosts.network.join()
    wait_until(lambda: hosts.put_right(watchdog, "q"), "the watchdog to resume")
    hosts.release()
    hosts.prove_ended(held, again=None)


def test_another_host_is_cut_off_during_a_roll(hosts: PartitionLab) -> None:
    """Its job loses its lock, and is put back. It was not interrupted by the roll."""
    mine, other = by_worker(hosts, hosts.hold_anew(3))
    roll = hosts.steps("restart", "pm2:app", "--strategy", "roll")
    roll.await_step("restarting")
    hosts.network.cut("b")
    lock = hosts.keys().lock(other)
    wait_until(lambda: not hosts.client.call("EXISTS", lock), "the lock to run out")
    # For the workers on ``a``; those on ``b`` ask for a file.
    hosts.client.call("SET", "release:q", 1)
    done = roll.finish()
    report = done.report
    assert (done.code, report["outcome"]) == (0, "restarted"), done.out + done.err
    assert (report["interrupted"], report["lost"]) == (0, 0)
    results = {job["id"]: job["result"] for job in report["jobs"]}
    assert [results[job_id] for job_id in mine] == ["completed"] * 2
    # At the end it is active without a lock, waits, or has completed in another worker.
    assert results[other] in {"orphaned", "recovered", "completed"}
    hosts.release()
    hosts.network.join()
    hosts.prove_ended([*mine, other], again=[other])


def test_what_is_said_on_hosts_that_are_cut_off(hosts: PartitionLab) -> None:
    """By commands, and by an idle worker, whose blocked command nobody ends."""
    before = len(hosts.own.remarks)
    hosts.network.cut("a")
    hosts.network.cut("b")
    commands = (
        ["status", "--json"], ["impact", "q", "--json"], ["doctor", "--json"], ["pause", "q"],
    )  # fmt: skip
    for running in [hosts.start(*command) for command in commands]:
        done = running.finish()
        assert (done.code, done.out) == (6, "")
        assert f"no answer for {CONNECT_S:g} s" in done.err
    # Between two blocked commands it asks for a job on its other connection, or connects again.
    limits = "|".join(f"{limit_s:g}" for limit_s in (CONNECT_S, REPLY_S, BLOCK_S + REPLY_S))
    noticed = re.compile(f"no answer for ({limits}) s")
    wait_until(lambda: noticed.search(hosts.own.remarks, before), "the worker to notice")
    hosts.network.join()
    hosts.prove_ended(hosts.add(*[50] * 6))


def test_a_worker_behind_a_partition(hosts: PartitionLab) -> None:
    """It notices, stores no result of a job that another worker has taken over, and goes on.

    Stopped while it is cut off, it ends soon after its grace.
    """
    own = hosts.own
    mine, job_id = by_worker(hosts, hosts.hold_anew(3))
    hosts.network.cut("b")
    wait_until(lambda: "lock not renewed in time" in own.remarks, "it to notice")
    hosts.client.call("SET", "release:q", 1)
    hosts.wait_completed([*mine, job_id])
    result = hosts.client.call("HGETALL", f"bull:q:{job_id}")
    hosts.release()
    hosts.network.join()
    wait_until(lambda: "result not stored" in own.remarks, "it to report the result")
    assert "event loop is blocked" not in own.remarks
    assert hosts.client.call("HGETALL", f"bull:q:{job_id}") == result
    hosts.prove_ended([*mine, job_id], again=[job_id])

    after = hosts.hold_anew(3)
    hosts.network.cut("b")
    began = time.monotonic()
    own.signal(signal.SIGTERM)
    assert own.finish().code == 0
    assert time.monotonic() - began < GRACE_S + 5
    hosts.release()
    hosts.network.join()
    hosts.prove_ended(after, again=None)
    hosts.own = hosts.worker()


def by_worker(hosts: PartitionLab, held: list[str]) -> tuple[list[str], str]:
    """The jobs of the app on ``a``, and the job of the worker on ``b``."""
    *app, own = sorted(held, key=lambda job_id: hosts.rows(job_id)[0]["worker"])
    return app, own
