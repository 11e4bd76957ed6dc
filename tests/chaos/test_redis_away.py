"""Redis goes away in the middle of a drain."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.labs.drains import Lab, is_alive, open_lab
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


@pytest.fixture
def own_lab(lab_pm2: Pm2, start_redis: Callable[..., RedisServer], tmp_path: Path) -> Iterator[Lab]:
    """A lab on a Redis of its own that keeps its data over a restart.

    All of it, also the last second, whatever else the disk is at.
    """
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    with open_lab(lab_pm2, server, tmp_path) as lab:
        yield lab


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_it_comes_back_and_the_drain_goes_on(own_lab: Lab, end: str) -> None:
    lab = own_lab
    lab.app(RECONNECT_MS=200)
    added = [*lab.hold(), *lab.add(10, 10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    getattr(lab.server, end)()
    # The second one comes a second later.
    drain.await_steps(2, "waiting", redis_away=True)
    lab.bring_redis_back()
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    assert (done.report["outcome"], done.report["resumed"]) == ("restarted", True)
    assert (done.report["interrupted"], done.report["lost"]) == (0, 0)
    assert any(note.startswith("Redis was away for ") for note in done.report["notes"])
    lab.prove(added)


def test_it_comes_back_without_the_pause(
    lab_pm2: Pm2, start_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    with open_lab(lab_pm2, start_redis(), tmp_path) as lab:
        lab.app(RECONNECT_MS=200)
        added = [*lab.hold(), *lab.add(10, 10)]
        # What it will have after a crash, and what the replica of a failover may have.
        lab.client.call("SAVE")
        drain = lab.steps(*DRAIN)
        drain.await_step("waiting")
        lab.server.kill()
        drain.await_step("waiting", redis_away=True)
        lab.bring_redis_back()
        drain.await_step("paused", again=True)
        assert lab.is_paused()
        lab.release()
        done = drain.finish()
        assert (done.code, done.report["outcome"]) == (0, "restarted")
        assert (done.report["interrupted"], done.report["paused_again"]) == (0, 1)
        assert any("lost the pause of q" in note for note in done.report["notes"])
        lab.prove(added)


def test_it_is_restarted_while_the_process_is(own_lab: Lab) -> None:
    """Then the new worker's connection has a lower number than the old one's."""
    lab = own_lab
    lab.app(instances=2, RECONNECT_MS=200)
    for _ in range(20):
        # Of connections, too, so that numbers begun anew are lower.
        lab.client.close()
        lab.client.call("PING")
    added = [*lab.hold(2), *lab.add(10, 10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("paused")
    lab.release()
    drain.await_step("restarting")
    lab.server.stop()
    lab.bring_redis_back()
    done = drain.finish()
    assert done.code == 0, done.err
    assert (done.report["outcome"], done.report["resumed"]) == ("restarted", True)
    assert (done.report["completed"], done.report["lost"]) == (2, 0)
    assert len(done.report["new_pids"]) == 2
    lab.prove(added)


def test_it_stays_away_and_the_watchdog_resumes_when_it_is_back(own_lab: Lab) -> None:
    lab = own_lab
    lab.app(RECONNECT_MS=200)
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN, "--timeout", "3s")
    drain.await_step("waiting")
    watchdog = drain.watchdog_pid
    lab.server.stop()
    done = drain.finish()
    report = done.report
    # Not "timed out; state was restored": it was not.
    assert done.code == 6, done.err
    assert report["resumed"] is False
    assert str(lab.server.port) in report["error"]
    assert any(f"watchdog (pid {watchdog})" in note for note in report["notes"])
    # Nobody could look, which is not the same as having looked in vain.
    assert [report[name] for name in ("interrupted", "lost", "idle_s")] == [None] * 3
    assert report["proof"]["checked"] == "nothing"
    assert report["jobs"] == [{"queue": "q", "id": added[0], "result": "unknown", "was": "active"}]
    assert is_alive(watchdog)

    lab.bring_redis_back()
    # It goes on for some seconds, because a failover might undo the resume.
    wait_until(lambda: lab.is_resumed("q"), "the watchdog to resume")
    lab.release()
    lab.prove(added)


def test_it_dies_during_the_restart_and_nothing_is_claimed(own_lab: Lab) -> None:
    lab = own_lab
    lab.app(RECONNECT_MS=200)
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    lab.release()
    drain.await_step("restarting")
    lab.server.stop()
    # It would be waited for; this ends it at once.
    drain.signal(signal.SIGINT)
    report = drain.finish().report
    assert [report[name] for name in ("interrupted", "lost", "idle_s")] == [None] * 3
    assert (report["outcome"], report["resumed"], report["unserved"]) == ("aborted", False, None)
    assert "could not be read" in report["proof"]["why"]

    lab.bring_redis_back()
    # It goes on for some seconds, because a failover might undo the resume.
    wait_until(lambda: lab.is_resumed("q"), "the watchdog to resume")
    lab.prove(added)


def test_both_are_gone_and_the_watchdog_still_resumes(own_lab: Lab) -> None:
    lab = own_lab
    lab.app(RECONNECT_MS=200)
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    watchdog = drain.watchdog_pid
    lab.server.kill()
    drain.kill()
    lab.bring_redis_back()
    wait_until(lambda: lab.put_right(watchdog, "q"), "the watchdog to resume")
    lab.release()
    lab.prove(added)


def test_it_goes_away_before_anything_was_done(own_lab: Lab) -> None:
    lab = own_lab
    lab.app(RECONNECT_MS=200)
    lab.add(1)
    lab.server.stop()
    done = lab.qctl(*DRAIN)
    assert done.code == 6
    assert "cannot be reached" in done.err
    lab.bring_redis_back()
    lab.prove_tidy("q")


def test_connections_that_are_cut_all_the_time(lab: Lab) -> None:
    """Every connection of qctl and its watchdog, from the pause on: at each step, and in it."""
    lab.app(instances=2, concurrency=1)
    added = [*lab.hold(2), *lab.add(*[5] * 40)]
    drain = lab.steps(*DRAIN)
    watchdog = drain.watchdog_pid
    drain.await_step("paused")
    lab.release()
    cut = 0
    while not drain.is_over:
        cut += lab.cut(drain.pid, watchdog)
    done = drain.finish()
    assert done.code == 0, done.err
    assert cut > 5
    report = done.report
    assert (report["outcome"], report["resumed"]) == ("restarted", True)
    assert (report["completed"], report["interrupted"], report["lost"]) == (2, 0, 0)
    assert len(report["new_pids"]) == 2
    lab.prove(added)


def test_a_blocked_read_that_a_failover_ends_is_repeated(lab: Lab) -> None:
    """A master that becomes a replica ends blocked commands with UNBLOCKED."""
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    ports = {s.laddr.port for s in psutil.Process(drain.pid).net_connections("tcp4")}

    def unblock() -> bool:
        rows = (dict(re.findall(r"(\S+)=(\S+)", row)) for row in clients().splitlines())
        blocked = [r["id"] for r in rows if int(r["addr"].rpartition(":")[2]) in ports]
        return any(lab.client.call("CLIENT", "UNBLOCK", each, "ERROR") for each in blocked)

    def clients() -> str:
        return str(lab.client.call("CLIENT", "LIST"))

    wait_until(unblock, "a blocked read of the drain")
    lab.release()
    done = drain.finish()
    assert (done.code, done.report["outcome"], done.report["lost"]) == (0, "restarted", 0)
    lab.prove(added)
