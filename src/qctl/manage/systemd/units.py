"""Turns what ``systemctl show`` prints of a service into a ``ManagedProcess``.

Only the properties in ``PROPERTIES`` are asked for. Never add ``Environment`` or a command line
such as ``ExecStart``: they may contain secrets.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator, Mapping

from qctl.manage.numbers import whole_number
from qctl.manage.programs import (
    MANAGERS,
    RUNNERS,
    SHELLS,
    command_line,
    is_shell_without_trap,
    program_of,
)
from qctl.manage.protocol import NO_LIMIT_MS, ManagedProcess
from qctl.manage.systemd.names import family_of
from qctl.manage.systemd.spans import parse_span_s, parse_time_ms

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Type",
    "MainPID",
    "NRestarts",
    "Restart",
    "RestartUSec",
    "RestartPreventExitStatus",
    "KillMode",
    "KillSignal",
    "RestartKillSignal",
    "SendSIGKILL",
    "TimeoutStopUSec",
    "TimeoutStartUSec",
    "ExecMainStartTimestamp",
    "ControlGroup",
    "WorkingDirectory",
)
Properties = Mapping[str, str]
_REMEDY = "set KillMode=control-group in the unit"

# systemd's defaults, for a property that an old systemd does not have.
_STOP_TIMEOUT_S = 90.0
_START_TIMEOUT_S = 90.0
# A roll needs a RestartSec of at most this: until systemd starts the process again, the other
# processes do all the work.
_MAX_RESTART_DELAY_S = 30.0
_STATES = {
    "active": "online",
    "reloading": "online",
    "refreshing": "online",
    "activating": "launching",
    "deactivating": "stopping",
    "failed": "errored",
    "inactive": "stopped",
}
# A service of these types is ready when it says so, or when its first process has ended.
_TYPES_WITH_READINESS = {"dbus", "forking", "notify", "notify-reload"}


def parse_units(text: str) -> Iterator[Properties]:
    """The properties of each unit in the output of ``systemctl show``."""
    unit: dict[str, str] = {}
    for line in [*text.splitlines(), ""]:
        key, separator, value = line.partition("=")
        if separator:
            unit[key] = value
        elif unit:
            yield unit
            unit = {}


def to_process(kind: str, unit: Properties) -> ManagedProcess:
    """The main process of a service.

    Args:
        kind: ``systemd`` or ``systemd-user``.
    """
    name = unit.get("Id", "")
    pid = whole_number(unit.get("MainPID")) or None
    state = unit.get("ActiveState", "")
    # A service with RemainAfterExit is active even after its process has ended.
    has_ended = state == "active" and unit.get("SubState") == "exited"
    started_ms = parse_time_ms(unit.get("ExecMainStartTimestamp", ""))
    return ManagedProcess(
        target=f"{kind}:{family_of(name)}",
        # A unit of the system and a unit of the user can have the same name.
        key=name if kind == "systemd" else f"user/{name}",
        name=name,
        namespace="",
        status="stopped" if has_ended else _STATES.get(state, state or "unknown"),
        pid=pid,
        started_at_ms=started_ms if pid else None,
        restarts=whole_number(unit.get("NRestarts")),
        mode="fork",
        stop_signal=_stop_signal(unit),
        kill_timeout_ms=_kill_timeout_ms(unit),
        ready_timeout_ms=_ready_timeout_ms(unit),
        cpu_percent=None,
        # systemd's own figure is not used: it includes the cache of files that were read.
        rss_bytes=None,
        last_start_ms=started_ms,
        starts_again=unit.get("Restart") == "always" and not _prevents_restart(unit),
        tree_kill=unit.get("KillMode") not in {"process", "none"},
        cwd=unit.get("WorkingDirectory", "").lstrip("!-"),
        signal_trouble=_signal_trouble(unit, pid),
        restart_trouble=why_not_restartable(unit),
    )


def why_not_started_again(unit: Properties) -> str:
    """What might keep systemd from restarting a service soon after it exits; "" for nothing."""
    restart = unit.get("Restart", "no")
    if restart != "always":
        return f"systemd does not start it again after every exit (Restart={restart})"
    if _prevents_restart(unit):
        return "systemd does not start it again after some exit codes (RestartPreventExitStatus=)"
    delay = unit.get("RestartUSec", "")
    if (parse_span_s(delay) or 0) > _MAX_RESTART_DELAY_S:
        return f"systemd starts it again only {delay} after it has exited (RestartSec=)"
    return ""


def why_not_restartable(unit: Properties) -> str:
    """Why a restart would leave the old workers running beside the new ones; "" if it would not."""
    mode = unit.get("KillMode")
    if mode == "none":
        why = "with KillMode=none, systemd would start new workers without stopping the old ones"
        return f"{why}; {_REMEDY}"
    pid = whole_number(unit.get("MainPID"))
    if mode == "process" and pid and is_shell_without_trap(pid, _stop_signal(unit)):
        return (
            f"with KillMode=process, systemd would stop only {_program(pid)}, not the worker it "
            f"runs; {_REMEDY}"
        )
    return ""


def _signal_trouble(unit: Properties, pid: int | None) -> str:
    mode = unit.get("KillMode")
    if mode == "none":
        return "systemd sends no signal (KillMode=none)"
    if _stop_signal(unit) == "SIGKILL":
        return "systemd kills it without asking it to stop first (KillSignal=SIGKILL)"
    program = _program(pid)
    if program.lower() in MANAGERS:
        return f"its main process is {program}, which stops the workers by its own time limits"
    if mode in {"process", "mixed"} and program in SHELLS | RUNNERS:
        return (
            f"systemd signals only {program}, which may not pass the signal on to the worker "
            f"(KillMode={mode})"
        )
    return ""


def _program(pid: int | None) -> str:
    """The name of the program that a process runs; "" if there is none."""
    return program_of(command_line(pid)) if pid else ""


def _stop_signal(unit: Properties) -> str:
    number = whole_number(unit.get("RestartKillSignal")) or whole_number(unit.get("KillSignal"))
    number = number or int(signal.SIGTERM)
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


def _kill_timeout_ms(unit: Properties) -> int:
    limit_s = parse_span_s(unit.get("TimeoutStopUSec", ""))
    if limit_s is None:
        limit_s = _STOP_TIMEOUT_S
    if unit.get("SendSIGKILL") == "no" or math.isinf(limit_s):
        return NO_LIMIT_MS
    return int(limit_s * 1000)


def _ready_timeout_ms(unit: Properties) -> int:
    if unit.get("Type") not in _TYPES_WITH_READINESS:
        return 0
    limit_s = parse_span_s(unit.get("TimeoutStartUSec", ""))
    # Without a limit, a queue would stay paused for ever if the service never says it is ready.
    if limit_s is None or math.isinf(limit_s):
        limit_s = _START_TIMEOUT_S
    return int(limit_s * 1000)


def _prevents_restart(unit: Properties) -> bool:
    return bool(unit.get("RestartPreventExitStatus", "").strip())
