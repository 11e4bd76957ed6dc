"""``drain`` and ``restart`` as typed: options, questions, forms of output; PM2 is not needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import NotFoundError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.drain import choose, restartable
from qctl.ops.processes import targets
from qctl.wire.drain_record import read_drain_records
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import WorkerClient, Workers
from qctl.wire.write.pausing import hold_lease
from tests.labs.build import Q, holder, is_paused, put, row
from tests.labs.cli import Ran, run

Typed = Callable[..., Ran]


@pytest.fixture
def qctl(redis_url: str, client: Client) -> Typed:
    """Runs a command on a server with one queue ``q`` that has a waiting job and no worker."""
    put(client, "1")

    def typed(*words: str, stdin: str = "", terminal: bool = False, **environ: str) -> Ran:
        environ = {"QCTL_REDIS_URL": redis_url, "PM2_HOME": "/nonexistent", **environ}
        return run(*words, stdin=stdin, terminal=terminal, **environ)

    return typed


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager with one app that serves q."""
    process = ManagedProcess(
        target="pm2:app", key="0", name="app", namespace="default", status="online", pid=4_000_000,
        started_at_ms=0, restarts=0, mode="fork", stop_signal="SIGINT", kill_timeout_ms=1600,
        ready_timeout_ms=0, cpu_percent=None, rss_bytes=None,
    )  # fmt: skip
    worker = WorkerClient(QueueKeys("bull", "q"), None, 9, "127.0.0.1:9", 1, 1)

    class Manager:
        kind = "pm2"

        def find(self, name: str) -> list[ManagedProcess]:
            if name != "app":
                raise NotFoundError(f"PM2 has no app named {name}")
            return [process]

    connections = targets.Connections(Workers([worker]), {process.identity: (worker,)}, {})
    monkeypatch.setattr(targets, "manager_for", lambda *_: Manager())
    monkeypatch.setattr(choose, "managed_processes", lambda *_, **__: ([process], ()))
    monkeypatch.setattr(choose, "read_connections", lambda *_: connections)


def test_a_drain_tells_its_steps_on_stderr_and_the_proof_on_stdout(
    qctl: Typed, client: Client
) -> None:
    ran = qctl("drain", "q")
    assert ran.code == 0
    jobs, losses, times, headline = ran.out.splitlines()
    assert jobs == "jobs active at the start: 0: 0 completed, 0 failed, 0 retried, 0 recovered"
    assert losses == "interrupted: 0   lost: 0   (1 job checked)"
    assert times.startswith("paused for ")
    assert headline == "drained: nothing is running; still paused; resume with: qctl resume q"
    assert "q paused" in ran.err
    assert "drained after" in ran.err
    assert is_paused(client)
    assert row(client, "wait") == ["1"]


def test_a_pause_that_stays_names_the_command_as_typed(qctl: Typed) -> None:
    """Not "drain --keep-paused", which nobody typed."""
    assert qctl("drain", "q").code == 0
    (status,) = json.loads(qctl("status", "q", "--json").out)["queues"]
    assert status["paused_by"].startswith("qctl drain (stays paused) of ")


def test_json_is_one_object_with_the_fields_of_the_contract(qctl: Typed) -> None:
    ran = qctl("drain", "q", "--json")
    assert ran.code == 0
    assert ran.err == ""
    report = json.loads(ran.out)
    assert list(report)[:17] == [
        *("outcome", "queues", "target", "strategy", "active_at_start", "completed", "failed"),
        *("retried", "interrupted", "recovered", "lost", "jobs", "paused_s", "idle_s"),
        *("old_pids", "new_pids", "resumed"),
    ]
    assert (report["outcome"], report["target"], report["strategy"]) == ("drained", None, "pause")
    assert "step" not in report


def test_ndjson_has_a_line_a_step_and_the_report_last(qctl: Typed) -> None:
    ran = qctl("drain", "q", "--output", "ndjson")
    steps = [json.loads(line)["step"] for line in ran.out.splitlines()]
    assert steps == ["plan", "paused", "drained", "report"]
    assert all(line.startswith('{"step"') for line in ran.out.splitlines())


def test_an_idle_queue_that_was_paused_already(qctl: Typed, client: Client) -> None:
    assert qctl("pause", "q").code == 0
    ran = qctl("drain", "q")
    assert ran.code == 0
    assert "q was paused already" in ran.err
    assert is_paused(client)


def test_a_dry_run_writes_nothing(qctl: Typed, client: Client, app: None) -> None:
    for words in (["drain", "q"], ["drain", "q", "--then-restart", "--target", "pm2:app"]):
        ran = qctl(*words, "--dry-run")
        assert ran.code == 0
        assert all(line.endswith("  (dry run)") for line in ran.out.splitlines())
    assert "pm2:app id 0, pid 4000000, online: SIGINT, SIGKILL after 1.6 s" in ran.out
    assert not is_paused(client)
    assert client.call("KEYS", "qctl:*") == []


def test_the_plan_of_a_roll_warns_of_no_pause(
    qctl: Typed, client: Client, app: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is paused, whatever BullMQ the queue's clients use."""
    monkeypatch.setattr(restartable, "require_rollable", lambda *_: None)
    client.call("HSET", Q("meta"), "version", "bullmq:5.81.5")
    ran = qctl("restart", "pm2:app", "--strategy", "roll", "--dry-run", "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["strategy"]) == (0, "roll")
    assert [warning for warning in told["warnings"] if "resume" in warning] == []


@pytest.mark.parametrize(
    ("words", "at_once"),
    [
        (["restart", "pm2:app"], 1),
        (["restart", "pm2:app", "--max-unavailable", "3"], 3),
        (["restart", "pm2:app", "--max-unavailable", "50%", "--strategy", "roll"], 2),
        (["drain", "q"], None),
    ],
)
def test_the_plan_says_how_many_are_replaced_at_once(
    qctl: Typed, app: None, monkeypatch: pytest.MonkeyPatch, words: list[str], at_once: int | None
) -> None:
    opened = choose.open_target

    def with_four(*arguments: Any) -> targets.Target:
        target = opened(*arguments)
        return replace(target, processes=target.processes * 4)

    monkeypatch.setattr(choose, "open_target", with_four)
    monkeypatch.setattr(restartable, "require_rollable", lambda *_: None)
    told = json.loads(qctl(*words, "--dry-run", "--json").out)
    assert told["max_unavailable"] == at_once
    text = qctl(*words, "--dry-run").out
    assert (f"{at_once} processes" in text) == (at_once in {2, 3})


def test_a_dry_run_of_restart_needs_no_yes(qctl: Typed, app: None) -> None:
    ran = qctl("restart", "pm2:app", "--dry-run", "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert (told["queues"], told["target"]) == (["q"], "pm2:app")


def test_only_a_drain_that_succeeds_leaves_the_queue_paused(
    qctl: Typed, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    put(client, "run", "active", lock="t")
    ran = qctl("drain", "q", "--keep-paused", "--timeout", "0.2")
    assert (ran.code, is_paused(client)) == (4, False)
    for verb in ("drain", "restart"):
        qctl(verb, "--help")
        shown = " ".join(capsys.readouterr().out.split())
        assert "after a timeout, Ctrl-C or a failure" in shown
    client.call("DEL", Q("active"))
    assert (qctl("drain", "q", "--keep-paused").code, is_paused(client)) == (0, True)


def test_a_drain_that_cannot_show_its_plan_does_not_begin(
    qctl: Typed, redis_url: str, client: Client
) -> None:
    script = f"{sys.executable} -m qctl drain q --redis {redis_url} 2>/dev/full"
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert not is_paused(client)
    assert client.call("KEYS", "qctl:*") == []


@pytest.mark.parametrize("output", ["json", "ndjson"])
def test_a_refusal_is_an_object_too(qctl: Typed, client: Client, output: str) -> None:
    hold_lease(client, Q, holder("them", "drain"))
    ran = qctl("drain", "q", "--output", output)
    assert ran.code == 5
    report = json.loads(ran.out.splitlines()[-1])
    assert (report["outcome"], report["queues"]) == ("refused", ["q"])
    assert report["error"] == "another drain is at work on queue q"
    assert report.get("step") == ("report" if output == "ndjson" else None)
    assert "pid 42" in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["drain", "q", "--on-timeout", "restart"], "--then-restart"),
        (["drain", "q", "--timeout", "soon"], "--timeout"),
        (["drain", "q", "--strategy", "magic"], "magic"),
        (["drain", "q", "--on-timeout", "panic"], "panic"),
        (["restart"], "TARGET"),
        (["drain", "q", "--resume-from", "pm2:a"], "--then-restart"),
        (["restart", "pm2:a", "pm2:b", "--resume-from", "pm2:c"], "pm2:a, pm2:b"),
        (["drain", "q", "--max-unavailable", "2"], "--then-restart"),
        (["drain", "q", "--max-unavailable", "2", "--", "true"], "-- COMMAND"),
        (["restart", "pm2:a", "--max-unavailable", "0"], "is not a number of processes"),
        (["restart", "pm2:a", "--max-unavailable", "101%"], "is not a number of processes"),
    ],
)
def test_wrong_usage(qctl: Typed, client: Client, words: list[str], says: str) -> None:
    ran = qctl(*words)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert not is_paused(client)


def test_a_guess_is_asked_about(qctl: Typed, client: Client, app: None) -> None:
    words = ("drain", "q", "--then-restart")
    nobody = qctl(*words)
    assert nobody.code == 2
    assert "Drain and restart pm2:app?" in nobody.err
    assert nobody.err.rstrip().endswith("--yes")
    for answer in ("n\n", "\n", "", "yess\n"):
        no = qctl(*words, stdin=answer, terminal=True)
        assert no.code == 5
        assert "nothing was done" in no.err
    assert not is_paused(client)
    assert client.call("KEYS", "qctl:*") == []


def test_queues_that_were_found_are_named_in_the_question(
    qctl: Typed, client: Client, app: None
) -> None:
    ran = qctl("drain", "--then-restart", stdin="n\n", terminal=True)
    assert ran.code == 5
    assert "Drain and restart pm2:app with q?" in ran.err


def test_what_was_named_is_not_asked_about(qctl: Typed, app: None, client: Client) -> None:
    ran = qctl("drain", "q", "--target", "pm2:app", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["queues"] == ["q"]
    # A target without --then-restart only says whose queues: nothing is restarted.
    assert json.loads(ran.out)["outcome"] == "drained"
    assert is_paused(client)


@pytest.mark.parametrize("queues", [(), ("q",)])
def test_a_target_that_is_not_restarted_is_noted(
    qctl: Typed, app: None, queues: tuple[str, ...]
) -> None:
    ran = qctl("drain", *queues, "--target", "pm2:app", "--dry-run")
    note = "pm2:app is not restarted: that needs --then-restart"
    assert note in ran.out
    ran = qctl("drain", *queues, "--target", "pm2:app")
    assert note in ran.err
    assert f"note: {note}" in ran.out
    ran = qctl("drain", *queues, "--target", "pm2:app", "--then-restart", "--dry-run")
    assert "not restarted" not in ran.out


def test_queues_that_cannot_be_found_are_to_be_named_for_the_same_command(
    qctl: Typed, app: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker of the app is connected."""
    monkeypatch.setattr(
        choose, "read_connections", lambda *_: targets.Connections(Workers(), {}, {})
    )
    restart = qctl("restart", "pm2:app", "--prefix", "bull")
    assert restart.code == 2
    hint = "qctl drain QUEUE --then-restart --target pm2:app --prefix bull"
    assert restart.err.endswith(f"try: name each of them: {hint}\n")
    typed = hint.replace("QUEUE", "q").split()[1:]
    done = json.loads(qctl(*typed, "--dry-run", "--json").out)
    assert (done["queues"], done["target"]) == (["q"], "pm2:app")
    alone = qctl("drain", "--target", "pm2:app")
    assert alone.err.endswith("try: name each of them: qctl drain QUEUE\n")
    assert qctl("drain").err.endswith("try: name each queue: qctl drain QUEUE\n")
    assert qctl("drain", "--then-restart").err.endswith("for example pm2:worker\n")


def test_a_target_from_the_config(
    qctl: Typed, app: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[targets.ingest]\nprocess = "pm2:app"\nqueues = ["q"]\n'
    (tmp_path / "qctl.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    ran = qctl("drain", "--then-restart", "--target", "ingest", "--dry-run", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["target"] == "pm2:app"
    missing = qctl("drain", "q", "--target", "injest")
    assert missing.code == 3
    assert "ingest" in missing.err


def test_a_drain_goes_into_the_record(qctl: Typed, client: Client) -> None:
    assert qctl("drain", "q", "--dry-run").code == 0
    assert read_drain_records(client, ["bull"])[0].last is None
    report = json.loads(qctl("drain", "q", "--json").out)
    record = read_drain_records(client, ["bull"])[0]
    assert (record.drains["drained"], sum(record.drains.values())) == (1, 1)
    assert record.last is not None
    assert record.last.outcome == report["outcome"] == "drained"
    assert record.last.paused_ms == round(report["paused_s"] * 1000)


def test_a_record_that_cannot_be_written_fails_no_drain(qctl: Typed, client: Client) -> None:
    client.call("SET", "qctl:drains:bull", "something else")
    ran = qctl("drain", "q")
    assert ran.code == 0, ran.err
    assert client.call("GET", "qctl:drains:bull") == "something else"


def test_without_a_manager_the_queues_are_to_be_named(qctl: Typed, tmp_path: Path) -> None:
    home = {"PM2_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    ran = qctl("drain", **home)
    assert ran.code == 2
    assert "no managed process on this host" in ran.err
    assert ran.err.endswith("qctl drain QUEUE\n")


def test_while_pm2_does_not_answer_nobody_is_guessed(qctl: Typed, tmp_path: Path) -> None:
    (tmp_path / "rpc.sock").touch()
    ran = qctl("drain", "q", "--then-restart", PM2_HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path))
    assert ran.code == 6
    assert "PM2 does not run here" in ran.err
    assert "--target MANAGER:NAME" in ran.err
