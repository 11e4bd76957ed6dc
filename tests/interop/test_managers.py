"""What holds for every process manager: drain, restart, and the proof, with the real manager."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.labs.docker_engine import Engine
from tests.labs.drains import Done, Lab, is_alive, kill
from tests.labs.managed_apps import DockerApp, ManagedApp, Pm2App, pid_numbers
from tests.labs.managed_by_command import CommandApp
from tests.labs.managed_by_kubernetes import KubernetesApp
from tests.labs.managed_by_supervisord import SupervisordApp
from tests.labs.managed_by_systemd import SystemdApp
from tests.labs.servers import wait_until

MANAGERS = ["pm2", "command", "docker", "supervisord", "systemd", "kubernetes"]
# No worker looks for stalled jobs while the test runs: what is recovered, qctl has recovered.
QUIET = {"STALLED_MS": 600_000}


@pytest.fixture
def supervised(lab: Lab) -> Iterator[SupervisordApp]:
    """The app under supervisord, not yet started."""
    with contextlib.closing(SupervisordApp(lab)) as app:
        yield app


@pytest.fixture(params=MANAGERS)
def app(request: pytest.FixtureRequest, lab: Lab) -> ManagedApp:
    """The app under each manager in turn, not yet started."""
    if request.param == "docker":
        engine: Engine = request.getfixturevalue("engine")
        return DockerApp(lab, engine)
    if request.param == "supervisord":
        supervised: SupervisordApp = request.getfixturevalue("supervised")
        return supervised
    if request.param == "systemd":
        return SystemdApp(lab, request.getfixturevalue("machine"))
    if request.param == "kubernetes":
        return KubernetesApp(lab, request.getfixturevalue("kubernetes"))
    if request.param == "command":
        return CommandApp(lab)
    return Pm2App(lab)


def run(app: ManagedApp, *words: str) -> Done:
    return app.start_qctl(*words).finish()


def drain_words(app: ManagedApp, *more: str) -> tuple[str, ...]:
    options = ("--target", app.target, "--output", "ndjson")
    return ("drain", "q", "--then-restart", "--strategy", "pause", *options, *more)


def check_processes(app: ManagedApp) -> None:
    """Two processes that serve q, and the workers in them, are shown."""
    status = run(app, "status", "--json").json
    mine = [row for row in status["processes"] if row["target"] == app.target]
    assert [row["queues"] for row in mine] == [["q"], ["q"]]
    if app.shows_pids:
        shown = {row["pid"] for row in mine}
        assert len(shown) == 2
        assert all(shown & pid_numbers(pid) for pid in app.pids())
    workers = run(app, "workers", "q", "--json").json["workers"]
    assert {row["process"] for row in workers} == {app.target}
    up = re.findall(r"^qctl_process_up{.*} 1.0$", run(app, "metrics").out, re.MULTILINE)
    assert sum(f'target="{app.target}"' in row for row in up) == 2


def check_effects(app: ManagedApp) -> None:
    """The two processes are examined, which have running jobs."""
    impact = run(app, "impact", "--target", app.target, "--json").json
    assert len(impact["processes"]) == 2
    assert {row["kill_timeout_ms"] for row in impact["processes"]} != {0}
    doctor = run(app, "doctor", "--target", app.target, "--json").json
    assert doctor["examined"]["processes"] == 2
    unknown = run(app, "restart", f"{app.target}x", "--json")
    assert unknown.code == 3
    assert app.target in unknown.out + unknown.err


class TestManager:
    def test_what_is_shown_and_a_restart_under_load(self, app: ManagedApp, lab: Lab) -> None:
        """The app has no handler for the stop signal. One instance: see the other tests."""
        app.start(2)
        before = app.pids()
        assert len(before) == 2
        check_processes(app)
        producer = lab.producer(EVERY_MS=80, JOB_MS=40)
        producer.wait_ids(8)
        held = lab.hold(10)
        check_effects(app)
        drain = app.start_qctl(*drain_words(app))
        drain.await_step("waiting")
        lab.release()
        done = drain.finish()
        added = [*held, *producer.stop()]
        assert done.code == 0, done.err
        report = done.report
        assert (report["outcome"], report["target"]) == ("restarted", app.target)
        assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
        assert report["unserved"] == []
        assert not any(map(is_alive, before))
        assert len(app.pids()) == 2
        lab.prove(added)

    def test_a_crash_loop_names_the_error(self, app: ManagedApp, lab: Lab) -> None:
        lab.watch = "1s"
        flag = lab.folder / "crash"
        app.start(CRASH_MS=300, CRASH_IF=flag)
        flag.touch()
        done = run(app, *drain_words(app))
        assert done.code == 1
        assert done.report["outcome"] == "aborted"
        # The text in the app's log, where qctl can read the log.
        words = getattr(app, "crash_words", "crashing on purpose")
        assert words in done.report["error"]
        assert done.report["resumed"] is True
        lab.prove_tidy("q")

    def test_a_worker_killed_before_the_drain(self, app: ManagedApp, lab: Lab) -> None:
        app.start(LOCK_MS=2000, **QUIET)
        held = lab.hold(2)
        (pid,) = app.pids()
        kill(pid)
        lab.release()
        new = wait_until(lambda: [p for p in app.pids() if p != pid], "the manager to restart it")
        lab.wait_workers()
        done = run(app, *drain_words(app))
        assert done.code == 0, done.err
        assert done.report["lost"] == 0
        assert not any(map(is_alive, new))
        lab.prove(held, again=held)

    def test_qctl_killed_in_the_middle(self, app: ManagedApp, lab: Lab) -> None:
        app.start()
        held = lab.hold(2)
        drain = app.start_qctl(*drain_words(app))
        drain.await_step("waiting")
        app.kill_qctl(drain)
        wait_until(lambda: not lab.is_paused() and lab.traces() == [], "the watchdog to resume q")
        lab.release()
        lab.wait_completed(held)
        again = run(app, *drain_words(app))
        assert again.code == 0, again.err
        lab.prove(held)

    def test_a_second_queue_is_not_forgotten(self, app: ManagedApp, lab: Lab) -> None:
        app.start(QUEUES="q,other")
        held = lab.hold(queue="other")
        refused = run(app, *drain_words(app))
        assert refused.code == 5
        assert "other" in refused.report["error"]
        drain = app.start_qctl(*drain_words(app, "--include-others"))
        drain.await_step("waiting")
        lab.release("other")
        done = drain.finish()
        assert done.code == 0, done.err
        assert sorted(done.report["queues"]) == ["other", "q"]
        lab.prove(held, queue="other")
