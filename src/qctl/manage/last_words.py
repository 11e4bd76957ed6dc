"""Finds the last error in a process's log. The line with the error's message comes first.

A log often ends with a stack trace or Node's version, below the error's message; an operator needs
the message first.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence

from qctl.errors import QctlError
from qctl.manage.logs import read_tail
from qctl.manage.protocol import LogSource, ManagedProcess, Manager

MAX_LINES = 10
# PM2 can put a date before each line, in a format that the app chooses, and ": " after the date.
_STAMP = re.compile(r"[\[(]?\d[\d\-/.:,+TZ \])]*:( |$)")
_FRAME = re.compile(r"\s+at \S.*")
_CARETS = re.compile(r"\s*\^+\s*")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):")
_NAMED = re.compile(r"(?:Uncaught )?\[?(?:\w+\.)*\w*(?:Error|Exception|Rejection)\b.*")
# Lines that say nothing about the app: frames inside Node and Python, and Node's version.
_NOISE = re.compile(
    r'\s+at .*node:internal/.*|Node\.js v[\d.]+|\s+File "<frozen .*|\s+return _bootstrap\..*'
)
# Python prints these characters below a line of source, to underline the place of the error.
_UNDERLINES = re.compile(r"[\s~^]+")
# The first stack frame is at most this many lines below the first line of the message.
_MAX_MESSAGE_LINES = 20


class LogWatch:
    """What a process logs from now on. Its log may be a file, or be held by its manager."""

    def __init__(self, manager: Manager, process: ManagedProcess) -> None:
        self._manager = manager
        self._process = process
        self._since_s = time.time()
        self._size = log_size(process)

    def last_words(self) -> list[str]:
        """The result of ``error_first`` for the lines logged since this watch began.

        The list is empty if the log cannot be read.
        """
        if not isinstance(self._manager, LogSource):
            return last_words(self._process, self._size)
        with contextlib.suppress(QctlError):
            return error_first(self._manager.log_since(self._process, self._since_s))
        return []


def log_size(process: ManagedProcess) -> int:
    """The size of the process's error log in bytes; 0 if there is none or it cannot be read."""
    try:
        return process.error_log.stat().st_size if process.error_log else 0
    except OSError:
        return 0


def last_words(process: ManagedProcess, since: int = 0) -> list[str]:
    """The result of ``error_first`` for the process's error log; [] if there is no such log.

    Args:
        since: a result of ``log_size``; lines that the log had at that time are ignored.
    """
    return error_first(read_tail(process.error_log, since)[0]) if process.error_log else []


def error_first(lines: Sequence[str]) -> list[str]:
    """The last error in at most 10 lines, its message first. If there is none, the last 10 lines.

    Args:
        lines: the end of the log, oldest first.
    """
    plain = [line[m.end() :] if (m := _STAMP.match(line)) else line for line in lines]
    rows = [line for line in plain if line.strip() and not _NOISE.fullmatch(line)]
    traceback = _last(rows, lambda i: _TRACEBACK.fullmatch(rows[i]))
    named = _last(rows, lambda i: _NAMED.fullmatch(rows[i]) and _has_frames(rows, i))
    # Node prints the line of source that failed, carets below that line, then the message.
    carets = _last(rows, lambda i: i and _CARETS.fullmatch(rows[i - 1]) and rows[i][0] != " ")
    at = max(named, carets)
    if traceback > at:
        # Python prints the message below the trace, and the last frames matter most.
        at = next((i for i in range(traceback + 1, len(rows)) if rows[i][0] != " "), traceback)
        frames = [line for line in rows[traceback:at] if not _UNDERLINES.fullmatch(line)]
        return [rows[at], *frames[-(MAX_LINES - 1) :]]
    if at < 0:
        at = _last(rows, lambda i: _NAMED.fullmatch(rows[i]))
    return rows[at : at + MAX_LINES] if at >= 0 else rows[-MAX_LINES:]


def _has_frames(lines: Sequence[str], at: int) -> bool:
    return any(map(_FRAME.fullmatch, lines[at + 1 : at + 1 + _MAX_MESSAGE_LINES]))


def _last(lines: Sequence[str], matches: Callable[[int], object]) -> int:
    """The index of the last line that matches; -1 if none does."""
    return next((i for i in reversed(range(len(lines))) if matches(i)), -1)
