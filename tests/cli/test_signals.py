"""Signals as a question between two steps; what was ignored from the start stays ignored."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from qctl.cli.signals import stop_on_signals


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
