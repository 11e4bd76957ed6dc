"""Whether a container's stop signal reaches the workers in it.

Docker sends the signal to PID 1 alone. The kernel gives PID 1 no default action: without a handler,
PID 1 ignores the signal. Seen with Docker 20.10, Debian's dash, npm 9 and tini: dash as PID 1
ignores the signal. dash as a child of tini exits without passing the signal on. npm does the same.
After such an exit, the worker is killed at once. If PID 1 is an init, qctl does not examine the
handlers of its child.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from itertools import pairwise

from qctl.manage.programs import (
    MANAGERS,
    RUNNERS,
    SHELLS,
    command_line,
    is_in_masks,
    program_of,
    status_of,
)

_INITS = frozenset({"tini", "tini-static", "docker-init", "dumb-init", "catatonit"})
_DEFAULT = "SIGTERM"


def signal_name(text: str) -> str:
    """The full name: ``SIGTERM`` for ``TERM``, ``15``, and for "" (Docker's default)."""
    if text.isdecimal():
        try:
            return signal.Signals(int(text)).name
        except ValueError:
            return text
    name = text.upper()
    return name if name.startswith("SIG") else f"SIG{name}" if name else _DEFAULT


def has_init(words: Sequence[str], pid: int | None) -> bool:
    """Whether PID 1 of a container is a small init, which passes signals on to its child.

    Args:
        words, pid: as for ``trouble_of``. Docker's own init is not in ``words``.
    """
    return program_of((command_line(pid) if pid else []) or words) in _INITS


def trouble_of(words: Sequence[str], stop_signal: str, pid: int | None) -> str:
    """Why a container's stop signal may not reach its workers; "" if it should reach them.

    Args:
        words: the container's command with its arguments. The returned text shows only the
            program's name, because arguments may be secrets.
        pid: the pid that the container's PID 1 has on this host; None if it runs on another host.
            With a ``pid``, the command line of that process is used instead of ``words``.
    """
    if stop_signal == "SIGKILL":
        return "its stop signal is SIGKILL, which no worker can handle"
    words = (command_line(pid) if pid else []) or words
    below = _below_init(words)
    program = program_of(below)
    if program in RUNNERS:
        return f"its command is {program}, which may not pass {stop_signal} on"
    if program in MANAGERS:
        return f"its command is {program}, which stops the workers by its own time limits"
    has_own_init = program_of(words) in _INITS
    # If the shell is the PID 1 of a container on this host, ``_is_ignored`` below finds out whether
    # the shell has a handler.
    if program in SHELLS and (has_own_init or not pid) and _keeps_running(below):
        return f"its command is `{program} -c`, which may not pass {stop_signal} on"
    if pid and not has_own_init and _is_ignored(pid, stop_signal):
        return f"its PID 1, {program}, has no handler for {stop_signal}, so the kernel ignores it"
    return ""


def _is_ignored(pid: int, stop_signal: str) -> bool:
    """Whether a process is PID 1 of a container and has no handler for a signal.

    False if unknown. Node always has a handler for SIGTERM and SIGINT, even if the app has none.
    """
    status = status_of(pid)
    pids = status.get("NSpid", "").split()
    # With `--pid host`, a container has no PID 1.
    is_first = len(pids) > 1 and pids[-1] == "1"
    return is_first and is_in_masks(status, stop_signal, "SigCgt", "SigBlk") is False


def _below_init(words: Sequence[str]) -> Sequence[str]:
    """The command without an init in front of it, and without the entry point of Node's image."""
    while words and (program_of(words) in _INITS or program_of(words) == "docker-entrypoint.sh"):
        words = words[1:]
        while words and words[0].startswith("-"):
            words = words[1:]
    return words


def _keeps_running(words: Sequence[str]) -> bool:
    """Whether a shell with ``-c`` runs its last command as a child, not by ``exec``."""
    script = next((word for option, word in pairwise(words) if option == "-c"), "")
    return bool(script) and re.split(r"&&|;|\n", script.strip())[-1].split()[:1] != ["exec"]
