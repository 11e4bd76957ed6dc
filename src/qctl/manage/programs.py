"""Recognizes, by the command line, programs that start workers in a child process."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})
RUNNERS = frozenset({"npm", "npx", "yarn", "pnpm", "corepack"})
MANAGERS = frozenset({"pm2-runtime", "pm2", "supervisord"})


def command_line(pid: int) -> list[str]:
    """The command line of a process; empty if the process is gone.

    For npm, this is a single word, such as ``npm start``.

    Callers must show only the program to the user, because arguments may be secrets.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []
    return [word for word in words if word]


def program_of(words: Sequence[str]) -> str:
    """The program's name without path and ending; ``npm`` for ``node /…/npm-cli.js``."""
    names = [_base(word) for word in words[:2]]
    if names and names[0] == "node" and names[1:] and names[1] in RUNNERS | MANAGERS:
        return names[1]
    return names[0] if names else ""


def is_shell_without_trap(pid: int, stop_signal: str) -> bool:
    """Whether the process is a shell that ends at a signal without passing it on to its children.

    False if unknown.

    Args:
        stop_signal: e.g. ``SIGTERM``.
    """
    if program_of(command_line(pid)) not in SHELLS:
        return False
    return is_in_masks(status_of(pid), stop_signal, "SigCgt", "SigIgn") is False


def status_of(pid: int) -> Mapping[str, str]:
    """The fields of /proc/PID/status; empty if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in lines if ":" in line)


def is_in_masks(status: Mapping[str, str], signal_name: str, *masks: str) -> bool | None:
    """Whether a signal is in one of the masks, such as ``SigCgt`` (handled); None if unknown.

    Args:
        status: see ``status_of``.
    """
    try:
        bit = 1 << (signal.Signals[signal_name] - 1)
        return any(int(status[mask], 16) & bit for mask in masks)
    except (ValueError, KeyError):
        return None


def _base(word: str) -> str:
    # npm's command line is the one word "npm start".
    name = PurePosixPath(word.split(maxsplit=1)[0] if word.strip() else "").name
    for ending in (".js", ".cjs", "-cli"):
        name = name.removesuffix(ending)
    return name
