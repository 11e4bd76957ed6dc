"""Reads ``[commands.NAME]``: the commands with which a user's app is checked and restarted."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qctl.config.files import Layer, Origin, path_named_in
from qctl.durations import duration_s
from qctl.errors import UsageError

_LISTS = ("status", "restart", "stop", "start")


@dataclass(frozen=True, slots=True)
class AppCommands:
    """The commands of one app. Each is a program with arguments, and runs without a shell.

    Args:
        name: the app's name, as in ``command:NAME``.
        status: exits with 0 if the app runs. Each line that it prints may be a pid of the app.
        restart: restarts the app; empty if the config has none.
        stop, start: qctl does not run these. If ``restart`` is empty, messages suggest a
            ``restart`` that runs ``stop`` and then ``start``.
        grace_s: seconds from the stop signal of ``restart`` to its SIGKILL; None if unknown.
        signal: the stop signal that ``restart`` sends, e.g. ``SIGTERM``; "" if unknown.
    """

    name: str
    status: tuple[str, ...]
    restart: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    grace_s: float | None = None
    signal: str = ""


def find_commands(layers: Sequence[Layer], origins: dict[str, Origin]) -> tuple[AppCommands, ...]:
    """The commands of all apps. The first layer that names an app defines all of its commands.

    Args:
        origins: receives the origin of each ``commands.NAME``.

    Raises:
        UsageError: a value is not valid, or another user may have written the commands.
    """
    found = {}
    for layer in layers:
        for name in layer.table("commands"):
            if name not in found:
                layer.require_own(f"[commands.{name}]", f"commands.{name}")
                found[name] = _parse(name, layer, layer.table("commands", name))
                origins[f"commands.{name}"] = layer.origin(f"commands.{name}.status")
    return tuple(found.values())


def _parse(name: str, layer: Layer, table: Mapping[str, object]) -> AppCommands:
    lists = {key: _argument_list(name, key, layer, table[key]) for key in _LISTS if key in table}
    if "status" not in lists:
        raise UsageError(
            f"config: [commands.{name}] has no status",
            why="qctl would not know whether the app runs",
            hint='status = ["…"], a command that exits with 0 if the app runs',
        )
    return AppCommands(
        name,
        **lists,
        grace_s=_grace_s(name, table.get("grace")),
        signal=_signal(name, table.get("signal")),
    )


def argument_list(value: object) -> tuple[str, ...] | None:
    """A program and its arguments from the config; None if the value is anything else."""
    if not isinstance(value, list) or not value:
        return None
    return tuple(value) if all(isinstance(word, str) and word for word in value) else None


def _argument_list(name: str, key: str, layer: Layer, value: object) -> tuple[str, ...]:
    words = argument_list(value)
    if words is None:
        raise UsageError(
            f"config: {key} of [commands.{name}] must be a list of strings",
            hint=f'{key} = ["program", "argument"]; for shell syntax: ["sh", "-c", "…"]',
        )
    program, *arguments = words
    # A relative path starts at the config's folder, whatever folder qctl is called in.
    if "/" in program:
        program = str(path_named_in(layer.path, program))
    return (program, *arguments)


def _grace_s(name: str, value: object) -> float | None:
    if value is None:
        return None
    seconds = duration_s(value, unit_required=True) if isinstance(value, str) else None
    if seconds is None:
        raise UsageError(
            f"config: grace of [commands.{name}] must be a duration", hint='grace = "30s"'
        )
    return seconds


def _signal(name: str, value: object) -> str:
    if value is None:
        return ""
    text = value.upper() if isinstance(value, str) else ""
    text = text if text.startswith("SIG") else f"SIG{text}"
    if text not in {each.name for each in signal.Signals}:
        raise UsageError(
            f"config: signal of [commands.{name}] must be the name of a signal",
            hint='signal = "TERM"',
        )
    return text
