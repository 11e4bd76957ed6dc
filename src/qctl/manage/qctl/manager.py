"""The manager for ``qctl:`` targets: masters and their processes.

A master is a background process of qctl; its processes run workers. In a restart, the new
process takes jobs before the old process exits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qctl.errors import NotFoundError, UnreachableError
from qctl.manage.protocol import NO_LIMIT_MS, ManagedProcess, RestartCall
from qctl.manage.qctl.state import (
    READY_TIMEOUT_S,
    MasterFolder,
    MasterState,
    Request,
    master_names,
)

# A master that is ending may run this long without answering.
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
        """See ``Manager``; sorted by key. Skips masters that do not answer."""
        found: list[ManagedProcess] = []
        for name in master_names(self._home):
            try:
                found += self._processes_of(name)
            except UnreachableError:
                continue
        return found

    def process(self, key: str) -> ManagedProcess | None:
        """See ``Restarter``; the key is ``NAME/SLOT``: the slot is the process's number, from 0."""
        name = key.partition("/")[0]
        folder = MasterFolder(self._home, name)
        until = time.monotonic() + _ENDING_S
        while folder.running():
            try:
                return next((each for each in self._processes_of(name) if each.key == key), None)
            except UnreachableError:
                # A master that is ending does not answer.
                if time.monotonic() > until:
                    raise
            time.sleep(_POLL_S)
        return None

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """See ``Manager``. ``NAME`` means all processes of a master, ``NAME/SLOT`` means one."""
        master, _, slot = name.partition("/")
        known = master_names(self._home)
        if master not in known or not MasterFolder(self._home, master).running():
            raise self.not_running(master)
        processes = self._processes_of(master)
        chosen = [p for p in processes if not slot or p.key == name]
        if not chosen:
            raise NotFoundError(
                f"qctl:{master} has no process {slot}",
                why=f"it has: {', '.join(p.key for p in processes)}",
                hint=f"name one of these, or qctl:{master} for all of them",
            )
        return [replace(p, target=f"qctl:{name}") for p in chosen]

    def targets(self) -> Sequence[str]:
        """See ``Manager``; stopped masters are included."""
        return [f"qctl:{name}" for name in master_names(self._home)]

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """See ``Restarter``: ask the master to replace this one process."""
        master, _, slot = process.key.partition("/")
        folder = MasterFolder(self._home, master)
        return _Replacement(Request(folder, {"do": "replace", "slot": int(slot)}))

    def not_running(self, name: str) -> NotFoundError:
        """The error for a name that no running master has."""
        known = master_names(self._home)
        running = [other for other in known if MasterFolder(self._home, other).running()]
        why = f"running: {', '.join(f'qctl:{other}' for other in running) or 'none'}"
        start = self._start_command(name) if name in known else None
        if start is None:
            return NotFoundError(
                f"there is no worker qctl:{name}", why=why, hint="qctl worker list"
            )
        return NotFoundError(f"qctl:{name} is stopped", why=why, hint=start)

    def stopped(self) -> Sequence[tuple[str, str]]:
        """Name and start command of each stopped master; --processes is the command's only flag."""
        found = [
            (name, self._start_command(name))
            for name in master_names(self._home)
            if MasterFolder(self._home, name).running() is None
        ]
        return [(name, start) for name, start in found if start is not None]

    def _start_command(self, name: str) -> str | None:
        state = MasterFolder(self._home, name).read()
        if state is None:
            return None
        several = f" --processes {state.processes}" if state.processes > 1 else ""
        return f"qctl worker start {name} {' '.join(state.apps)}{several}"

    def _processes_of(self, name: str) -> list[ManagedProcess]:
        folder = MasterFolder(self._home, name)
        answer = folder.ask({"do": "state"})
        state = folder.read()
        return [_process(folder, state, answer, row) for row in answer.get("slots") or ()]


class _Replacement:
    """A ``RestartCall`` that asks a master to replace one process."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._is_done = False
        self._error: str | None = None

    def error(self) -> str | None:
        if not self._is_done:
            try:
                answer = self._request.poll()
            except UnreachableError:
                # A lost answer is no refusal: the caller watches the process anyway.
                answer = {}
            if answer is not None:
                self._is_done = True
                self._error = refusal(answer)
                self._request.close()
        return self._error

    def close(self) -> None:
        self._is_done = True
        self._request.close()


def refusal(answer: dict[str, Any]) -> str | None:
    """Why a master refused, with the log lines of the new process; None if it did not refuse."""
    if "error" not in answer:
        return None
    lines = answer.get("words") or ()
    first = ": ".join((answer["error"], *lines[:1]))
    return "\n".join((first, *(f"    {line}" for line in lines[1:])))


def _process(
    folder: MasterFolder, state: MasterState | None, answer: dict[str, Any], row: dict[str, Any]
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
        # A process that is replaced has no time limit: grace_s applies only when the master stops.
        kill_timeout_ms=NO_LIMIT_MS,
        ready_timeout_ms=int(READY_TIMEOUT_S * 1000),
        cpu_percent=None,
        rss_bytes=row["rss_bytes"],
        script=" ".join(state.apps) if state else "",
        cwd=state.cwd if state else "",
        error_log=folder.log,
    )
