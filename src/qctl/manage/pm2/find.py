"""Finds the PM2 processes that a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qctl.errors import NotFoundError, RefusedError
from qctl.manage.missing import listed
from qctl.manage.protocol import ManagedProcess
from qctl.plurals import counted
from qctl.similar import similar_names


def select(processes: Sequence[ManagedProcess], name: str) -> Sequence[ManagedProcess]:
    """The processes with this app name, or the process with this pm_id; see ``Pm2.find``."""
    named = [process for process in processes if process.name == name]
    by_id = [process for process in processes if process.key == name]
    if named and by_id and named != by_id:
        other = by_id[0]
        raise RefusedError(
            f"pm2:{name} means two things",
            why=f"an app is named {name}, and {name} is the pm_id of {other.name}",
            hint=f"use {other.target} for the pm_id, or pm2:{named[0].key} for the app",
        )
    if len({(process.namespace, process.script, process.cwd) for process in named}) > 1:
        lines = [f"pm2:{p.key}: {p.script} in {p.cwd} (namespace {p.namespace})" for p in named]
        raise RefusedError(
            f"{name} is the name of several different apps",
            why="\n".join(lines),
            hint=f"name one process by its pm_id: pm2:{named[0].key}",
        )
    if named:
        return named
    if by_id:
        return [replace(by_id[0], target=f"pm2:{name}")]
    raise _not_found(processes, name)


def _not_found(processes: Sequence[ManagedProcess], name: str) -> NotFoundError:
    if not processes:
        return NotFoundError(
            f"PM2 has no app named {name}",
            why="PM2 manages no app at all",
            hint="start one with `pm2 start`, or set PM2_HOME to the folder of the right PM2",
        )
    inside = [process for process in processes if process.namespace == name]
    if inside:
        return NotFoundError(
            f"{name} is a namespace of PM2, not an app",
            why=f"apps in it: {targets_text(inside)}",
            hint=f"name one app: {inside[0].target}",
        )
    names = list(dict.fromkeys(process.name for process in processes))
    near = similar_names(name, names)
    return NotFoundError(
        f"PM2 has no app named {name}",
        why=f"targets: {targets_text(processes)}",
        hint=f"did you mean pm2:{near[0]}?" if near else "name one of these targets",
    )


def targets_text(processes: Sequence[ManagedProcess]) -> str:
    """The targets of processes, at most 20, each like ``pm2:worker (2 processes)``."""
    counts: dict[str, int] = {}
    for process in processes:
        counts[process.target] = counts.get(process.target, 0) + 1
    shown = [
        f"{target} ({counted(count, 'process', 'processes')})" for target, count in counts.items()
    ]
    return listed(shown)
