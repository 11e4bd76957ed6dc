"""The processes that a manager starts after it was asked for a restart."""

from __future__ import annotations

import time

from qctl.manage.protocol import ManagedProcess


class NewProcesses:
    """The processes that were started since the restart was asked for.

    Args:
        before: the process as it was then.
    """

    def __init__(self, before: ManagedProcess) -> None:
        self._before = before
        self._first: ManagedProcess | None = None
        self._pid: int | None = None
        self._up_since = 0.0
        self._connected_since: float | None = None
        self._ended = 0

    def update(self, now: ManagedProcess) -> bool:
        """Take in a reading; whether a process was started since the restart was asked for."""
        if self._first is None and not now.was_started_since(self._before):
            return False
        self._first = self._first or now
        if now.pid != self._pid:
            self._ended += self._pid is not None
            self._pid, self._up_since = now.pid, time.monotonic()
            self._connected_since = None
        # Some may have come and gone between two readings.
        self._ended = max(self._ended, now.restarts - self._first.restarts)
        return True

    @property
    def crashes(self) -> int:
        """New processes that have ended."""
        return self._ended

    @property
    def up_s(self) -> float:
        """How long the present one has been seen, in seconds."""
        return time.monotonic() - self._up_since

    def note_workers(self, *, are_connected: bool) -> None:
        """Take in whether the workers of the present one are connected."""
        if not are_connected:
            self._connected_since = None
        elif self._connected_since is None:
            self._connected_since = time.monotonic()

    @property
    def connected_s(self) -> float:
        """For how long its workers have been seen connected, in seconds."""
        return time.monotonic() - self._connected_since if self._connected_since else 0.0
