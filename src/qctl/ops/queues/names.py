"""The names of the queues, cached if finding them is slow.

Redis has no list of queues. To find them, qctl must SCAN every key of the database (wire format
2.4), which takes seconds for ten million keys. A small database is scanned each time. A slow scan
writes the names to a file in the state folder. For half an hour, commands read the names from this
file, and add the names of queues that have connected workers. When the next scan is due, a command
starts it in the background.

Only names are cached: everything else is read from Redis each time, so a deleted queue is not
shown. A new queue without a worker is missing until the next scan, so every command that uses
cached names says how old they are. A cache is valid for one run of one server: if another server
answers at the same address, for example through a tunnel, the database is scanned again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from qctl.config.prefixes import Prefixes, parse_prefixes
from qctl.connection.address import Address, Client
from qctl.connection.info import parse_info
from qctl.errors import ReplyError
from qctl.ops.state_file import StateFile
from qctl.private import try_lock
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import survey

# The names are cached if the scan took longer than this.
SLOW_SCAN_S = 0.25
# Cached names that are older than this are not used.
MAX_AGE_S = 1800.0
# The next scan is due after PAUSE_FACTOR * the duration of the last scan, at the latest after
# MAX_AGE_S / 2.
PAUSE_FACTOR = 30


@dataclass(frozen=True, slots=True)
class QueueNames:
    """All queues under the prefixes of a command, sorted.

    Args:
        scanned_at_s: when the scan that found the names began, epoch seconds.
        took_s: how long the scan took.
        server: see ``server_id``; empty if unknown, or if the scan was quick.
        is_cached: whether the names were found by an earlier command.
        other_prefixes: other prefixes that hold queues, as far as the scan noticed them.
    """

    queues: tuple[QueueKeys, ...]
    scanned_at_s: float
    took_s: float
    server: str = ""
    is_cached: bool = False
    other_prefixes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names without the prefixes."""
        return tuple(queue.name for queue in self.queues)

    def including(self, queues: Iterable[QueueKeys]) -> QueueNames:
        """Adds ``queues``, except names with a colon: no queue has such a name (trap T6)."""
        more = {queue for queue in queues if ":" not in queue.name}
        return replace(self, queues=tuple(sorted(more.union(self.queues))))

    @property
    def age_s(self) -> float:
        return max(time.time() - self.scanned_at_s, 0.0)

    @property
    def is_scan_due(self) -> bool:
        return self.age_s > min(PAUSE_FACTOR * self.took_s, MAX_AGE_S / 2)


class QueueNameCache:
    """The cached queues of some prefixes, for one address of Redis and one user.

    Args:
        address: the address of Redis. Neither the file nor its name contains the password.
    """

    def __init__(self, state_home: Path, address: Address, prefixes: Prefixes) -> None:
        self._address = address
        self._prefixes = prefixes
        self._file = StateFile(state_home, "queues", address, prefixes)
        self.path = self._file.path

    def get(self, client: Client) -> QueueNames:
        """The cached names. If there are none, or ``server_id`` has changed, scan for them."""
        cached = self.read()
        if cached is not None and cached.server == server_id(client):
            return cached
        return self.scan(client)

    def read(self) -> QueueNames | None:
        """The cached names, from any run of the server; None if there are none or they are old."""
        record = self._file.read()
        if record is None:
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
            found = QueueNames(
                queues=tuple(QueueKeys(str(p), str(name)) for p, name in record["queues"]),
                scanned_at_s=float(record["scanned_at_s"]),
                took_s=float(record["took_s"]),
                server=str(record["server"]),
                is_cached=True,
                other_prefixes=tuple(map(str, record["other_prefixes"])),
            )
            # If the clock was set back, the names may be from the future: do not use them.
            if -1.0 < time.time() - found.scanned_at_s < MAX_AGE_S:
                return found
        return None

    def scan(self, client: Client) -> QueueNames:
        """Scan all keys for the names. A slow scan writes the file, a quick scan deletes it."""
        at_s, began = time.time(), time.monotonic()
        seen = survey(client, self._prefixes, look_beyond=True)
        took_s = time.monotonic() - began
        found = QueueNames(seen.queues, at_s, took_s, other_prefixes=seen.other_prefixes)
        # If the file cannot be written, the next command scans again.
        with contextlib.suppress(OSError):
            if found.took_s > SLOW_SCAN_S:
                found = replace(found, server=server_id(client))
                other = self.read()
                # Do not replace names of another scan that began later and has already ended.
                if other is None or other.scanned_at_s <= found.scanned_at_s:
                    self._write(found)
            else:
                self._file.delete()
        return found

    def scan_in_background(self) -> None:
        """Start a process that scans, unless such a process is running."""
        with contextlib.suppress(OSError):
            self._file.make_folder()
            lock = self._try_lock()
            if lock is None:
                return
            try:
                self._start(lock)
            finally:
                os.close(lock)

    def _try_lock(self) -> int | None:
        """A descriptor that holds the lock; None if another process has the lock."""
        # The lock has its own file, because a scan replaces the file with the names.
        return try_lock(Path(f"{self.path}.lock"))

    def _start(self, lock: int) -> None:
        import subprocess  # noqa: PLC0415 - takes 5 ms, rarely needed

        state_home = str(self.path.parent.parent)
        task = {
            "url": self._address.url,
            "prefixes": self._prefixes.patterns,
            "state_home": state_home,
        }
        # -P: import nothing from the operator's current folder.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "qctl.ops.queues.names"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # The new process keeps the lock until it ends.
            pass_fds=[lock],
        )
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        # The password must not be on the command line, which other users can read.
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(task).encode())
        # The process may outlive us. Without a return code, Popen would warn that it still runs.
        process.returncode = 0

    def _write(self, found: QueueNames) -> None:
        pairs = [astuple(queue) for queue in found.queues]
        self._file.write(asdict(found) | {"queues": pairs})


def server_id(client: Client) -> str:
    """The id of this run of the server; empty if this Redis user may not call INFO."""
    return run_id(*client.masters()[0].pipeline([("INFO", "server")]))


def run_id(reply: Any) -> str:
    """``server_id`` from the reply to INFO, which may be an error."""
    return "" if isinstance(reply, ReplyError) else parse_info(str(reply)).get("run_id", "")


def main() -> None:
    """Entry point of the background process, which reads its task from standard input."""
    from qctl.connection.connect import connect  # noqa: PLC0415 - only this process makes a client

    task = json.load(sys.stdin)
    address, client = connect(task["url"], start=False)
    prefixes = parse_prefixes(task["prefixes"])
    QueueNameCache(Path(task["state_home"]), address, prefixes).scan(client)


if __name__ == "__main__":
    main()
