"""The restart goes wrong: the operator is told why, and the queue runs again."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from qctl.ops.processes.restart import BOOT_S, SETTLE_S
from tests.labs import drains as drain_lab
from tests.labs.drains import Lab, kill
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


@pytest.fixture(autouse=True)
def watched(lab: Lab) -> None:
    """Let qctl watch new workers for as long as it must, because they crash here."""
    lab.watch = "1s"


def test_an_app_that_keeps_crashing(lab: Lab) -> None:
    flag = lab.folder / "crash"
    lab.app(CRASH_MS=150, CRASH_IF=flag, WORKER_NAME="wobbly", options={"restart_delay": 50})
    added = lab.add(500)
    lab.wait_started(*added)
    flag.touch()
    done = lab.qctl(*DRAIN, "--json")
    assert done.code == 1
    report = done.json
    assert (report["outcome"], report["resumed"]) == ("aborted", True)
    assert "pm2:app (id" in report["error"]
    assert "keeps crashing" in report["error"]
    # What went wrong comes first, before the stack and what Node adds.
    assert report["error"].splitlines()[1] == "Error: crashing on purpose: a setting is missing"
    # The command that fixes it.
    assert "pm2 restart" in report["error"]
    assert "keeps crashing" in done.err
    assert (report["interrupted"], report["lost"]) == (0, 0)
    lab.prove_tidy("q")

    flag.unlink()
    lab.pm2.run("restart", "app")
    lab.wait_workers()
    lab.prove([*added, *lab.add(10)])


def test_a_crash_loop_is_told_on_a_terminal_too(lab: Lab) -> None:
    flag = lab.folder / "crash"
    lab.app(CRASH_MS=150, CRASH_IF=flag, options={"restart_delay": 50})
    lab.add(1)
    flag.touch()
    done = lab.qctl(*DRAIN)
    assert done.code == 1
    # Not "running again": at best a worker is connected for some moments.
    assert "aborted; q resumed" in done.out
    # What went wrong comes first, before the stack and what Node adds.
    error = done.err[done.err.index("keeps crashing") :].splitlines()
    assert error[1].strip() == "Error: crashing on purpose: a setting is missing"
    assert "node:internal" not in done.err
    assert "no worker of q is connected now" in done.err
    lab.prove_tidy("q")


def test_an_app_that_is_deleted_during_the_wait(lab: Lab) -> None:
    lab.app(LOCK_MS=1000)
    added = lab.hold()
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    lab.pm2.delete("app")
    done = drain.finish()
    assert done.code == 1
    assert "no longer under its manager" in done.report["error"]
    assert (done.report["outcome"], done.report["resumed"]) == ("aborted", True)
    # Its process is gone for good; whoever serves the queue next runs it.
    assert done.report["jobs"] == [
        {"queue": "q", "id": added[0], "result": "interrupted", "was": "active"}
    ]
    assert (done.report["interrupted"], done.report["recovered"], done.report["lost"]) == (1, 1, 0)
    assert lab.places(added[0]) == ["wait"]
    lab.prove_tidy("q")


def test_an_app_that_is_stopped_cannot_be_restarted(lab: Lab) -> None:
    lab.app()
    lab.add(1)
    lab.pm2.run("stop", "app")
    done = lab.qctl(*DRAIN)
    assert done.code == 1
    assert "is stopped" in done.err
    assert "pm2 start" in done.err
    lab.prove_tidy("q")
    assert lab.pm2.rows("app")[0].status == "stopped"


def test_pm2_dies_during_the_wait(pm2: Pm2, redis_server: RedisServer, lab: Lab) -> None:
    folder = lab.folder / "apart"
    folder.mkdir()
    with drain_lab.open_lab(pm2, redis_server, folder) as apart:
        # Its agent ends the app with PM2.
        apart.app(LOCK_MS=1000, options={"pmx": True})
        worker = pm2.pid("app")
        daemon = int((pm2.home / "pm2.pid").read_text())
        try:
            added = apart.hold()
            drain = apart.steps(*DRAIN)
            drain.await_step("waiting")
            kill(daemon)
            done = drain.finish()
            assert done.code == 6, done.err
            assert (done.report["outcome"], done.report["resumed"]) == ("aborted", True)
            assert "PM2" in done.report["error"]
            assert done.report["jobs"] == [
                {"queue": "q", "id": added[0], "result": "orphaned", "was": "active"}
            ]
            assert done.report["lost"] == 0
            apart.prove_tidy("q")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            wait_until(lambda: not drain_lab.is_alive(worker), "the worker to end")


def test_an_app_that_restarts_slowly_is_waited_for(lab: Lab) -> None:
    lab.app(BOOT_MS=2500)
    added = lab.add(300, 10)
    lab.wait_started(added[0])
    done = lab.qctl(*DRAIN, "--json")
    assert done.code == 0, done.err
    # Online at once, by PM2's word; proved only once its worker is connected.
    assert done.json["paused_s"] > 2.5
    lab.prove(added)


def test_an_app_that_pm2_gave_up_and_whose_cause_is_fixed(lab: Lab) -> None:
    flag = lab.folder / "crash"
    options = {"max_restarts": 2, "min_uptime": 60_000}
    # It crashes before it is connected: after a resume it must not take a job.
    lab.app(CRASH_MS=1, CRASH_IF=flag, LOCK_MS=1000, STALLED_MS=600_000, options=options)
    (held,) = lab.hold()
    flag.touch()
    lab.pm2.run("restart", "app")
    wait_until(lambda: lab.pm2.rows("app")[0].status == "errored", "PM2 to give the app up")
    lock = lab.keys().lock(held)
    wait_until(lambda: not lab.client.call("EXISTS", lock), "the lock to run out")
    added = lab.add(10)

    # Not fixed: what counts is what happens now, and it is the same.
    done = lab.qctl(*DRAIN, "--json")
    assert done.code == 1
    assert "keeps crashing" in done.json["error"]
    # What it had in hand when it died is put back all the same.
    assert (done.json["recovered"], lab.places(held)) == (1, ["wait"])

    # PM2 goes on for a while when qctl has given up.
    wait_until(lambda: lab.pm2.rows("app")[0].status == "errored", "PM2 to give it up again")
    flag.unlink()
    lab.release()
    done = lab.qctl(*DRAIN)
    assert done.code == 0, done.err
    assert "is up: it was not running, pid" in done.err
    lab.prove([held, *added], again=[held])


def test_an_app_that_is_stopped_during_the_wait_is_not_started(lab: Lab) -> None:
    lab.app(LOCK_MS=1000, STALLED_MS=600_000)
    (job,) = lab.hold()
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    lab.pm2.run("stop", "app")
    done = drain.finish()
    assert done.code == 1
    assert "was stopped by somebody during the drain" in done.report["error"]
    assert f"pm2 start {lab.pm2.rows('app')[0].pm_id}" in done.report["error"]
    assert "restarting" not in done.step_names
    assert (done.report["outcome"], done.report["resumed"]) == ("aborted", True)
    assert lab.pm2.rows("app")[0].status == "stopped"
    # What it had in hand runs as soon as somebody starts it again.
    counts = [done.report[name] for name in ("interrupted", "recovered", "lost")]
    assert counts == [1, 1, 0]
    assert lab.places(job) == ["wait"]
    lab.prove_tidy("q")
    lab.release()
    lab.pm2.run("start", "app")
    lab.prove([job], again=[job])


def test_an_app_that_is_stopped_while_it_boots(lab: Lab) -> None:
    slow = lab.folder / "slow"
    lab.app(BOOT_MS=600_000, BOOT_IF=slow)
    lab.add(1)
    old = lab.pm2.pid("app")
    slow.touch()
    drain = lab.steps(*DRAIN)
    drain.await_step("restarting")
    wait_until(lambda: lab.pm2.pid("app") not in {0, old}, "the app to be started again")
    lab.pm2.run("stop", "app")
    # Long before the time that a process may take to boot.
    wait_until(lambda: drain.is_over, "the drain to notice", timeout_s=BOOT_S / 2)
    done = drain.finish()
    assert done.code == 1
    assert "was started and is stopped again" in done.report["error"]
    assert "somebody stopped it; no worker of q is connected now" in done.report["error"]
    assert lab.pm2.rows("app")[0].status == "stopped"
    lab.prove_tidy("q")


@pytest.mark.parametrize("words", [(), ("--keep-paused",), ("--strategy", "roll")])
def test_an_app_that_dies_soon_after_it_was_ready(lab: Lab, words: tuple[str, ...]) -> None:
    flag = lab.folder / "die"
    # It boots for longer than a new process must be up, so it is ready as soon as it connects; then
    # it dies when qctl has seen its connection.
    boot_ms = round(SETTLE_S * 1000) + 500
    lab.app(instances=2, HANDLE_SIGINT=1, BOOT_MS=boot_ms, BOOT_IF=flag, DIE_IF=flag)
    added = lab.add(1)
    lab.wait_completed(added)
    rows = lab.pm2.rows("app")
    second = rows[1]
    # A process that is not ready yet would see the flag, too.
    wait_until(
        lambda: all(f"ready {row.pid}\n" in lab.pm2.log("app", "out") for row in rows),
        "both processes to be ready",
    )
    flag.touch()
    lab.watch = "5s"
    done = lab.qctl(*DRAIN, *words, "--json")
    assert done.code == 1, done.out
    assert done.json["outcome"] == "aborted"
    what, why = done.json["error"].splitlines()[:2]
    assert what.endswith("keeps crashing after the restart")
    assert why.strip() == "Error: dying on purpose: the database is gone"
    if "roll" in words:
        # It ends with the first process; the other one works on.
        assert second in lab.pm2.rows("app")
    lab.prove_tidy("q")


def test_an_app_that_pm2_gave_up_is_restarted_once_its_cause_is_fixed(lab: Lab) -> None:
    """What counts is what happens after the restart, not the state that it was in."""
    flag = lab.folder / "crash"
    lab.app(CRASH_MS=100, CRASH_IF=flag, options={"max_restarts": 2, "min_uptime": 60_000})
    flag.touch()
    lab.pm2.run("restart", "app")
    wait_until(lambda: lab.pm2.rows("app")[0].status == "errored", "PM2 to give the app up")
    lab.wait_workers(count=0)
    flag.unlink()
    added = lab.add(10)
    done = lab.qctl(*DRAIN)
    assert done.code == 0, done.err
    assert "pid -" not in done.err
    lab.prove(added)


def test_an_app_that_crashes_seconds_after_its_worker_has_connected(lab: Lab) -> None:
    flag = lab.folder / "crash"
    lab.app(CRASH_MS=2500, CRASH_IF=flag)
    lab.wait_completed(lab.add(1))
    flag.touch()
    lab.watch = "5s"
    drain = lab.steps(*DRAIN)
    # The jobs do not wait until the new process has been watched.
    drain.await_step("resumed")
    assert not drain.is_over
    done = drain.finish()
    assert done.code == 1, done.out
    assert done.report["outcome"] == "aborted"
    assert "keeps crashing" in done.report["error"]
    assert done.report["resumed"] is True
    lab.prove_tidy("q")
