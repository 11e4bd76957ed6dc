"""Recognizes programs that start workers in a child process, by their command lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh"})
RUNNERS = frozenset({"npm", "npx", "yarn", "pnpm", "corepack"})
MANAGERS = frozenset({"pm2-runtime", "pm2", "supervisord"})


def command_line(pid: int) -> list[str]:
    """The command line of a process; empty if it is gone. npm replaces its own by one word.

    Show only the program: arguments may be secrets.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []
    return [word for word in words if word]


def program_of(words: Sequence[str]) -> str:
    """The program's name without path and ending; of ``node /…/npm-cli.js``, ``npm``."""
    names = [_base(word) for word in words[:2]]
    if names and names[0] == "node" and names[1:] and names[1] in RUNNERS | MANAGERS:
        return names[1]
    return names[0] if names else ""


def _base(word: str) -> str:
    # npm's command line is the one word "npm start".
    name = PurePosixPath(word.split(maxsplit=1)[0] if word.strip() else "").name
    for ending in (".js", ".cjs", "-cli"):
        name = name.removesuffix(ending)
    return name
