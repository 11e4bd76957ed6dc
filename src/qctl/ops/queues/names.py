"""Which queues exist, remembered where finding out is dear.

Redis keeps no list of queues: they are found by a pass over every key of the database (wire format
2.4), which takes seconds where there are ten millions of them, whoever they belong to. A small
database is passed over each time. A pass that took long leaves the names in a file of the state
folder; for half an hour looks take them from there, add the queues that workers are connected to,
and have the next pass made in the background.

Only names are remembered: what is shown of a queue is read from Redis each time, so one that has
gone is not shown. A new queue without any worker is missing until the next pass; whoever shows
remembered names therefore says so, and how old they are. They are those of one running server: if
another answers at the same address, as through a tunnel, or the same one restarted, a pass is made.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qctl.connection.address import Address, Client
from qctl.connection.info import parse_info
from qctl.errors import ReplyError
from qctl.wire.read.discovery import discover

# A pass that takes no longer is made each time.
DEAR_S = 0.25
# Names older than this are not used.
MOST_AGE_S = 1800.0
# At most this part of the time is spent on passes, unless names would get too old meanwhile.
LEAST_PAUSE = 30
# Of a file's name, in bytes; file systems allow 255.
_MOST_NAME = 150


@dataclass(frozen=True, slots=True)
class Known:
    """The names of all queues under a prefix, sorted.

    Args:
        passed_at_s: when the pass began that found them, epoch seconds.
        took_s: how long it took.
        server: the id of the server that was passed over; empty where it does not tell.
        is_remembered: whether it was an earlier pass than this look.
    """

    names: tuple[str, ...]
    passed_at_s: float
    took_s: float
    server: str = ""
    is_remembered: bool = False

    def with_more(self, names: Iterable[str]) -> Known:
        """With names heard of elsewhere, which may not be queues' (trap T6)."""
        more = {name for name in names if ":" not in name}
        return replace(self, names=tuple(sorted(more.union(self.names))))

    @property
    def age_s(self) -> float:
        return max(time.time() - self.passed_at_s, 0.0)

    @property
    def is_due(self) -> bool:
        """Whether the time has come for the next pass."""
        return self.age_s > min(LEAST_PAUSE * self.took_s, MOST_AGE_S / 2)


class Memory:
    """The names known of one prefix of one Redis, for one user of it.

    Args:
        state_home: qctl's folder for state.
        address: of the Redis; neither the file nor its name has the password.
    """

    def __init__(self, state_home: Path, address: Address, prefix: str) -> None:
        self._address = address
        self._prefix = prefix
        # Names too long are cut, so the file says itself what it is about.
        self._about = [str(address), prefix]
        self.path = state_home / "queues" / _file_name(self._about)

    def names(self, client: Client) -> Known:
        """The names as remembered of this very server, else by a pass."""
        known = self.recall()
        if known is not None and known.server == server_id(client):
            return known
        return self.look(client)

    def recall(self) -> Known | None:
        """What the last pass found, if it took long and is not too old; costs Redis nothing."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        import json  # noqa: PLC0415 - only where a pass is dear

        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, OverflowError):
            record = json.loads(text)
            found = Known(
                names=tuple(map(str, record["names"])),
                passed_at_s=float(record["passed_at_s"]),
                took_s=float(record["took_s"]),
                server=str(record["server"]),
                is_remembered=True,
            )
            # A clock that was set back must not keep old names alive.
            is_current = -1.0 < time.time() - found.passed_at_s < MOST_AGE_S
            if record["about"] == self._about and is_current:
                return found
        return None

    def look(self, client: Client) -> Known:
        """A pass over all keys, now; remembered if it took long."""
        at_s, began = time.time(), time.monotonic()
        names = tuple(discover(client, self._prefix))
        found = Known(names, at_s, time.monotonic() - began)
        # What cannot be remembered costs the next look its time, and nothing else.
        with contextlib.suppress(OSError):
            if found.took_s > DEAR_S:
                found = replace(found, server=server_id(client))
                earlier = self.recall()
                # One that began later, and ended sooner, knows more.
                if earlier is None or earlier.passed_at_s <= found.passed_at_s:
                    self._write(found)
            else:
                self.path.unlink(missing_ok=True)
        return found

    def look_in_background(self) -> None:
        """Have a pass made by a process of its own, unless one is at it."""
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
        import fcntl  # noqa: PLC0415 - rarely needed

        # Beside the names and not on them: those are replaced, with their lock.
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _start(self, lock: int) -> None:
        import json  # noqa: PLC0415
        import subprocess  # noqa: PLC0415

        state_home = str(self.path.parent.parent)
        task = {"url": self._address.url, "prefix": self._prefix, "state_home": state_home}
        # -P: nothing is imported from the folder that the operator happens to be in.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "qctl.ops.queues.names"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # The lock is held until the last process that has it open ends.
            pass_fds=[lock],
        )
        # Not on its command line, where others would see the password.
        process.communicate(json.dumps(task).encode())
        # It outlives us on purpose; without this, Popen would complain that it still runs.
        process.returncode = 0

    def _write(self, found: Known) -> None:
        import json  # noqa: PLC0415

        record: dict[str, Any] = {
            "about": self._about,
            "passed_at_s": found.passed_at_s,
            "took_s": found.took_s,
            "server": found.server,
            "names": found.names,
        }
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
    """What tells one run of a server from another; empty where a user may not know."""
    try:
        text = str(client.masters()[0].call("INFO", "server"))
    except ReplyError:
        return ""
    return run_id(text)


def run_id(info: str) -> str:
    """``server_id`` by what INFO has answered."""
    return parse_info(info).get("run_id", "")


def _file_name(about: list[str]) -> str:
    return quote(" ".join(about), safe="", errors="surrogateescape")[-_MOST_NAME:]


def main() -> None:
    """Entry of the process in the background; its task is on standard input."""
    import json  # noqa: PLC0415

    from qctl.connection.connect import connect  # noqa: PLC0415 - this process alone makes a client

    task = json.load(sys.stdin)
    address, client = connect(task["url"], start=False)
    Memory(Path(task["state_home"]), address, task["prefix"]).look(client)


if __name__ == "__main__":
    main()
