"""A message for the operator when something that is usually quick takes long."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from qctl.cli.environment import Environment

AFTER_S = 1.0


@contextlib.contextmanager
def patience(env: Environment, text: str) -> Iterator[None]:
    """Print ``text`` on stderr if the block takes longer than a second."""
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
