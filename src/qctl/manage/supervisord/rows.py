"""Turns what supervisord reports about a process into a ``ManagedProcess``.

A row contains the whole command line, and perhaps secrets in it: pick fields by name, then drop the
row at once.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qctl.manage.numbers import whole_number
from qctl.manage.programs import (
    RUNNERS,
    SHELLS,
    command_line,
    is_shell_without_trap,
    program_of,
)
from qctl.manage.protocol import ManagedProcess

# After a process has exited, supervisord decides within a second whether to start it again.
_DECIDED_S = 3
_STATUS = {
    "RUNNING": "online",
    "STARTING": "launching",
    "BACKOFF": "launching",
    "STOPPING": "stopping",
    "STOPPED": "stopped",
    "FATAL": "errored",
}


@dataclass(frozen=True, slots=True)
class Program:
    """What is configured for one process.

    Args:
        key: ``group:name``.
        stop_signal: e.g. ``SIGTERM``; "" if unknown. supervisord reports it since version 4.
        stop_wait_s: how long after the stop signal supervisord sends SIGKILL; None if unknown.
        start_s: how long a new process must stay up before supervisord calls it running.
        signals_group: whether the whole process group gets the signals; None if unknown.
        command: the program, without its arguments.
        kind: a hash of the command without its numbers; equal for processes of one program.
        folder: the working folder; "" if unknown.
        merges_stderr: whether the process writes its stderr to the log of its stdout.
    """

    key: str
    stop_signal: str = ""
    stop_wait_s: int | None = None
    start_s: int = 1
    signals_group: bool | None = None
    command: str = field(default="", repr=False)
    kind: int = field(default=0, repr=False)
    folder: str = field(default="", repr=False)
    merges_stderr: bool = False


def to_program(row: object) -> Program | None:
    """The program of a row of ``getAllConfigInfo``; None if the row has no group or no name."""
    if not isinstance(row, dict) or not (key := key_of(row)):
        return None
    command = _text(row.get("command"))
    return Program(
        key,
        stop_signal=_signal(row.get("stopsignal")),
        stop_wait_s=whole_number(row.get("stopwaitsecs")),
        start_s=whole_number(row.get("startsecs")) or 0,
        # supervisord reports only killasgroup. If that is false, stopasgroup is false too, because
        # supervisord refuses stopasgroup without killasgroup.
        signals_group=killed if isinstance(killed := row.get("killasgroup"), bool) else None,
        command=_first_word(command),
        # Processes of one program may differ in numbers, such as a port.
        kind=hash(re.sub(r"\d+", "0", command)),
        folder=folder if (folder := _text(row.get("directory"))).startswith("/") else "",
        merges_stderr=row.get("redirect_stderr") is True,
    )


def key_of(row: Mapping[str, object]) -> str:
    """The key of a row's process, ``group:name``; "" if the row has none."""
    group, name = _text(row.get("group")), _text(row.get("name"))
    return f"{group}:{name}" if group and name else ""


def to_process(
    row: object, programs: Mapping[str, Program], targets: Mapping[str, str]
) -> ManagedProcess | None:
    """The process of a row of ``getAllProcessInfo``; None if the row has no group or no name.

    Args:
        programs: by key.
        targets: see ``targets_of``.
    """
    if not isinstance(row, dict) or not (key := key_of(row)):
        return None
    program = programs.get(key) or Program(key)
    pid = whole_number(row.get("pid")) or None
    start_s = whole_number(row.get("start")) or None
    start_ms = start_s * 1000 if start_s else None
    state = _text(row.get("statename"))
    status = _exited(row) if state == "EXITED" else _STATUS.get(state, state.lower() or "unknown")
    return ManagedProcess(
        target=f"supervisord:{targets.get(key, key)}",
        key=key,
        name=targets.get(key, key),
        namespace="",
        status=status,
        pid=pid,
        started_at_ms=start_ms if pid else None,
        # supervisord keeps no count.
        restarts=None,
        mode="fork",
        stop_signal=program.stop_signal,
        kill_timeout_ms=None if program.stop_wait_s is None else program.stop_wait_s * 1000,
        ready_timeout_ms=program.start_s * 1000,
        cpu_percent=None,
        rss_bytes=None,
        last_start_ms=start_ms,
        # supervisord does not report autorestart. If a process has been EXITED for some time,
        # supervisord does not start it again.
        starts_again=not (state == "EXITED" and status == "stopped"),
        tree_kill=program.signals_group is not False,
        script=program.command,
        cwd=program.folder,
        error_log=_error_log(row, program),
        signal_trouble=_signal_trouble(pid, program),
    )


def targets_of(programs: Iterable[Program]) -> dict[str, str]:
    """Key of each process → the target's name.

    For the process NAME of the group GROUP, the target's name is ``NAME`` if the group is also
    called NAME and has no other process; ``GROUP:*`` if all processes of the group belong to one
    program; otherwise ``GROUP:NAME``.
    """
    groups: dict[str, list[Program]] = {}
    for program in programs:
        groups.setdefault(program.key.partition(":")[0], []).append(program)
    names = {}
    for group, members in groups.items():
        is_one_program = len({member.kind for member in members}) == 1
        for member in members:
            if len(members) == 1 and member.key == f"{group}:{group}":
                names[member.key] = group
            else:
                names[member.key] = f"{group}:*" if is_one_program else member.key
    return names


def _exited(row: Mapping[str, object]) -> str:
    stop_s, now_s = whole_number(row.get("stop")), whole_number(row.get("now"))
    is_decided = stop_s is None or now_s is None or now_s - stop_s > _DECIDED_S
    return "stopped" if is_decided else "launching"


def _error_log(row: Mapping[str, object], program: Program) -> Path | None:
    name = _text(row.get("stdout_logfile" if program.merges_stderr else "stderr_logfile"))
    # In many containers, the log is /dev/stderr: qctl would open its own stderr instead.
    is_file = name.startswith("/") and not name.startswith(("/dev/", "/proc/")) and "\0" not in name
    return Path(name) if is_file else None


def why_not_restartable(process: ManagedProcess) -> str:
    """Why a restart would leave the old workers running beside the new ones; "" if it would not."""
    pid = process.pid
    if pid is None or process.tree_kill or not is_shell_without_trap(pid, process.stop_signal):
        return ""
    return (
        f"supervisord would stop only {program_of(command_line(pid))}, not the worker it runs; set "
        "stopasgroup=true in the program's section, or begin its command with exec"
    )


def _signal_trouble(pid: int | None, program: Program) -> str:
    if program.stop_signal == "SIGKILL":
        return "supervisord kills it without asking it to stop first (stopsignal=KILL)"
    # ``sh -c`` with a single command turns into that command, so look at the running process.
    running = program_of(command_line(pid)) if pid and program.signals_group is False else ""
    if running not in SHELLS | RUNNERS:
        return ""
    return (
        f"supervisord signals only {running}, which may not pass the signal on to the worker "
        "(stopasgroup is not true)"
    )


def _first_word(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split(maxsplit=1)
    return words[0] if words else ""


def _signal(value: object) -> str:
    try:
        return signal.Signals(whole_number(value) or 0).name
    except ValueError:
        return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
