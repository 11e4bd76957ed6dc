"""Leases on the queues of a drain, and the watchdog that undoes the drain if qctl dies.

A lease is a key in Redis that reserves a queue for one drain. It expires if nobody renews it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace

from qctl.connection.address import Client
from qctl.errors import FailedError, RefusedError, ReplyError
from qctl.ops.drain.watchdog import READY, Stopping
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import Holder
from qctl.wire.write.pausing import free_lease, hold_lease

WATCHDOG_START_S = 15.0


def drain_at_work(keys: QueueKeys, holder: Holder) -> RefusedError:
    """The error for a queue whose lease another drain holds."""
    return RefusedError(
        f"another drain is at work on queue {keys.name}",
        why=f"{holder} holds its lease",
        hint="wait for that drain to end; its lease expires 15 s after it dies",
    )


class Leases:
    """Holds the leases of one drain.

    Args:
        client: the client of the queues' Redis.
        url: the URL of the same Redis, for the watchdog; may hold a password.
        holder: this drain.
        was_paused: queue → whether it was paused before the drain.
    """

    def __init__(
        self, client: Client, url: str, holder: Holder, was_paused: Mapping[QueueKeys, bool]
    ) -> None:
        self._client = client
        self._url = url
        self._holder = holder
        self._leases = {
            keys: replace(holder, was_paused=paused) for keys, paused in was_paused.items()
        }
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        # Whether a watchdog must run.
        self._is_watched = False
        self._stopping: dict[str, object] | None = None

    def acquire(self) -> None:
        """Take every lease and start the watchdog; after an error, try to delete the leases.

        Raises:
            RefusedError: another drain is at work on one of the queues.
            FailedError: the watchdog did not start.
        """
        try:
            self.renew()
            self._start_watchdog()
            self._is_watched = True
        except BaseException:
            # If Redis is away, do not try every queue: the leases expire.
            with contextlib.suppress(Exception):
                for keys in self._leases:
                    with contextlib.suppress(ReplyError):
                        free_lease(self._client, keys, self._holder.owner)
            raise

    def renew(self) -> None:
        """Take or renew every lease, and start the watchdog again if it has died.

        Raises:
            RefusedError: another drain has taken a lease, before us or after ours expired.
            FailedError: the watchdog did not start.
        """
        # First, because Redis may refuse the leases until this drain has ended.
        self.keep_watchdog()
        for keys, lease in self._leases.items():
            other = hold_lease(self._client, keys, lease)
            if other is not None:
                raise drain_at_work(keys, other)

    def keep_watchdog(self) -> None:
        """Start the watchdog again if it has died, and was neither dismissed nor abandoned.

        Raises:
            FailedError: the watchdog did not start.
        """
        if self._is_watched and (self._watchdog is None or self._watchdog.poll() is not None):
            self._start_watchdog()
            if self._stopping is not None:
                self._send(self._stopping)

    @property
    def watchdog_pid(self) -> int | None:
        """The pid of the watchdog; None if none runs, as far as ``keep_watchdog`` has seen."""
        return self._watchdog.pid if self._watchdog else None

    def announce_stop(self, processes: Iterable[Stopping]) -> None:
        """Tell the watchdog which processes are being stopped.

        If qctl dies, the watchdog waits until they have ended, then resumes the queues.
        """
        self._stopping = {"stopping": [asdict(process) for process in processes]}
        self._send(self._stopping)

    def release(self) -> None:
        """Delete the leases; the watchdog goes on.

        Raises:
            UnreachableError: Redis is away.
        """
        for keys in self._leases:
            free_lease(self._client, keys, self._holder.owner)

    def dismiss(self, *, watch_s: float = 0.0) -> None:
        """Let the watchdog end without undoing the drain.

        Args:
            watch_s: how many seconds the watchdog still runs, to resume queues that a failover
                pauses again. The time starts anew after each such resume. If 0, the watchdog ends
                at once.
        """
        self._send({"goodbye": True, "watch_s": watch_s})
        if watch_s:
            self.abandon()
            return
        self._is_watched = False
        self._close_pipe()
        if self._watchdog is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._watchdog.wait(timeout=5)
            self._watchdog = None

    def abandon(self) -> None:
        """Close the pipe. A watchdog that was not dismissed then undoes the drain."""
        self._is_watched = False
        self._close_pipe()
        if self._watchdog is not None:
            # The watchdog outlives qctl on purpose; without this line, Popen would warn about that.
            self._watchdog.returncode = 0
            self._watchdog = None

    def _start_watchdog(self) -> None:
        self._close_pipe()
        leases = [(q.prefix, q.name, lease.to_json()) for q, lease in self._leases.items()]
        message = _line({"url": self._url, "leases": leases})
        reader, writer = os.pipe()
        self._pipe = writer
        # Fill the pipe before the watchdog starts: if qctl is killed right afterwards, the watchdog
        # already knows what to do. A long message does not fit; its rest is written below.
        os.set_blocking(writer, False)
        written = os.write(writer, message)
        os.set_blocking(writer, True)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-P", "-m", "qctl.ops.drain.watchdog"],
            stdin=reader,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        os.close(reader)
        with contextlib.suppress(BrokenPipeError):
            while written < len(message):
                written += os.write(writer, message[written:])
        assert self._watchdog.stdout is not None  # noqa: S101 - it is a pipe
        ready, _, _ = select.select([self._watchdog.stdout], [], [], WATCHDOG_START_S)
        answer = self._watchdog.stdout.readline() if ready else b""
        self._watchdog.stdout.close()
        if answer != READY:
            self._watchdog.kill()
            self._watchdog.wait()
            self._watchdog = None
            self._close_pipe()
            raise FailedError(
                "the watchdog process did not start, so the drain cannot go on",
                why="without it a killed qctl would leave the queues paused",
                hint=f"see what `{sys.executable} -m qctl.ops.drain.watchdog` says",
            )

    def _send(self, message: dict[str, object]) -> None:
        if self._pipe is None:
            return
        # keep_watchdog() notices and replaces a watchdog that died.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, _line(message))

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"
