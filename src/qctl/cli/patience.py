"""A word to whoever waits at a terminal for something that may take long, and seldom does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from qctl.cli.environment import Environment

AFTER_S = 1.0


@contextlib.contextmanager
def patience(env: Environment, text: str) -> Iterator[None]:
    """Say ``text`` on stderr if what is done within takes longer than a second."""
    if not env.animated:
        yield
        return
    timer = threading.Timer(AFTER_S, env.note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
