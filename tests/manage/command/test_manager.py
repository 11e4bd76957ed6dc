"""Apps with commands of their own: what ``status`` means, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.config.commands import AppCommands
from qctl.config.settings import Settings
from qctl.errors import ManagerUnreachableError, NotFoundError, UsageError
from qctl.manage.command.manager import Command, _processes_in
from qctl.manage.protocol import Rollout
from qctl.ops.processes.managers import known_targets, managed_processes
from tests.labs.drains import SECRET


def shell(text: str) -> tuple[str, ...]:
    return "sh", "-c", text


def manager(status: str, **more: tuple[str, ...]) -> Command:
    return Command([AppCommands("app", shell(status), **more)], timeout_s=5)


@pytest.fixture
def pid() -> Iterator[int]:
    """A process that runs."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child.pid
        child.kill()


def test_the_pids_that_status_prints(pid: int) -> None:
    text = f"echo running; echo ' {pid} '; echo 0; echo 1; echo -5; echo 4194305; echo {pid}"
    (process,) = manager(text).processes()
    assert (process.target, process.key, process.pid) == ("command:app", f"app/{pid}", pid)
    assert (process.status, process.runs) == ("online", True)
    assert process.started_at_ms is not None
    assert (process.stop_signal, process.kill_timeout_ms, process.restarts) == ("", None, None)


def test_without_a_pid_it_still_runs() -> None:
    (process,) = manager("echo active").find("app")
    assert (process.key, process.pid, process.status, process.runs) == ("app", None, "online", True)


def test_the_grace_and_the_signal_of_the_config() -> None:
    app = AppCommands("app", ("true",), grace_s=1.5, signal="SIGINT")
    (process,) = Command([app]).processes()
    assert (process.stop_signal, process.kill_timeout_ms) == ("SIGINT", 1500)


@pytest.mark.parametrize("code", [1, 3, 125])
def test_other_exit_codes_mean_stopped(code: int) -> None:
    (process,) = manager(f"echo {os.getpid()}; exit {code}").processes()
    assert (process.status, process.pid, process.runs) == ("stopped", None, False)


@pytest.mark.parametrize("text", ["exit 127", "/dev/null", "kill -9 $$", "exec sleep 60"])
def test_a_status_that_gives_no_answer_is_not_stopped(text: str) -> None:
    with pytest.raises(ManagerUnreachableError):
        Command([AppCommands("app", shell(text))], timeout_s=0.5).processes()
    with pytest.raises(ManagerUnreachableError):
        Command([AppCommands("app", ("/no/such/program",))]).processes()


def test_nothing_that_status_prints_is_shown() -> None:
    app = manager(f"echo {SECRET}; echo {SECRET} >&2; exit 1")
    assert SECRET not in repr(app.processes()) + app.shortcoming("app", ())
    assert SECRET not in repr(manager(f"echo {SECRET}").processes())
    with pytest.raises(ManagerUnreachableError) as caught:
        manager(f"echo {SECRET} >&2; exit 127").processes()
    error = caught.value
    assert SECRET not in f"{error.what} {error.why} {error.hint} {error.__context__}"


def test_after_the_restart_status_must_say_that_it_runs() -> None:
    assert isinstance(manager("true"), Rollout)
    assert manager("true").shortcoming("app", ()) == ""
    assert manager("exit 1").shortcoming("app", ()) == (
        "the status of command:app says that it does not run"
    )
    assert "gave no answer" in Command([AppCommands("app", ("/nowhere",))]).shortcoming("app", ())


def test_a_restart_needs_one_command() -> None:
    assert manager("true", restart=("true", "-x")).restart_command("app") == ("true", "-x")
    with pytest.raises(UsageError) as caught:
        manager("true", stop=("stop", "a b"), start=("go",)).restart_command("app")
    assert caught.value.hint == """restart = ["sh", "-c", "stop 'a b' && go"]"""
    with pytest.raises(UsageError, match="has no restart"):
        manager("true").restart_command("app")
    with pytest.raises(UsageError, match="there is no command 'no-such-program'"):
        manager("true", restart=("no-such-program",)).restart_command("app")


def test_an_unknown_app() -> None:
    with pytest.raises(NotFoundError) as caught:
        manager("true").find("apps")
    assert caught.value.why == "targets: command:app"


@given(st.text())
def test_any_output_is_read(text: str) -> None:
    assert all(found > 1 and started > 0 for found, started in _processes_in(text))


def test_a_status_that_hangs_hides_no_other_app() -> None:
    apps = (AppCommands("slow", shell("exec sleep 60")), AppCommands("app", ("true",)))
    found, remarks = managed_processes(Settings(commands=apps), list, timeout_s=0.5)
    assert [process.target for process in found if process.kind == "command"] == ["command:app"]
    (remark,) = [remark for remark in remarks if "command" in remark]
    assert remark == (
        "no command processes shown: the status of command:slow gave no answer "
        "(sh: it did not end within 0.5 s)"
    )
    assert {"command:slow", "command:app"} <= {*known_targets(Settings(commands=apps))}
