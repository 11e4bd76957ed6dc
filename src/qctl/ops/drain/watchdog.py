"""A second process that undoes a drain when qctl itself dies.

qctl starts the watchdog detached and keeps a pipe to it open. While the pipe is open, the watchdog
renews the leases, the keys in Redis that reserve the queues for the drain. If the pipe closes
before qctl has sent its last message (kill -9, a lost terminal, out of memory), the watchdog
resumes the queues that the drain paused and deletes the leases. If Redis is away or refuses, the
watchdog tries again: a right that was taken away may be given back. A note in Redis names the owner
of a pause, so the watchdog leaves other pauses alone.

The messages on the pipe are lines of JSON. The first has ``url`` and ``leases``: for each queue its
prefix, its name, and the JSON text of its lease. ``{"stopping": […]}`` names all processes that are
restarted together, or the command that restarts them: the watchdog waits for their end before it
resumes queues. The last is ``{"goodbye": true}``. Its ``watch_s`` is how long the watchdog goes on:
if a failover brings a pause back, the watchdog resumes the queue again.
The Redis URL may hold a password, so it is sent through the pipe: no process list shows it.

SIGTERM, SIGINT and SIGHUP make the watchdog hurry, but it still undoes the drain before it ends. If
qctl is killed in a systemd service, for example, systemd sends SIGTERM to the watchdog, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import QctlError, is_outage
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import LEASE_TTL_MS, Holder, parse_holder
from qctl.wire.read.info import can_lose_writes
from qctl.wire.write.pausing import free_lease, hold_lease, resume

# A third of a lease's life, so that one renewal may fail.
RENEW_S = LEASE_TTL_MS / 3 / 1000
# How long to try to undo the drain while Redis is away or refuses.
GIVE_UP_S = 24 * 3600.0
# How long each wait may take after a signal: systemd kills after 90 s by default.
HURRY_S = 30.0
# A failover may undo a resume, so the queues are checked every WATCH_EVERY_S until they have run
# for WATCH_S without an outage. The watchdog gives up after WATCH_AWAY_S.
WATCH_S = 10.0
WATCH_EVERY_S = 0.5
WATCH_AWAY_S = 600.0
READY = b"ready\n"


@dataclass(frozen=True, slots=True)
class Stopping:
    """A process that is being stopped.

    Args:
        birth_s: when the process started, from ``host.read_birth_s``.
        within_s: how long the watchdog waits for its end, at most.
    """

    pid: int
    birth_s: float
    within_s: float


class Watchdog:
    """The loop of the watchdog until the pipe closes, and its actions afterwards.

    Args:
        leases: queue → its lease.
        has_sentinel: whether Sentinel may make another Redis the master.
    """

    def __init__(
        self, client: Client, leases: dict[QueueKeys, Holder], *, has_sentinel: bool = False
    ) -> None:
        self._client = client
        self._has_sentinel = has_sentinel
        self._leases = leases
        self._stopping: tuple[Stopping, ...] = ()
        self._is_in_a_hurry = False

    def hurry(self) -> None:
        """Shorten the work after qctl's end: no wait exceeds ``HURRY_S``, and ``watch`` ends."""
        self._is_in_a_hurry = True

    def run(self, pipe: int) -> None:
        """Renew the leases until the pipe closes, then undo the drain unless qctl sent ``goodbye``.

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
                self._stopping = tuple(Stopping(**each) for each in message["stopping"])
        self._await_stopped()
        self.undo()
        with contextlib.suppress(QctlError):
            if self._has_sentinel or can_lose_writes(self._client):
                self.watch(WATCH_S)

    # If packets are dropped, an attempt takes seconds. So a round ends at the first queue that
    # cannot be reached. The next round tries that queue last, because others may be on other nodes.

    def _renew(self) -> None:
        for keys, holder in self._leases.items():
            try:
                hold_lease(self._client, keys, holder)
            except QctlError as error:
                if is_outage(error):
                    self._leases[keys] = self._leases.pop(keys)
                    return

    def undo(self) -> None:
        """Resume the queues that the drain paused, and delete the leases, once Redis answers."""
        began = time.monotonic()
        pause_s = 0.2
        pending = dict(self._leases)
        while pending and time.monotonic() - began < self._at_most(GIVE_UP_S):
            for keys, holder in list(pending.items()):
                try:
                    resume(self._client, keys, owner=holder.owner)
                    free_lease(self._client, keys, holder.owner)
                except QctlError as error:
                    # `qctl status` shows the pause, and a resume by hand makes the next try the
                    # last one: the note is then gone.
                    pending[keys] = pending.pop(keys)
                    if is_outage(error):
                        break
                else:
                    del pending[keys]
            if pending:
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def watch(self, watch_s: float) -> None:
        """Resume the queues again if a failover has brought our pause back.

        Args:
            watch_s: how long Redis must answer, with the queues running, before the watch ends.
        """
        now = time.monotonic()
        until, give_up = now + watch_s, now + max(watch_s, WATCH_AWAY_S)
        while not self._is_in_a_hurry and (now := time.monotonic()) < min(until, give_up):
            for keys, holder in self._leases.items():
                try:
                    if resume(self._client, keys, owner=holder.owner).changed:
                        until = now + watch_s
                    free_lease(self._client, keys, holder.owner)
                except QctlError:
                    # After an outage, another Redis may be the master, and may not have received
                    # our resume. Therefore, start the time again.
                    until = time.monotonic() + watch_s
                    self._leases[keys] = self._leases.pop(keys)
                    break
            time.sleep(WATCH_EVERY_S)

    def _await_stopped(self) -> None:
        """Wait until the processes that are being stopped have ended.

        If a queue were resumed earlier, these processes could take jobs from it.
        """
        if not self._stopping:
            return
        from qctl.manage.host import is_running  # noqa: PLC0415 - rarely needed

        began = time.monotonic()
        for each in self._stopping:
            while time.monotonic() - began < self._at_most(each.within_s) and is_running(
                each.pid, each.birth_s
            ):
                time.sleep(0.05)

    def _at_most(self, limit_s: float) -> float:
        return min(limit_s, HURRY_S) if self._is_in_a_hurry else limit_s


def main() -> None:
    """Run the watchdog: messages come on standard input; it prints ``ready`` once it runs."""
    asked: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in signals:
        signal.signal(number, lambda number, _: asked.append(number))
    # Unbuffered, because the later messages are read by file descriptor.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:
        first = json.loads(pipe.readline())
    address, client = connect(first["url"])
    leases = {
        QueueKeys(prefix, name): holder
        for prefix, name, text in first["leases"]
        if (holder := parse_holder(text)) is not None
    }
    # If qctl has died already, writing fails, but the watchdog must go on.
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), READY)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, sys.stdout.fileno())
    has_sentinel = address.mode == "sentinel"
    watchdog = Watchdog(client, leases, has_sentinel=has_sentinel)
    for number in signals:
        signal.signal(number, lambda *_: watchdog.hurry())
    if asked:
        watchdog.hurry()
    watchdog.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
