"""Signals as a question between two steps; what was ignored from the start stays ignored."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from qctl.cli.main import main
from qctl.cli.signals import stop_on_signals
from qctl.connection.address import Client
from qctl.errors import ExitStatus
from tests.labs.build import Q, put

# Runs a command with the terminal that is its stdin as its own.
ON_A_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)


@pytest.fixture
def nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_signal_is_told_once_and_the_handlers_go_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    said: list[str] = []
    with stop_on_signals(said.append) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert stop()
    assert said == ["SIGTERM: putting everything back …"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("nohup")
def test_under_nohup_a_lost_terminal_changes_nothing() -> None:
    with stop_on_signals(lambda _: None) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_signal_while_it_starts_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "qctl.cli.program", Interrupted("qctl.cli.program"))
    monkeypatch.setattr(sys, "argv", ["qctl", "status"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == ExitStatus.INTERRUPTED
    assert capsys.readouterr().err == "\ninterrupted\n"


Process = subprocess.Popen[str]


def start(redis_url: str, words: str, *before: str) -> Process:
    return subprocess.Popen(
        [*before, sys.executable, "-m", "qctl", *words.split(), "--redis", redis_url],
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent", "PM2_HOME": "/nonexistent"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_wait_that_is_ended_by_a_signal_says_so(
    redis_url: str, client: Client, number: signal.Signals
) -> None:
    put(client, "1", "wait")
    waiting = start(redis_url, "wait q --for empty")
    assert waiting.stderr is not None
    while "waiting: 1 waiting" not in waiting.stderr.readline():
        pass
    waiting.send_signal(number)
    assert "interrupted" in waiting.communicate(timeout=20)[1]
    assert waiting.returncode == ExitStatus.INTERRUPTED


def test_following_ends_with_the_terminal(redis_url: str, client: Client) -> None:
    client.call("XADD", Q("events"), "1-1", "event", "paused")
    put(client, "1", "wait")
    following = start(redis_url, "events q --follow --since 1970-01-01T00:00:00Z")
    assert following.stdout is not None
    assert "paused" in following.stdout.readline()
    following.send_signal(signal.SIGHUP)
    assert following.communicate(timeout=20) == ("", "")
    assert following.returncode == ExitStatus.OK


def test_under_nohup_a_wait_goes_on_without_its_terminal(redis_url: str, client: Client) -> None:
    put(client, "1", "wait")
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    waiting = start(redis_url, "wait q --for empty", *nohup)
    assert waiting.stderr is not None
    while "waiting: 1 waiting" not in waiting.stderr.readline():
        pass
    waiting.send_signal(signal.SIGHUP)
    client.pipeline([("DEL", Q("wait")), ("XADD", Q("events"), "*", "event", "drained")])
    assert waiting.communicate(timeout=20)[0].startswith("queue q is empty")
    assert waiting.returncode == ExitStatus.OK


def test_a_terminal_that_is_lost_is_no_crash(redis_url: str, client: Client) -> None:
    put(client, "1", "wait")
    ours, theirs = pty.openpty()
    waiting = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, sys.executable, "-m", "qctl",
         "wait", "q", "--for", "empty", "--redis", redis_url],
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent", "PM2_HOME": "/nonexistent"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"waiting: 1 waiting" not in seen:
        seen += os.read(ours, 1000)
    # The kernel sends SIGHUP, and whatever is written from now on fails.
    os.close(ours)
    assert waiting.wait(timeout=20) == ExitStatus.INTERRUPTED
