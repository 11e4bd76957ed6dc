"""A drain in which the operator's own command restarts the workers; here `pm2 restart`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

import pytest

from tests.labs.docker_engine import Engine
from tests.labs.drains import Lab, Running, is_alive
from tests.labs.node import MODULES, node
from tests.labs.servers import wait_until
from tests.labs.supervisord import Program, Supervisord
from tests.labs.systemd_container import Machine


def pm2(*words: str) -> list[str]:
    """A command of PM2, to be put behind the dashes."""
    return ["--", *node(), str(MODULES / "pm2/bin/pm2"), *words]


def drain_held(lab: Lab, *args: str, command: list[str]) -> dict[str, Any]:
    return release_and_finish(lab, lab.start("drain", *args, "--output", "ndjson", *command))


def release_and_finish(lab: Lab, drain: Running) -> dict[str, Any]:
    drain.await_step("waiting")
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    report: dict[str, Any] = done.report
    return report


def test_under_load_nothing_is_lost_and_nothing_repeats(lab: Lab) -> None:
    """With BullMQ 5; the next tests have BullMQ 6."""
    lab.app(version=5, concurrency=5, instances=2)
    before = sorted(row.pid for row in lab.pm2.rows("app"))
    producer = lab.producer(version=5, EVERY_MS=80, JOB_MS=40)
    producer.wait_ids(8)
    held = lab.hold(10, version=5)
    report = drain_held(lab, "q", command=pm2("restart", "app"))
    added = [*held, *producer.stop()]
    assert report["outcome"] == "restarted"
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    assert report["workers"] == [{"queue": "q", "before": 2, "left": 0, "new": 2, "expected": 2}]
    assert (report["target"], report["rule"]) == (None, "as many as before")
    assert report["unserved"] == []
    assert not any(map(is_alive, before))
    lab.prove(added)


def test_under_supervisord(lab: Lab) -> None:
    env = {"REDIS_PORT": lab.server.port, "QUEUES": "q", "CONCURRENCY": 5}
    program = Program(env=env, instances=2)
    with contextlib.closing(Supervisord(program)) as supervisord:
        lab.wait_workers(count=2)
        producer = lab.producer(EVERY_MS=80, JOB_MS=40)
        producer.wait_ids(8)
        held = lab.hold(10)
        command = ["--", *supervisord.command("restart", "all")]
        report = drain_held(lab, "q", command=command)
        added = [*held, *producer.stop()]
        assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
        (row,) = report["workers"]
        assert (row["before"], row["left"], row["new"]) == (2, 0, 2)
        lab.prove(added)


def test_under_docker(lab: Lab, engine: Engine) -> None:
    env = {"REDIS_PORT": lab.server.port, "QUEUES": "q", "CONCURRENCY": 5, "HANDLE_SIGTERM": 1}
    names = ["worker-1", "worker-2"]
    for name in names:
        engine.worker(name, env)
    lab.wait_workers(count=2)
    before = [engine.pid(name) for name in names]
    producer = lab.producer(EVERY_MS=80, JOB_MS=40)
    producer.wait_ids(8)
    held = lab.hold(10)
    report = drain_held(lab, "q", command=["--", *engine.command("restart", *names)])
    added = [*held, *producer.stop()]
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    (row,) = report["workers"]
    assert (row["before"], row["left"], row["new"]) == (2, 0, 2)
    assert not any(map(is_alive, before))
    lab.prove(added)


def test_under_systemd(lab: Lab, machine: Machine) -> None:
    env = {"REDIS_PORT": lab.server.port, "QUEUES": "q", "CONCURRENCY": 5}
    units = machine.unit("emails@", env, instances=2)
    lab.wait_workers(count=2)
    before = [machine.show(unit, "MainPID") for unit in units]
    producer = lab.producer(EVERY_MS=80, JOB_MS=40)
    producer.wait_ids(8)
    held = lab.hold(10)
    command = ["--output", "ndjson", "--", "systemctl", "restart", *units]
    drain = machine.start_qctl("drain", "q", *command, env={"QCTL_REDIS_URL": lab.url})
    report = release_and_finish(lab, drain)
    added = [*held, *producer.stop()]
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    (row,) = report["workers"]
    assert (row["before"], row["left"], row["new"]) == (2, 0, 2)
    assert not any(machine.show(unit, "MainPID") in before for unit in units)
    lab.prove(added)


def test_the_number_of_workers_may_change(lab: Lab) -> None:
    lab.app(instances=2)
    (_, second) = lab.pm2.rows("app")
    script = (
        f"{' '.join(pm2('delete', str(second.pm_id))[1:])} && {' '.join(pm2('restart', 'app')[1:])}"
    )
    done = lab.qctl("drain", "q", "--expect-workers", "1", "--json", "--", "sh", "-c", script)
    assert done.code == 0, done.err
    (row,) = done.json["workers"]
    assert (row["before"], row["new"], row["expected"]) == (2, 1, 1)
    assert done.json["rule"] == "1 for each queue"
    lab.prove(lab.add(10))


def test_what_the_command_gets_and_prints(lab: Lab) -> None:
    lab.app(queues="q,r")
    code = "import os,sys; print(os.environ['QCTL_QUEUES'].split(), os.environ['QCTL_REDIS_URL'])"
    done = lab.qctl(
        "drain", "q", "r", "--no-expect", "--output", "ndjson", "--", sys.executable, "-c", code
    )
    assert done.code == 0, done.err
    assert f"['q', 'r'] redis://127.0.0.1:{lab.server.port}/0" in done.err
    assert done.report["rule"] == "not checked"
    assert done.report["command"] == [sys.executable, "-c", code]
    lab.prove_tidy("q", "r")


def test_a_command_that_is_missing_fails_hangs_or_does_nothing(lab: Lab) -> None:
    lab.app()
    pid = lab.pm2.pid("app")
    assert lab.qctl("drain", "q", "--").code == 2
    lab.prove_tidy("q")
    for options, command, said in (
        ([], ["sh", "-c", "exit 7"], "exit code 7"),
        (["--command-timeout", "1s"], ["sleep", "600"], "--command-timeout"),
        (["--ready-timeout", "1s"], ["true"], "1 old worker is still connected"),
    ):
        done = lab.qctl("drain", "q", *options, "--json", "--", *command)
        assert done.code == 1
        report = done.json
        assert said in report["error"]
        assert (report["outcome"], report["resumed"], report["lost"]) == ("aborted", True, 0)
        assert (report["workers"], report["rule"]) == ([], "")
        assert lab.pm2.pid("app") == pid
        lab.prove(lab.add(10))


def test_no_worker_comes_back(lab: Lab) -> None:
    lab.app()
    done = lab.qctl("drain", "q", "--ready-timeout", "1s", "--json", *pm2("stop", "app"))
    assert done.code == 1
    assert "0 of 1 new workers" in done.json["error"]
    assert (done.json["resumed"], done.json["unserved"]) == (True, ["q"])
    lab.prove_tidy("q")


@pytest.mark.parametrize("crash_ms", [600, 3000])
def test_a_crash_loop_after_the_command(lab: Lab, crash_ms: int) -> None:
    lab.app(CRASH_MS=crash_ms, CRASH_IF=str(lab.folder / "crash"))
    (lab.folder / "crash").touch()
    lab.watch = "5s"
    done = lab.qctl("drain", "q", "--ready-timeout", "20s", "--json", *pm2("restart", "app"))
    assert done.code == 1
    assert done.json["outcome"] == "aborted"
    assert "new workers" in done.json["error"]
    lab.prove_tidy("q")


def test_workers_that_serve_another_queue(lab: Lab) -> None:
    lab.app(queues="q,other", LOCK_MS=2000, STALLED_MS=500)
    held = lab.hold(queue="other")
    refused = lab.qctl("drain", "q", "--json", *pm2("restart", "app"))
    assert refused.code == 5
    assert "other" in refused.json["error"]
    assert refused.json["command"] == pm2("restart", "app")[1:]
    ignored = lab.qctl("drain", "q", "--ignore-others", "--json", *pm2("restart", "app"))
    assert ignored.code == 0, ignored.err
    assert ignored.json["interrupted"] is None
    assert any("other" in note for note in ignored.json["notes"])
    lab.release("other")
    lab.prove(held, "other", again=held)
    both = lab.qctl("drain", "q", "--include-others", "--json", *pm2("restart", "app"))
    assert both.code == 0, both.err
    assert sorted(both.json["queues"]) == ["other", "q"]


def test_a_queue_without_a_worker_needs_to_be_told_how_many_come(lab: Lab) -> None:
    lab.app()
    lab.pm2.run("stop", "app")
    lab.wait_workers(count=0)
    lab.add(10)
    before = lab.dump()
    done = lab.qctl("drain", "q", "--json", *pm2("restart", "app"))
    assert done.code == 5
    assert lab.dump() == before
    done = lab.qctl("drain", "q", "--expect-workers", "1", "--json", *pm2("restart", "app"))
    assert done.code == 0, done.err
    assert done.json["unserved"] == []


def test_jobs_that_do_not_end_in_time_are_put_back(lab: Lab) -> None:
    lab.app()
    held = lab.hold()
    options = ("--timeout", "1s", "--on-timeout", "restart", "--json")
    done = lab.qctl("drain", "q", *options, *pm2("restart", "app"))
    assert done.code == 0, done.err
    assert (done.json["interrupted"], done.json["recovered"], done.json["lost"]) == (1, 1, 0)
    lab.release()
    lab.prove(held, again=held)


def test_ctrl_c_ends_the_command_first(lab: Lab) -> None:
    lab.app()
    file = lab.folder / "pid"
    drain = lab.start("drain", "q", "--", "sh", "-c", f"echo $$ > {file}; sleep 600")
    wait_until(lambda: file.exists() and file.read_text(), "the command to start")
    drain.signal(signal.SIGINT)
    done = drain.finish()
    assert done.code == 130
    assert not is_alive(int(file.read_text()))
    lab.prove(lab.add(10))


def test_ctrl_c_before_the_new_workers_have_stayed_up(lab: Lab) -> None:
    lab.app()
    lab.watch = "5s"
    drain = lab.start("drain", "q", "--output", "ndjson", *pm2("restart", "app"))
    drain.await_step("resumed")
    drain.signal(signal.SIGINT)
    done = drain.finish()
    assert done.code == 130
    assert (done.report["outcome"], done.report["resumed"]) == ("aborted", True)
    lab.prove(lab.add(10))


def test_kill_9_during_the_command(lab: Lab) -> None:
    lab.app()
    pid, go = lab.folder / "pid", lab.folder / "go"
    script = f"echo $$ > {pid}; while ! test -e {go}; do sleep 0.1; done"
    drain = lab.start("drain", "q", "--", "sh", "-c", script)
    wait_until(lambda: pid.exists() and pid.read_text(), "the command to start")
    watchdog = drain.watchdog_pid
    os.kill(drain.pid, signal.SIGKILL)
    drain.finish()
    # The command goes on, and the queue stays paused until it has ended.
    assert is_alive(int(pid.read_text()))
    assert lab.is_paused()
    go.touch()
    wait_until(lambda: lab.put_right(watchdog, "q"), "the watchdog to resume the queue")
    assert not is_alive(int(pid.read_text()))
    lab.prove(lab.add(10))
