"""A second process that undoes a drain when qctl itself dies.

qctl starts it detached and holds a pipe to it. While the pipe is open it renews the leases. When
the pipe closes without a goodbye (kill -9, a lost terminal, out of memory) it resumes what this
drain paused, gives the leases back and ends, and keeps trying while Redis is away. It knows nothing
that Redis does not: the pause note names the drain that paused a queue, so it can neither resume
somebody else's pause nor resume twice.

The messages on the pipe are lines of JSON: first ``url``, ``prefix`` and ``leases`` (queue name →
the lease to renew, as JSON itself), then ``{"stopping": …}`` before each restart, at last
``{"goodbye": true}``. Where a failover may bring the pause back, the goodbye has ``watch_s``: the
watchdog stays for so long and resumes again. The Redis URL, which may hold a password, goes through
the pipe, so that no process list shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import QctlError, is_outage
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import LEASE_TTL_MS, Holder, parse_holder
from qctl.wire.read.info import can_lose_writes
from qctl.wire.write.pausing import free_lease, hold_lease, resume

RENEW_S = LEASE_TTL_MS / 3 / 1000
# After this time an operator has long taken over.
GIVE_UP_S = 24 * 3600.0
# After a resume that Redis may yet lose: how long it must last without an outage, how often that is
# checked, and when to give up.
WATCH_S = 10.0
WATCH_EVERY_S = 0.5
WATCH_AWAY_S = 600.0
READY = b"ready\n"


class Watchdog:
    """The watchdog's own side: the loop it runs until the pipe closes, and what it does then.

    Args:
        leases: those to renew.
        has_sentinel: whether another Redis may be made master.
    """

    def __init__(
        self, client: Client, leases: dict[QueueKeys, Holder], *, has_sentinel: bool = False
    ) -> None:
        self._client = client
        self._has_sentinel = has_sentinel
        self._leases = leases
        self._stopping: dict[str, float] | None = None

    def run(self, pipe: int) -> None:
        """Renew the leases until the pipe closes; then undo the drain unless it said goodbye.

        Args:
            pipe: file descriptor to read messages from.
        """
        buffer = b""
        while True:
            ready, _, _ = select.select([pipe], [], [], RENEW_S)
            if not ready:
                self._renew()
                continue
            chunk = os.read(pipe, 65_536)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message.get("goodbye"):
                    self.watch(message.get("watch_s", 0.0))
                    return
                self._stopping = message.get("stopping")
        self._await_stopped()
        self.undo()
        with contextlib.suppress(QctlError):
            if self._has_sentinel or can_lose_writes(self._client):
                self.watch(WATCH_S)

    def undo(self) -> None:
        """Resume what the drain paused and give the leases back, as soon as Redis lets us."""
        deadline = time.monotonic() + GIVE_UP_S
        pause_s = 0.2
        pending = dict(self._leases)
        while pending and time.monotonic() < deadline:
            for keys, holder in list(pending.items()):
                try:
                    resume(self._client, keys, owner=holder.owner)
                    free_lease(self._client, keys, holder.owner)
                except QctlError as error:
                    if not is_outage(error):
                        # Trying again is no help. The lease runs out; `status` shows who paused.
                        del pending[keys]
                else:
                    del pending[keys]
            if pending:
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def watch(self, watch_s: float) -> None:
        """Resume again what comes back paused by us: a failover may have lost the resume.

        Args:
            watch_s: how long Redis must have been there, with the queues running, before the end.
        """
        now = time.monotonic()
        until, give_up = now + watch_s, now + max(watch_s, WATCH_AWAY_S)
        while (now := time.monotonic()) < min(until, give_up):
            for keys, holder in self._leases.items():
                try:
                    if resume(self._client, keys, owner=holder.owner).changed:
                        until = now + watch_s
                    free_lease(self._client, keys, holder.owner)
                except QctlError as error:
                    if not is_outage(error):
                        return
                    # Whoever answers next may not know of it.
                    until = time.monotonic() + watch_s
            time.sleep(WATCH_EVERY_S)

    def _renew(self) -> None:
        for keys, holder in self._leases.items():
            with contextlib.suppress(QctlError):
                hold_lease(self._client, keys, holder)

    def _await_stopped(self) -> None:
        """Let a process that is being stopped end first: it could take one more job if resumed."""
        if self._stopping is None:
            return
        from qctl.manage.host import is_running  # noqa: PLC0415 - rarely needed

        pid, started_at = int(self._stopping["pid"]), self._stopping["started_at"]
        deadline = time.monotonic() + self._stopping["within_s"]
        while time.monotonic() < deadline and is_running(pid, started_at):
            time.sleep(0.05)


def main() -> None:
    """Entry of the child process: messages on standard input, ``ready`` on standard output."""
    # Unbuffered, since what follows on the pipe is read by file descriptor.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:
        first = json.loads(pipe.readline())
    address, client = connect(first["url"])
    leases = {
        QueueKeys(first["prefix"], name): holder
        for name, text in first["leases"].items()
        if (holder := parse_holder(text)) is not None
    }
    # Redis may be away, and qctl may have died since it started us. Both must not end us.
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), READY)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, sys.stdout.fileno())
    has_sentinel = address.mode == "sentinel"
    Watchdog(client, leases, has_sentinel=has_sentinel).run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
