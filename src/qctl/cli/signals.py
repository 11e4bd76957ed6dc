"""Ctrl-C, SIGTERM and SIGHUP as a flag that operations check between two steps.

An exception could come at any point and leave a queue half restored; a flag cannot.
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
    """Yield a function that returns whether a signal has arrived.

    A signal that was ignored when qctl was started stays ignored, as ``nohup`` needs.

    Args:
        say: called once with a message, when the yielded function first sees a signal.
        doing: what qctl does next, for the message.
    """
    received: list[int] = []

    def record(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    is_said = False

    def stop() -> bool:
        nonlocal is_said
        if received and not is_said:
            is_said = True
            say(f"{signal.Signals(received[0]).name}: {doing} …")
        return bool(received)

    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before: dict[int, Any] = {number: signal.signal(number, record) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
