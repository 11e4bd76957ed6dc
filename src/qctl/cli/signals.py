"""Ctrl-C, SIGTERM and a lost terminal, as a question that operations ask between two steps.

An exception at a random point could leave a queue half restored; a flag cannot.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_on_signals(
    say: Callable[[str], None], doing: str = "putting everything back"
) -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether the operator wants to stop.

    A signal that was ignored when qctl was started stays ignored: that is what ``nohup`` is for.

    Args:
        say: told once, at the first signal.
        doing: what follows, for ``say``.
    """
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    told = False

    def stop() -> bool:
        nonlocal told
        if received and not told:
            told = True
            say(f"{signal.Signals(received[0]).name}: {doing} …")
        return bool(received)

    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, note) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
