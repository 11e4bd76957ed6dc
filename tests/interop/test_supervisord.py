"""What only supervisord needs: two calls for a restart, and programs that hide the worker."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from qctl.errors import ExitStatus
from tests.labs.drains import SECRET, Done, Lab, is_alive, kill
from tests.labs.managed_by_supervisord import SupervisordApp
from tests.labs.servers import wait_until
from tests.labs.supervisord import WORKER

WORDS = " ".join(WORKER)
DRAIN = ("drain", "q", "--then-restart", "--strategy", "pause", "--output", "ndjson", "--yes")


@pytest.fixture
def app(lab: Lab) -> Iterator[SupervisordApp]:
    with contextlib.closing(SupervisordApp(lab)) as app:
        yield app


def run(app: SupervisordApp, *words: str) -> Done:
    return app.start_qctl(*words).finish()


def test_the_process_is_started_again_when_qctl_is_killed_after_the_stop(
    app: SupervisordApp, lab: Lab
) -> None:
    app.start(HANDLE_SIGTERM=1, options={"stopwaitsecs": 60})
    held = lab.hold()
    (before,) = app.pids()
    drain = app.start_qctl(*DRAIN, "--timeout", "1s", "--on-timeout", "restart")
    drain.await_step("restarting")
    wait_until(lambda: "STOPPING" in app.supervisord.ask("status"), "the stop to begin")
    helpers = _helpers(app)
    assert helpers
    assert not any(SECRET in " ".join(each.cmdline()) for each in helpers)
    app.kill_qctl(drain)
    lab.release()
    wait_until(lambda: not is_alive(before), "the old process to end")
    wait_until(app.pids, "the process to be started again")
    lab.wait_workers()
    wait_until(lambda: not lab.is_paused() and lab.traces() == [], "the watchdog to resume q")
    lab.prove(held)
    wait_until(lambda: not _helpers(app), "the helper to end")


def test_a_roll_kills_nothing_and_starts_what_supervisord_would_not(
    app: SupervisordApp, lab: Lab
) -> None:
    options = {"autorestart": "false", "stopwaitsecs": 1}
    app.start(2, HANDLE_SIGTERM=1, options=options)
    before = sorted(app.pids())
    bare = run(app, "restart", "app")
    assert bare.code == ExitStatus.NOT_FOUND
    assert f"did you mean {app.target}?" in bare.err
    producer = lab.producer(EVERY_MS=60, JOB_MS=100)
    # All that both processes can run, so that each has some in hand.
    held = lab.hold(10)
    roll = app.start_qctl("restart", app.target, "--strategy", "roll", "--output", "ndjson")
    pid = roll.await_step("restarting")["pid"]
    # Longer than stopwaitsecs.
    time.sleep(2)
    assert is_alive(pid)
    lab.release()
    done = roll.finish()
    added = [*held, *producer.stop()]
    assert done.code == 0, done.err
    report = done.report
    assert (report["interrupted"], report["lost"], report["paused_s"]) == (0, 0, 0)
    assert (sorted(report["old_pids"]), sorted(report["new_pids"])) == (before, sorted(app.pids()))
    lab.prove(added)


def test_two_processes_at_a_time(app: SupervisordApp, lab: Lab) -> None:
    app.start(3, HANDLE_SIGTERM=1)
    before = sorted(app.pids())
    producer = lab.producer(EVERY_MS=60, JOB_MS=100)
    producer.wait_ids(5)
    done = run(app, *DRAIN, "--target", app.target, "--max-unavailable", "2")
    added = producer.stop()
    assert done.code == 0, done.err
    report = done.report
    assert (report["interrupted"], report["lost"]) == (0, 0)
    assert (sorted(report["old_pids"]), sorted(report["new_pids"])) == (before, sorted(app.pids()))
    turns = [step for step in done.step_names if step in {"restarting", "ready"}]
    assert turns == ["restarting", "restarting", "ready", "ready", "restarting", "ready"]
    lab.prove(added)


def test_a_stop_during_a_roll_is_respected(app: SupervisordApp, lab: Lab) -> None:
    app.start(2, HANDLE_SIGTERM=1)
    held = lab.hold(10)
    roll = app.start_qctl("restart", app.target, "--strategy", "roll", "--output", "ndjson")
    key = roll.await_step("restarting")["key"]
    wait_until(lambda: _helpers(app), "the helper to run")
    stop = subprocess.Popen(app.supervisord.command("stop", key), stdout=subprocess.DEVNULL)
    wait_until(lambda: "STOPPING" in app.supervisord.ask("status", key), "the stop to begin")
    lab.release()
    done = roll.finish()
    stop.wait(10)
    assert done.code == 1
    # qctl or its helper notices first, and says so in its own words.
    assert "somebody" in done.report["error"]
    wait_until(lambda: not _helpers(app), "the helper to end")
    assert "STOPPED" in app.supervisord.ask("status", key)
    lab.wait_completed(held)


def test_a_shell_that_would_leave_the_worker_running_is_not_stopped(
    app: SupervisordApp, lab: Lab
) -> None:
    app.start(options={"command": f"sh -c '{WORDS}; true'"})
    before = app.pids()
    doctor = run(app, "doctor", "--json").json
    (finding,) = [each for each in doctor["findings"] if each["check"] == "signal-path"]
    assert "stopasgroup" in finding["what"]
    done = run(app, *DRAIN)
    assert done.code == 1
    assert "stopasgroup=true" in done.report["error"]
    assert app.pids() == before
    lab.prove_tidy("q")


def test_workers_that_outlive_their_shell_are_no_restart(app: SupervisordApp, lab: Lab) -> None:
    # Unlike a shell without a trap, it could pass the signal on.
    command = f"sh -c 'trap \"exit 0\" TERM; {WORDS} & wait'"
    app.start(options={"command": command, "stopwaitsecs": 1})
    (shell,) = app.pids()
    (worker,) = [child.pid for child in psutil.Process(shell).children()]
    try:
        done = run(app, *DRAIN)
        assert done.code == 1
        assert f"kill {worker}" in done.report["error"]
        lab.prove_tidy("q")
    finally:
        kill(worker)


def test_a_shell_with_stopasgroup_is_restarted(app: SupervisordApp, lab: Lab) -> None:
    options = {"command": f"sh -c '{WORDS}; true'", "stopasgroup": "true"}
    app.start(options=options)
    (shell,) = app.pids()
    family = [shell, *(child.pid for child in psutil.Process(shell).children())]
    assert len(family) == 2
    done = run(app, *DRAIN)
    assert done.code == 0, done.err
    assert not any(map(is_alive, family))
    lab.prove_tidy("q")


def test_a_wrong_password_is_a_remark(app: SupervisordApp, lab: Lab) -> None:
    app.start()
    url = app.supervisord.url.replace(SECRET, "wrong-password")
    done = lab.start("status", "--json", env={"QCTL_SUPERVISORD_URL": url}).finish()
    assert done.code == 0
    assert "another user or password" in done.err
    # Which process serves q is unknown then.
    refused = lab.start(*DRAIN, env={"QCTL_SUPERVISORD_URL": url}).finish()
    assert refused.code == ExitStatus.UNREACHABLE
    assert "another user or password" in refused.out + refused.err
    for each in (done, refused):
        assert "wrong-password" not in each.out + each.err
    lab.prove_tidy("q")


def test_a_supervisord_that_cannot_be_read_blocks_no_drain_of_other_processes(lab: Lab) -> None:
    lab.app()
    done = lab.start(*DRAIN, env={"QCTL_SUPERVISORD_URL": "unix:///nonexistent/s.sock"}).finish()
    assert done.code == 0, done.err
    assert done.report["target"] == "pm2:app"


def _helpers(app: SupervisordApp) -> list[psutil.Process]:
    """The helpers of this test: they have the environment of its qctl."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "qctl.manage.supervisord.helper" in process.cmdline():
                url = process.environ().get("QCTL_SUPERVISORD_URL")
                found += [process] * (url == app.supervisord.url)
    return found
