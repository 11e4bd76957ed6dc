"""Every command, and those of them that write nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qctl.cli import program


def leaves() -> Iterator[tuple[str, Any]]:
    """Every command there is, with its words."""
    for name in program.COMMANDS:
        command = program.load_command(name)
        subcommands = getattr(command, "commands", None)
        if subcommands is not None:
            if command.invoke_without_command:
                yield name, command
            yield from ((f"{name} {word}", leaf) for word, leaf in subcommands.items())
        elif command is not None:
            yield name, command


def flags_of(command: Any) -> set[str]:
    """The flags of a command."""
    return {flag for parameter in command.params for flag in parameter.opts}


# They write nothing of their own accord. `top` asks the guard itself at each of its keys. `demo`
# writes only to its own Redis. `mcp` runs other commands.
READING = {
    *("status", "queues", "workers", "impact", "doctor", "events", "wait", "metrics"),
    *(
        "jobs list",
        "jobs show",
        "jobs logs",
        "jobs failures",
        "jobs tree",
        "schedules list",
        "schedules show",
    ),
    *("worker list", "worker logs", "config view", "config path", "contexts", "completion", "help"),
    *("top", "demo", "mcp", "acl"),
}
# They start and end processes. Taking and finishing jobs is what workers are for, a read-only
# context or not.
RUNNING = {"worker run", "worker start", "worker stop", "worker restart"}
