"""The state folder of a background master, and requests to that master.

Each master has a folder ``$XDG_STATE_HOME/qctl/workers/NAME`` that only this user may enter:

- ``state.json``: the master's pid, apps and options (``MasterState``);
- ``lock``: locked while the master runs;
- ``log``: the output of the master and its workers;
- ``control.sock``: takes requests, one JSON object per line, each answered by one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from qctl.errors import FailedError, ManagerUnreachableError, UnreachableError, UsageError
from qctl.manage.host import is_running
from qctl.manage.numbers import MAX_NUMBER
from qctl.private import make_folder, open_file, try_lock

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
# The longest path of a unix socket on macOS; Linux allows more.
_MAX_SOCKET_PATH_BYTES = 103
_MAX_ANSWER_BYTES = 4_000_000
_CHUNK = 65_536
ASK_TIMEOUT_S = 5.0
# How long a master waits for a new process to be ready.
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class MasterState:
    """What a master writes about itself.

    Args:
        pid, birth_s: identify the master's process; ``birth_s`` is from ``read_birth_s``.
        started_at_s: the start time to show, epoch seconds.
        apps: each as ``module`` or ``module:attribute``.
        cwd: the master's working folder.
        processes: the number of worker processes.
        grace_s: how many seconds a stop waits for running jobs; 0 for no limit.
    """

    name: str
    pid: int
    birth_s: float
    started_at_s: float
    apps: tuple[str, ...]
    cwd: str
    processes: int
    grace_s: float


_STATE_TYPES: Mapping[str, type | UnionType] = {
    **{"name": str, "pid": int, "birth_s": int | float, "started_at_s": int | float},
    **{"apps": list, "cwd": str, "processes": int, "grace_s": int | float},
}
# The types in a row of ``slots``, which ``ops/masters/listing.py`` shows.
_SLOT_TYPES: Mapping[str, type | UnionType] = {
    **{"slot": int, "status": str, "pid": int | None, "started_at_ms": int | None},
    **{"restarts": int, "busy": int, "done": int, "rss_bytes": int | None, "queues": list},
}
_REPLACED_TYPES: Mapping[str, type | UnionType] = {
    **{"slot": int, "old_pid": int | None, "new_pid": int},
}


@dataclass(frozen=True, slots=True)
class Replaced:
    """A new process in a slot, which is a numbered place for one process in a master.

    Args:
        old_pid: None if the slot was empty.
    """

    slot: int
    old_pid: int | None
    new_pid: int


def check_name(name: str) -> None:
    """Check the name of a master.

    Raises:
        UsageError: the name is not valid.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a worker",
            why="a name begins with a letter or a digit, and has at most 40 characters, each one "
            "of A-Z a-z 0-9 . _ -",
            hint="qctl worker start emails app:worker",
        )


class MasterFolder:
    """The state folder of a master.

    Args:
        state_home: qctl's folder for state.
        name: the master's name.

    Raises:
        UsageError: the name is not valid.
    """

    def __init__(self, state_home: Path, name: str) -> None:
        check_name(name)
        self.name = name
        self.path = state_home / "workers" / name
        self._state = self.path / "state.json"
        self.log = self.path / "log"
        self.socket = self.path / "control.sock"

    def make(self) -> None:
        """Create the folder, for this user only.

        Raises:
            FailedError: the folder cannot be created.
            UsageError: the folder's path is too long for a socket.
        """
        if len(os.fsencode(self.socket)) > _MAX_SOCKET_PATH_BYTES:
            raise UsageError(
                "the path of the state folder is too long for a socket",
                why=str(self.socket),
                hint="set XDG_STATE_HOME to a shorter path",
            )
        try:
            make_folder(self.path, self.path.parents[1])
        except OSError as error:
            raise FailedError(
                f"the state folder {self.path} cannot be created", why=error.strerror or str(error)
            ) from None

    def try_lock(self) -> int | None:
        """A descriptor that holds the lock, for a new master; None if a master holds the lock."""
        return try_lock(self.path / "lock")

    def write(self, state: MasterState) -> None:
        """Write the state file."""
        draft = self.path / "state.json.new"
        descriptor = open_file(draft, os.O_TRUNC | os.O_WRONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            # Without this, a power cut may leave an empty file.
            os.fsync(file.fileno())
        draft.replace(self._state)

    def raw_state(self) -> bytes | None:
        """The bytes of the state file; None if it cannot be read."""
        with contextlib.suppress(OSError):
            return self._state.read_bytes()
        return None

    def restore(self, raw: bytes | None) -> None:
        """Put back what ``raw_state`` returned."""
        if raw is None:
            self._state.unlink(missing_ok=True)
        else:
            with os.fdopen(open_file(self._state, os.O_TRUNC | os.O_WRONLY), "wb") as file:
                file.write(raw)

    def read(self) -> MasterState | None:
        """The state of the master that runs or ran last; None without a readable state file."""
        try:
            row = json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not _has_types(row, _STATE_TYPES) or not all(
            isinstance(app, str) for app in row["apps"]
        ):
            return None
        return MasterState(
            **{name: row[name] for name in _STATE_TYPES} | {"apps": tuple(row["apps"])}
        )

    def running(self) -> MasterState | None:
        """The state of the master; None if it does not run."""
        state = self.read()
        return state if state and is_running(state.pid, state.birth_s) else None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer, up to ``ASK_TIMEOUT_S``.

        Raises:
            UnreachableError: the master does not run, or does not answer in time.
        """
        with contextlib.closing(Request(self, request)) as sent:
            answer = sent.poll(ASK_TIMEOUT_S)
        if answer is None:
            raise ManagerUnreachableError(
                f"the master of qctl:{self.name} does not answer",
                why=f"no answer within {ASK_TIMEOUT_S:g} s",
                hint=f"qctl worker logs {self.name}",
            )
        return answer


class Request:
    """A request that was sent; the master carries it out even if nobody waits for the answer.

    The constructor and ``poll`` raise ``UnreachableError`` if the master does not accept the
    request, ends before it answers, or gives an answer that is not understood.
    """

    def __init__(self, folder: MasterFolder, request: Mapping[str, Any]) -> None:
        self._name = folder.name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._received = b""
        try:
            self._socket.settimeout(ASK_TIMEOUT_S)
            self._socket.connect(str(folder.socket))
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            self._socket.close()
            raise self._unreachable(error.strerror or str(error)) from None

    def poll(self, timeout_s: float = 0.0) -> dict[str, Any] | None:
        """The answer; None if no further byte arrives for ``timeout_s`` seconds."""
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._received:
            try:
                data = self._socket.recv(_CHUNK)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError as error:
                raise self._unreachable(error.strerror or str(error)) from None
            if not data or len(self._received) > _MAX_ANSWER_BYTES:
                why = "its answer is too long" if data else "it ended before it answered"
                raise self._unreachable(why)
            self._received += data
        try:
            answer = json.loads(self._received)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or not _is_understood(answer):
            raise self._unreachable("its answer is not understood")
        return answer

    def close(self) -> None:
        self._socket.close()

    def _unreachable(self, why: str) -> UnreachableError:
        return ManagerUnreachableError(
            f"the master of qctl:{self._name} cannot be reached",
            why=why,
            hint=f"qctl worker logs {self._name}",
        )


def _has_types(row: object, types: Mapping[str, type | UnionType]) -> bool:
    """Whether a row has all these fields, with values of these types; numbers are in range."""
    return isinstance(row, dict) and all(
        name in row
        and isinstance(value := row[name], kind)
        and not isinstance(value, bool)
        and (not isinstance(value, int | float) or 0 <= value <= MAX_NUMBER)
        for name, kind in types.items()
    )


def _is_understood(answer: Mapping[str, Any]) -> bool:
    """Whether the known fields of an answer have the expected types.

    Unknown fields are accepted, because a newer master may add some.
    """
    lists = [answer.get(name) or [] for name in ("slots", "leaving", "replaced", "words")]
    if not all(isinstance(each, list) for each in lists):
        return False
    slots, leaving, replaced, words = lists
    return (
        all(_has_types(row, _SLOT_TYPES) for row in slots)
        and all(_has_types({"pid": pid}, {"pid": int}) for pid in leaving)
        and all(_has_types(row, _REPLACED_TYPES) for row in replaced)
        and all(isinstance(text, str) for text in (*words, answer.get("error", "")))
        and all(isinstance(name, str) for row in slots for name in row["queues"])
    )


def master_names(state_home: Path) -> list[str]:
    """The names of all masters, running or stopped, sorted."""
    with contextlib.suppress(OSError):
        return sorted(
            entry.name
            for entry in (state_home / "workers").iterdir()
            if _NAME.fullmatch(entry.name) and (entry / "state.json").exists()
        )
    return []
