"""What only systemd has: names of units, its ways to stop a service, and rights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.labs.docker_engine import worker_command
from tests.labs.drains import Done, Lab, is_alive
from tests.labs.managed_by_systemd import SystemdApp
from tests.labs.scripts import write_script
from tests.labs.servers import wait_until
from tests.labs.systemd_container import Machine


@pytest.fixture
def app(lab: Lab, machine: Machine) -> SystemdApp:
    return SystemdApp(lab, machine)


def run(app: SystemdApp, *words: str) -> Done:
    return app.start_qctl(*words).finish()


def test_roll(app: SystemdApp, lab: Lab) -> None:
    """The app lets its jobs end on SIGTERM, in more time than systemd gives it."""
    env = {"QUEUES": "q", "CONCURRENCY": 2, "HANDLE_SIGTERM": 1}
    app.unit("app@", env, instances=2, Restart="always", TimeoutStopSec="100ms")
    lab.wait_workers(count=2)
    before = app.pids()
    held = lab.hold(4)
    words = ("--target", "systemd:app@", "--strategy", "roll", "--output", "ndjson")
    drain = app.start_qctl("drain", "q", "--then-restart", *words)
    drain.await_step("waiting")
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    assert (done.report["interrupted"], done.report["lost"]) == (0, 0)
    assert done.report["target"] == "systemd:app@"
    assert not any(map(is_alive, before))
    lab.prove(held)


def test_no_roll_if_systemd_would_not_start_it_again(app: SystemdApp, lab: Lab) -> None:
    app.unit("app@", {}, instances=2, Restart="on-failure")
    lab.wait_workers(count=2)
    words = ("--target", "systemd:app@", "--strategy", "roll", "--json")
    done = run(app, "drain", "q", "--then-restart", *words)
    assert done.code == 5
    assert "Restart=on-failure" in done.out + done.err


def test_a_restart_counts_for_no_start_limit(app: SystemdApp, lab: Lab) -> None:
    app.unit("one", {}, StartLimitInterval="1h", StartLimitBurst=1)
    lab.wait_workers()
    done = run(app, "restart", "systemd:one", "--json")
    assert done.code == 0, done.err
    assert done.report["target"] == "systemd:one"


def test_workers_that_a_stop_would_spare(app: SystemdApp, lab: Lab) -> None:
    shell = ["/bin/sh", "-c", f"{' '.join(worker_command())}; true"]
    app.unit("one", {}, command=shell, KillMode="process")
    lab.wait_workers()
    (pid,) = [pid for pid in app.pids() if Path(f"/proc/{pid}/comm").read_text() != "sh\n"]
    findings = run(app, "doctor", "--json").json["findings"]
    (path,) = [each for each in findings if each["check"] == "signal-path"]
    assert "only sh" in path["what"]
    assert "KillMode=control-group" in path["remedy"]
    done = run(app, "restart", "systemd:one.service", "--json")
    # Refused before anything is paused; `impact` does not recommend it either.
    assert (done.code, done.report["outcome"]) == (5, "refused")
    assert "KillMode=control-group" in done.err
    verdict = run(app, "impact", "--target", "systemd:one", "--json").json["verdict"]
    assert (verdict["word"], verdict["commands"]) == ("not now", [])
    assert any("KillMode=control-group" in reason for reason in verdict["reasons"])
    assert is_alive(pid)
    assert lab.count_workers() == 1


def test_a_user_without_rights(app: SystemdApp, machine: Machine, lab: Lab) -> None:
    app.unit("one", {})
    lab.wait_workers()
    nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    command = (*nobody, sys.executable, "-m", "qctl", "drain", "q", "--then-restart", "--json")
    # Root's runtime folder may not be read.
    env = {"QCTL_REDIS_URL": lab.url, "HOME": "/nobody", "XDG_RUNTIME_DIR": "/run/user/0"}
    done = machine.exec(*command, "--target", "systemd:one", env=env)
    assert done.returncode == 1, done.stderr
    assert "Access denied; run qctl as root" in done.stdout
    lab.prove_tidy("q")
    assert lab.count_workers() == 1


def test_units_of_a_user(machine: Machine, lab: Lab) -> None:
    """The system's systemd does not offer them, nor the user's manager that holds them."""
    lab.watch = "1s"
    app = SystemdApp(lab, machine, user=True)
    flag = lab.folder / "crash"
    app.unit("one", {"CRASH_MS": 1, "CRASH_IF": flag}, Restart="always")
    lab.wait_workers()
    rows = run(app, "status", "--json").json["processes"]
    assert [row["target"] for row in rows] == ["systemd-user:one.service"]
    wrong = run(app, "restart", "systemd:one", "--json")
    assert wrong.code == 3
    assert "systemd-user:one.service" in wrong.err
    done = run(app, "drain", "q", "--then-restart", "--yes", "--json")
    assert done.code == 0, done.err
    assert done.report["target"] == "systemd-user:one.service"
    flag.touch()
    crashed = run(app, "restart", "systemd-user:one", "--json")
    assert crashed.code == 1
    assert "crashing on purpose" in crashed.report["error"]


def test_a_user_manager_that_does_not_run(machine: Machine, lab: Lab) -> None:
    env = {"QCTL_REDIS_URL": lab.url, "XDG_RUNTIME_DIR": ""}
    done = machine.qctl("restart", "systemd-user:one", env=env)
    assert done.returncode == 6
    assert "XDG_RUNTIME_DIR" in done.stderr


def test_a_systemctl_that_hangs(app: SystemdApp, machine: Machine, lab: Lab) -> None:
    app.unit("one", {})
    lab.wait_workers()
    write_script(lab.folder / "systemctl", "exec sleep 100")
    env = {"QCTL_REDIS_URL": lab.url, "PATH": f"{lab.folder}:/usr/bin:/bin", "XDG_RUNTIME_DIR": ""}
    done = machine.qctl("status", env=env)
    assert done.returncode == 0, done.stderr
    assert "no systemd processes shown" in done.stdout + done.stderr
    assert "within 2 s" in done.stdout + done.stderr


def test_a_configured_target(app: SystemdApp, machine: Machine, lab: Lab) -> None:
    """It is shown even while it has no worker, under the name that the config gives it."""
    app.unit("one", {}, start=False)
    config = lab.folder / "qctl/config.toml"
    config.parent.mkdir()
    config.write_text('[targets.mail]\nprocess = "systemd:one"\nqueues = ["q"]\n')
    env = {"QCTL_REDIS_URL": lab.url, "XDG_CONFIG_HOME": str(lab.folder)}
    lab.add(1)
    done = machine.qctl("status", "--json", env=env)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["processes"]
    assert (row["target"], row["status"], row["pid"]) == ("systemd:one", "stopped", None)


def test_qctl_as_a_service_that_is_killed(app: SystemdApp, machine: Machine, lab: Lab) -> None:
    """systemd asks all that is left of the service to end, and so the watchdog."""
    app.unit("one", {})
    lab.wait_workers()
    held = lab.hold()
    command = [sys.executable, "-m", "qctl", "drain", "q", "--yes"]
    app.unit("deploy", {"QCTL_REDIS_URL": lab.url, "HOME": "/root"}, command=command)
    wait_until(lab.is_paused, "the drain to begin")
    wait_until(lambda: machine.pids("qctl.ops.drain.watchdog"), "the watchdog")
    machine.systemctl("kill", "--kill-who=main", "--signal=SIGKILL", "deploy")
    wait_until(lambda: not lab.is_paused() and lab.traces() == [], "the watchdog to resume q")
    lab.release()
    lab.prove(held)
