"""What a process wrote before it died: the line that names the error first, then the rest.

A log ends with a stack trace or a version, and names the error somewhere above it. An operator
needs the error first.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from qctl.manage.protocol import ManagedProcess

_TAIL_BYTES = 64 * 1024
MAX_LINES = 10
# PM2 puts a date before each line when it is told to; its format is the app's, ": " follows.
_STAMP = re.compile(r"[\[(]?\d[\d\-/.:,+TZ \])]*:( |$)")
_FRAME = re.compile(r"\s+at \S.*")
_CARETS = re.compile(r"\s*\^+\s*")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):")
_NAMED = re.compile(r"(?:Uncaught )?\[?(?:\w+\.)*\w*(?:Error|Exception|Rejection)\b.*")
# Frames of Node and Python themselves, and the version at the end, say nothing about the app.
_NOISE = re.compile(
    r'\s+at .*node:internal/.*|Node\.js v[\d.]+|\s+File "<frozen .*|\s+return _bootstrap\..*'
)
_UNDERLINES = re.compile(r"[\s~^]+")
# The lines of a message between the one that names the error and its first frame, at most.
_MESSAGE_LINES = 20


def log_size(process: ManagedProcess) -> int:
    """How long its error log is now, in bytes; 0 when it has none."""
    try:
        return process.error_log.stat().st_size if process.error_log else 0
    except OSError:
        return 0


def read_tail(path: Path, start: int = 0) -> list[str]:
    """The last lines of a log, at most 64 KiB; none if it cannot be read.

    Args:
        start: the byte to begin at; a log that is shorter by now was cut, and is read whole.
    """
    try:
        # Without blocking: what is set as the log may be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return []
        start = start if start <= status.st_size else 0
        first = max(start, status.st_size - _TAIL_BYTES)
        data = os.pread(descriptor, _TAIL_BYTES, first)
    except OSError:
        return []
    finally:
        os.close(descriptor)
    # Only "\n": splitlines() would also split at separators inside a message.
    text = data.decode(errors="replace").removesuffix("\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")] if text else []
    # The first line of a cut tail is a part, unless it is all there is.
    return lines[1:] if first > start and len(lines) > 1 else lines


def last_words(process: ManagedProcess, since: int = 0) -> list[str]:
    """The end of its error log, the line that names the error first; empty if there is none.

    Args:
        since: what ``log_size`` was before; older lines are left out.
    """
    return error_first(read_tail(process.error_log, since)) if process.error_log else []


def error_first(lines: Sequence[str], most: int = MAX_LINES) -> list[str]:
    """The last error in a log, its message first; the last lines where there is no error.

    Args:
        lines: the end of the log, oldest first.
        most: how many lines to return.
    """
    plain = [line[m.end() :] if (m := _STAMP.match(line)) else line for line in lines]
    said = [line for line in plain if line.strip() and not _NOISE.fullmatch(line)]
    traceback = _last(said, lambda i: _TRACEBACK.fullmatch(said[i]))
    named = _last(said, lambda i: _NAMED.fullmatch(said[i]) and _has_frames(said, i))
    carets = _last(said, lambda i: i and _CARETS.fullmatch(said[i - 1]) and said[i][0] != " ")
    at = max(named, carets)
    if traceback > at:
        # Python names the error below its trace, and the last frames matter.
        at = next((i for i in range(traceback + 1, len(said)) if said[i][0] != " "), traceback)
        frames = [line for line in said[traceback:at] if not _UNDERLINES.fullmatch(line)]
        return [said[at], *frames[-(most - 1) :]]
    if at < 0:
        at = _last(said, lambda i: _NAMED.fullmatch(said[i]))
    return said[at : at + most] if at >= 0 else said[-most:]


def _has_frames(lines: Sequence[str], at: int) -> bool:
    return any(map(_FRAME.fullmatch, lines[at + 1 : at + 1 + _MESSAGE_LINES]))


def _last(lines: Sequence[str], matches: Callable[[int], object]) -> int:
    """The last line that matches; -1 if none does."""
    return next((i for i in reversed(range(len(lines))) if matches(i)), -1)
