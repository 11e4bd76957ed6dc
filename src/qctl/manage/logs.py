"""Reads log files: the last lines, and new lines as they are written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_TAIL_BYTES = 64 * 1024
_MAX_NEW_BYTES = 1024 * 1024


def read_tail(path: Path, start: int = 0) -> tuple[list[str], int]:
    """The last lines of a log, at most 64 KiB, and the byte where they end.

    If the log cannot be read or is not a regular file, returns no lines and ``start``.

    Args:
        start: the byte to begin at. A log shorter than that was truncated: it is read from 0.
    """
    try:
        # O_NONBLOCK: the log may be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return [], start
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return [], start
        start = start if start <= status.st_size else 0
        first = max(start, status.st_size - _TAIL_BYTES)
        data = os.pread(descriptor, status.st_size - first, first)
    except OSError:
        return [], start
    finally:
        os.close(descriptor)
    lines = _lines(data) if data else []
    # If older bytes were skipped, the first line may be incomplete: drop it if other lines follow.
    return lines[1:] if first > start and len(lines) > 1 else lines, first + len(data)


def read_new(path: Path, start: int) -> tuple[list[str], int]:
    """The complete lines after byte ``start``, at most 1 MiB, and the byte where they end.

    A log that is shorter than ``start`` is read from 0. A log that cannot be read has no lines.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < start:
                start = 0
            file.seek(start)
            data = file.read(_MAX_NEW_BYTES)
    except OSError:
        return [], start
    # A line of more than 1 MiB is returned in pieces.
    is_long = len(data) == _MAX_NEW_BYTES and b"\n" not in data
    complete = data if is_long else data[: data.rfind(b"\n") + 1]
    return _lines(complete) if complete else [], start + len(complete)


def _lines(data: bytes) -> list[str]:
    # splitlines() would also split at other separators, which a message may contain.
    text = data.decode(errors="replace").removesuffix("\n")
    return [line.removesuffix("\r") for line in text.split("\n")]
