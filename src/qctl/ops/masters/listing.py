"""All masters of this user on this host, running and stopped, and their logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from qctl.errors import NotFoundError, QctlError
from qctl.manage.logs import read_new, read_tail
from qctl.manage.qctl.manager import Qctl
from qctl.manage.qctl.state import MasterFolder, MasterState, master_names
from qctl.ops.times import utc_datetime

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class MasterProcess:
    """A worker process of a running master.

    Args:
        slot: the number of the process in the master, from 0. A replacement gets the same number.
        status: ``launching``, ``online`` or ``stopping``.
        pid, started_at_ms, rss_bytes: None while the slot has no process.
        restarts: how often the slot's process was replaced.
        busy: jobs that the process runs now.
        done: jobs that ended in this process.
    """

    slot: int
    status: str
    pid: int | None
    started_at_ms: int | None
    restarts: int
    busy: int
    done: int
    rss_bytes: int | None
    queues: list[str]


@dataclass(frozen=True, slots=True)
class Master:
    """A master and its state now.

    Args:
        target: ``qctl:NAME``.
        status: ``launching``, ``online``, ``stopping``, ``stuck`` (runs and does not answer),
            ``stopped``, or ``unknown`` (its state cannot be read).
        pid, started_at: None if the master does not run.
        apps: each as ``module:attribute``.
        cwd: the master's working folder; None if unknown.
        processes: empty if the master does not run or does not answer.
        leaving: pids of replaced processes that still finish jobs.
    """

    name: str
    target: str
    status: str
    pid: int | None
    started_at: datetime | None
    apps: tuple[str, ...]
    cwd: str | None
    processes: tuple[MasterProcess, ...]
    leaving: tuple[int, ...]


def list_masters(state_home: Path) -> list[Master]:
    """The masters of this user on this host, by name; ``state_home`` is qctl's folder for state."""
    return [_read(MasterFolder(state_home, name)) for name in master_names(state_home)]


def _read(folder: MasterFolder) -> Master:
    state, running = folder.read(), folder.running()
    answer = None
    if running is not None:
        try:
            answer = folder.ask({"do": "state"})
        except QctlError:
            answer = {"stuck": True}
    return Master(
        name=folder.name,
        target=f"qctl:{folder.name}",
        status=_status(state, answer),
        pid=running.pid if running else None,
        started_at=utc_datetime(running.started_at_s * 1000) if running else None,
        apps=state.apps if state else (),
        cwd=state.cwd if state else None,
        processes=tuple(map(_process, (answer or {}).get("slots") or ())),
        leaving=tuple((answer or {}).get("leaving") or ()),
    )


def _status(state: MasterState | None, answer: dict[str, Any] | None) -> str:
    if state is None:
        return "unknown"
    if answer is None:
        return "stopped"
    if answer.get("stuck"):
        return "stuck"
    if answer.get("stopping"):
        return "stopping"
    return "online" if answer.get("ready") else "launching"


def _process(row: dict[str, Any]) -> MasterProcess:
    # A master of a newer version of qctl may report more fields.
    return MasterProcess(**{field.name: row[field.name] for field in fields(MasterProcess)})


def read_logs(state_home: Path, name: str, lines: int, *, follow: bool) -> Iterator[list[str]]:
    """The last lines of a master's log, at most 64 KiB; with ``follow``, then each new line.

    Raises:
        NotFoundError: there is no master of this name, or it has no log.
    """
    folder = MasterFolder(state_home, name)
    if not folder.log.exists():
        if folder.read() is not None:
            raise NotFoundError(f"qctl:{name} has no log", why=f"{folder.log} does not exist")
        raise Qctl(state_home).not_running(name)
    rows, end = read_tail(folder.log)
    yield rows[-lines:] if lines else []
    while follow:
        rows, end = read_new(folder.log, end)
        if rows:
            yield rows
        else:
            time.sleep(_POLL_S)
