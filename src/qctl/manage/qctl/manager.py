"""qctl's own masters as a process manager: the ``qctl:`` targets.

A restart of one of their processes has no gap: the new one takes jobs before the old one leaves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qctl.errors import NotFoundError, UnreachableError
from qctl.manage.protocol import ManagedProcess, RestartCall
from qctl.manage.qctl.state import Folder, MasterState, Request, names

# In place of "for ever".
_FOR_EVER_MS = 86_400_000
# What a master allows a new process to get ready.
READY_TIMEOUT_MS = 60_000
_TAIL_BYTES = 64 * 1024
_CHUNK = 1024 * 1024
# From a master's last answer to its end.
_ENDING_S = 10.0
_POLL_S = 0.05


class Qctl:
    """The masters of this user on this host.

    Args:
        state_home: qctl's folder for state.
    """

    kind = "qctl"

    def __init__(self, state_home: Path) -> None:
        self._home = state_home

    def processes(self) -> Sequence[ManagedProcess]:
        """All processes of all masters that run, by name and slot.

        A master that does not answer is left out: what it has cannot be told.
        """
        found: list[ManagedProcess] = []
        for name in names(self._home):
            try:
                found += self._of(name)
            except UnreachableError:
                continue
        return found

    def process(self, key: str) -> ManagedProcess | None:
        """The process ``NAME/SLOT``; None if its master does not run.

        Raises:
            UnreachableError: its master runs and does not answer.
        """
        name = key.partition("/")[0]
        folder = Folder(self._home, name)
        until = time.monotonic() + _ENDING_S
        while folder.running():
            try:
                return next((each for each in self._of(name) if each.key == key), None)
            except UnreachableError:
                # One that is about to end does not answer any more.
                if time.monotonic() > until:
                    raise
            time.sleep(_POLL_S)
        return None

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """The processes of one master; ``NAME/SLOT`` means one of them.

        Raises:
            NotFoundError: there is none, or it does not run; the message lists those that run.
            UnreachableError: it runs and does not answer.
        """
        master, _, slot = name.partition("/")
        if master not in names(self._home) or Folder(self._home, master).running() is None:
            raise self.not_running(master)
        processes = self._of(master)
        chosen = [p for p in processes if not slot or p.key == name]
        if not chosen:
            raise NotFoundError(
                f"qctl:{master} has no process {slot}",
                why=f"it has: {', '.join(p.key for p in processes)}",
                hint=f"name one of these, or qctl:{master} for all",
            )
        return [replace(p, target=f"qctl:{name}") for p in chosen]

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """Ask the master to replace this one process, and return at once.

        Raises:
            UnreachableError: the master does not take the request.
        """
        master, _, slot = process.key.partition("/")
        return _Replacement(
            Request(Folder(self._home, master), {"do": "replace", "slot": int(slot)})
        )

    def not_running(self, name: str) -> NotFoundError:
        """The error for a name that no running master has."""
        known = names(self._home)
        running = [other for other in known if Folder(self._home, other).running()]
        why = f"running: {', '.join(f'qctl:{other}' for other in running) or 'none'}"
        start = self._start_command(name) if name in known else None
        if start is None:
            return NotFoundError(
                f"there is no worker qctl:{name}", why=why, hint="qctl worker list"
            )
        return NotFoundError(f"qctl:{name} is stopped", why=why, hint=start)

    def stopped(self) -> Sequence[tuple[str, str]]:
        """Names of the masters that do not run, each with the command that starts it again."""
        found = [
            (name, self._start_command(name))
            for name in names(self._home)
            if Folder(self._home, name).running() is None
        ]
        return [(name, start) for name, start in found if start is not None]

    def _start_command(self, name: str) -> str | None:
        state = Folder(self._home, name).read()
        if state is None:
            return None
        several = f" --processes {state.processes}" if state.processes > 1 else ""
        return f"qctl worker start {name} {' '.join(state.apps)}{several}"

    def _of(self, name: str) -> list[ManagedProcess]:
        folder = Folder(self._home, name)
        answer = folder.ask({"do": "state"})
        state = folder.read()
        return [_process(folder, state, answer, row) for row in answer.get("slots", ())]


class _Replacement:
    """A replacement under way."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._is_done = False
        self._error: str | None = None

    def error(self) -> str | None:
        """Why it failed; None while it is at work, and when it succeeded."""
        if not self._is_done:
            try:
                answer = self._request.poll()
            except UnreachableError:
                # No refusal; the caller watches the process itself.
                answer = {}
            if answer is not None:
                self._is_done = True
                self._error = refusal(answer)
                self._request.close()
        return self._error

    def close(self) -> None:
        """Stop listening; the master goes on."""
        self._is_done = True
        self._request.close()


def refusal(answer: dict[str, Any]) -> str | None:
    """Why a master refused, with the error that the new process died of; None if it did not."""
    if "error" not in answer:
        return None
    words = answer.get("words") or ()
    return "\n".join((": ".join((answer["error"], *words[:1])), *(f"    {w}" for w in words[1:])))


def tail(path: Path, lines: int, start: int = 0) -> tuple[list[str], int]:
    """The last lines of a log behind byte ``start``, at most 64 KiB, and where it ends."""
    if lines <= 0:
        return [], path.stat().st_size if path.exists() else start
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            first = max(start, end - _TAIL_BYTES)
            file.seek(first)
            data = file.read(end - first)
    except OSError:
        return [], start
    rows = data.decode(errors="replace").removesuffix("\n").split("\n") if data else []
    if first > start and len(rows) > 1:
        del rows[0]
    return rows[-lines:], end


def more(path: Path, start: int) -> tuple[list[str], int]:
    """The complete lines behind byte ``start``, some at a time, and where they end.

    A log that has become shorter was cut; it is read from its beginning.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < start:
                start = 0
            file.seek(start)
            data = file.read(_CHUNK)
    except OSError:
        return [], start
    complete = data if len(data) == _CHUNK and b"\n" not in data else data[: data.rfind(b"\n") + 1]
    text = complete.decode(errors="replace").removesuffix("\n")
    return (text.split("\n") if complete else []), start + len(complete)


def _process(
    folder: Folder, state: MasterState | None, answer: dict[str, Any], row: dict[str, Any]
) -> ManagedProcess:
    return ManagedProcess(
        target=f"qctl:{folder.name}",
        key=f"{folder.name}/{row['slot']}",
        name=folder.name,
        namespace="",
        status="stopping" if answer.get("stopping") else row["status"],
        pid=row["pid"],
        started_at_ms=row["started_at_ms"],
        restarts=row["restarts"],
        mode="fork",
        stop_signal="SIGTERM",
        # One that is replaced may take its time; its grace is for a stop.
        kill_timeout_ms=_FOR_EVER_MS,
        ready_timeout_ms=READY_TIMEOUT_MS,
        cpu_percent=None,
        rss_bytes=row["rss_bytes"],
        script=" ".join(state.apps) if state else "",
        cwd=state.cwd if state else "",
        error_log=folder.log,
    )
