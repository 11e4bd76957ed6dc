"""The names of the queues, cached where finding them is slow.

Redis keeps no list of queues: they are found by a SCAN of every key of the database (wire format
2.4), which takes seconds where there are ten million keys. A small database is scanned each time. A
slow scan leaves the names in a file of the state folder; for half an hour commands take them from
there, add the queues that workers are connected to, and start the next scan in the background.

Only names are cached: what is shown of a queue is read from Redis each time, so a queue that has
gone is not shown. A new queue without a worker is missing until the next scan; so every command
that shows cached names says so, and how old they are. A cache is valid for one run of one server:
if another answers at the same address, as through a tunnel, the database is scanned again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qctl.connection.address import Address, Client
from qctl.connection.info import parse_info
from qctl.errors import ReplyError
from qctl.wire.read.discovery import discover

# Names are cached if the scan took longer.
SLOW_SCAN_S = 0.25
# Older names are not used.
MAX_AGE_S = 1800.0
# The pause after a scan, in multiples of the time that it took.
PAUSE_FACTOR = 30
# Of a file's name, in bytes; file systems allow 255.
_MAX_FILE_NAME = 150


@dataclass(frozen=True, slots=True)
class QueueNames:
    """The names of all queues under a prefix, sorted.

    Args:
        scanned_at_s: when the scan that found them began, epoch seconds.
        took_s: how long it took.
        server: the id of the server that was scanned; empty where it is unknown.
        is_cached: whether they come from an earlier scan.
    """

    names: tuple[str, ...]
    scanned_at_s: float
    took_s: float
    server: str = ""
    is_cached: bool = False

    def including(self, names: Iterable[str]) -> QueueNames:
        """With names found elsewhere, some of which may not be names of queues (trap T6)."""
        more = {name for name in names if ":" not in name}
        return replace(self, names=tuple(sorted(more.union(self.names))))

    @property
    def age_s(self) -> float:
        return max(time.time() - self.scanned_at_s, 0.0)

    @property
    def is_scan_due(self) -> bool:
        return self.age_s > min(PAUSE_FACTOR * self.took_s, MAX_AGE_S / 2)


class QueueNameCache:
    """The cached names of one prefix of one Redis, for one Redis user.

    Args:
        state_home: qctl's folder for state.
        address: of the Redis; the password is in neither the file nor its name.
    """

    def __init__(self, state_home: Path, address: Address, prefix: str) -> None:
        self._address = address
        self._prefix = prefix
        # A long file name is cut, so the content says whose names they are.
        self._about = [str(address), prefix]
        self.path = state_home / "queues" / _file_name(self._about)

    def get(self, client: Client) -> QueueNames:
        """The cached names of this run of this server, else those of a scan."""
        cached = self.read()
        if cached is not None and cached.server == server_id(client):
            return cached
        return self.scan(client)

    def read(self) -> QueueNames | None:
        """The cached names; None where there are none, or only old ones. Does not ask Redis."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, OverflowError):
            record = json.loads(text)
            found = QueueNames(
                names=tuple(map(str, record["names"])),
                scanned_at_s=float(record["scanned_at_s"]),
                took_s=float(record["took_s"]),
                server=str(record["server"]),
                is_cached=True,
            )
            # A clock that was set back must not keep old names alive.
            is_current = -1.0 < time.time() - found.scanned_at_s < MAX_AGE_S
            if record["about"] == self._about and is_current:
                return found
        return None

    def scan(self, client: Client) -> QueueNames:
        """The names by a scan of all keys, now; cached if that is slow."""
        at_s, began = time.time(), time.monotonic()
        names = tuple(discover(client, self._prefix))
        found = QueueNames(names, at_s, time.monotonic() - began)
        # If the file cannot be written, the next command scans again.
        with contextlib.suppress(OSError):
            if found.took_s > SLOW_SCAN_S:
                found = replace(found, server=server_id(client))
                other = self.read()
                # Another process may have begun a scan later and ended it sooner.
                if other is None or other.scanned_at_s <= found.scanned_at_s:
                    self._write(found)
            else:
                self.path.unlink(missing_ok=True)
        return found

    def scan_in_background(self) -> None:
        """Start a process that scans, unless one is running."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._try_lock()
            if lock is None:
                return
            try:
                self._start(lock)
            finally:
                os.close(lock)

    def _try_lock(self) -> int | None:
        """A descriptor that holds the lock; None when another process has it."""
        # A file of its own, since the names' file is replaced.
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _start(self, lock: int) -> None:
        import subprocess  # noqa: PLC0415 - 5 ms, and rarely needed

        state_home = str(self.path.parent.parent)
        task = {"url": self._address.url, "prefix": self._prefix, "state_home": state_home}
        # -P: nothing is imported from the folder that the operator happens to be in.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "qctl.ops.queues.names"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # The child keeps the lock until it ends.
            pass_fds=[lock],
        )
        # On stdin: others can read a command line, and with it the password.
        process.communicate(json.dumps(task).encode())
        # It outlives us on purpose; without this, Popen would complain that it still runs.
        process.returncode = 0

    def _write(self, found: QueueNames) -> None:
        record = {"about": self._about} | asdict(found)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(record, file)
            draft.replace(self.path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def server_id(client: Client) -> str:
    """The id of this run of the server; empty where the user may not ask."""
    return run_id(*client.masters()[0].pipeline([("INFO", "server")]))


def run_id(reply: Any) -> str:
    """``server_id`` from the reply to INFO, which may be an error."""
    return "" if isinstance(reply, ReplyError) else parse_info(str(reply)).get("run_id", "")


def _file_name(about: list[str]) -> str:
    return quote(" ".join(about), safe="", errors="surrogateescape")[-_MAX_FILE_NAME:]


def main() -> None:
    """Entry of the background process; its task is on standard input."""
    from qctl.connection.connect import connect  # noqa: PLC0415 - only this process makes a client

    task = json.load(sys.stdin)
    address, client = connect(task["url"], start=False)
    QueueNameCache(Path(task["state_home"]), address, task["prefix"]).scan(client)


if __name__ == "__main__":
    main()
