"""Masters of qctl's own workers in the background: where they keep state, and how to ask them.

Each has a folder ``$XDG_STATE_HOME/qctl/workers/NAME`` that only this user may enter:
``state.json`` says which process it is, ``lock`` is held as long as it lives, ``log`` has what it
and its workers print, and ``control.sock`` takes requests: one JSON object on a line, answered by
one on a line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qctl.errors import FailedError, ManagerUnreachableError, UnreachableError, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
# Of the path of a unix socket, in bytes; macOS has the least.
_MOST_PATH = 103
_MOST_ANSWER = 4_000_000
_CHUNK = 65_536
ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class MasterState:
    """A master as it wrote itself down.

    Args:
        pid, birth_s: of its process; its start as ``sockets.started_at`` tells it.
        started_at_s: the same for people, in epoch seconds.
        apps: ``module:attribute`` each.
        cwd: the folder it runs in.
        grace_s: how long running jobs may take at a stop; 0 for ever.
    """

    name: str
    pid: int
    birth_s: float
    started_at_s: float
    apps: tuple[str, ...]
    cwd: str
    processes: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class Replaced:
    """A process that a master has replaced; ``old_pid`` is None when there was none."""

    slot: int
    old_pid: int | None
    new_pid: int


def check_name(name: str) -> None:
    """See that a name will do.

    Raises:
        UsageError: it will not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a worker",
            why="a name has letters, digits, dots, dashes and underscores, 40 at most",
            hint="qctl worker start emails app:worker",
        )


class Folder:
    """What a master keeps.

    Args:
        state_home: qctl's folder for state.
        name: of the master; checked.
    """

    def __init__(self, state_home: Path, name: str) -> None:
        check_name(name)
        self.name = name
        self.path = state_home / "workers" / name

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def socket(self) -> Path:
        return self.path / "control.sock"

    def make(self) -> None:
        """Make the folder, for this user alone.

        Raises:
            FailedError, UsageError: it cannot be made, or its path is too long for a socket.
        """
        if len(os.fsencode(self.socket)) > _MOST_PATH:
            raise UsageError(
                "the path of the state folder is too long for a socket",
                why=str(self.socket),
                hint="set XDG_STATE_HOME to a shorter one",
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise FailedError(
                f"the state folder {self.path} cannot be made", why=error.strerror or str(error)
            ) from None

    def try_lock(self) -> int | None:
        """A descriptor that holds the lock, to be passed on to the master; None if it is taken."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def write(self, state: MasterState) -> None:
        """Note who the master is."""
        draft = self.path / "state.json.new"
        descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            # Else a power cut may leave an empty file under the old name.
            os.fsync(file.fileno())
        draft.replace(self.path / "state.json")

    def raw_state(self) -> bytes | None:
        """The state as it is written; None when there is none."""
        with contextlib.suppress(OSError):
            return (self.path / "state.json").read_bytes()
        return None

    def restore(self, raw: bytes | None) -> None:
        """Put back what ``raw_state`` said."""
        state = self.path / "state.json"
        if raw is None:
            state.unlink(missing_ok=True)
        else:
            state.write_bytes(raw)

    def read(self) -> MasterState | None:
        """Who the master is or was; None when there never was one."""
        try:
            row = json.loads((self.path / "state.json").read_text(encoding="utf-8"))
            return MasterState(**{**row, "apps": tuple(row["apps"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def running(self) -> MasterState | None:
        """Who the master is; None when it does not run."""
        from qctl.manage.sockets import is_running  # noqa: PLC0415 - psutil costs 30 ms

        state = self.read()
        return state if state and is_running(state.pid, state.birth_s) else None

    def ask(self, request: Mapping[str, Any], timeout_s: float = ASK_TIMEOUT_S) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            UnreachableError: the master does not run, or does not answer in time.
        """
        with contextlib.closing(Request(self, request)) as asked:
            deadline = time.monotonic() + timeout_s
            while (answer := asked.poll(max(deadline - time.monotonic(), 0.0))) is None:
                if time.monotonic() >= deadline:
                    raise ManagerUnreachableError(
                        f"the master of qctl:{self.name} does not answer",
                        why=f"no answer within {timeout_s:g} s",
                        hint=f"qctl worker logs {self.name}",
                    )
        return answer


class Request:
    """A request under way; the master goes on with it also when nobody listens.

    Raises:
        UnreachableError: nobody takes it.
    """

    def __init__(self, folder: Folder, request: Mapping[str, Any]) -> None:
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
        """The answer, None when there is none yet.

        Raises:
            UnreachableError: the master has gone, or says what is not understood.
        """
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._received:
            try:
                data = self._socket.recv(_CHUNK)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError as error:
                raise self._unreachable(error.strerror or str(error)) from None
            if not data or len(self._received) > _MOST_ANSWER:
                raise self._unreachable("it ended before it answered")
            self._received += data
        try:
            answer = json.loads(self._received)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
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


def names(state_home: Path) -> list[str]:
    """Names of the masters that there are or were."""
    with contextlib.suppress(OSError):
        return sorted(
            entry.name
            for entry in (state_home / "workers").iterdir()
            if _NAME.fullmatch(entry.name) and (entry / "state.json").exists()
        )
    return []
