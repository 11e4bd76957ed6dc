"""The restart goes wrong: the operator is told why, and the queue runs again."""

from __future__ import annotations

import contextlib
import os
import signal

from tests.interop import drain_lab
from tests.interop.drain_lab import Lab, kill
from tests.interop.pm2 import Pm2
from tests.servers import RedisServer, wait_until

lab_pm2 = drain_lab.lab_pm2
lab = drain_lab.lab

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


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
    # The last words of its log, and the command that mends it.
    assert "crashing on purpose: a setting is missing" in report["error"]
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
    assert "aborted; q running again" in done.out
    assert "crashing on purpose" in done.err
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
    # The job stands where it stood; it is not lost, and it is not hidden either.
    assert done.report["jobs"] == [
        {"queue": "q", "id": added[0], "result": "orphaned", "was": "active"}
    ]
    assert done.report["lost"] == 0
    assert lab.places(added[0]) == ["active"]
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
        apart.app(LOCK_MS=1000)
        worker = pm2.pid("app")
        daemon = int((pm2.home / "pm2.pid").read_text())
        try:
            added = apart.hold()
            drain = apart.steps(*DRAIN)
            drain.await_step("waiting")
            # Its apps end with it.
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
