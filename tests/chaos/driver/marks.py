"""Finds the processes of a round: they inherit a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable

import psutil

from tests.labs.drains import cmdline

_MARK = "CHAOS_ROUND"


def mark() -> str:
    """A mark for all processes that this one starts from now on."""
    os.environ[_MARK] = uuid.uuid4().hex
    return os.environ[_MARK]


def marked(token: str, is_wanted: Callable[[str], bool] = lambda _: True) -> list[psutil.Process]:
    """The living processes with a mark, but not this one.

    Args:
        is_wanted: gets the command line.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(_MARK) == token and is_wanted(" ".join(cmdline(process))):
                found.append(process)
    return found
