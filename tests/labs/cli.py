"""Commands as typed, run in this process."""

from __future__ import annotations

import contextlib
import io
import shlex
from dataclasses import dataclass
from typing import Any

import typer
from typer._click import exceptions as click_errors

from qctl.cli import program
from qctl.cli.streams import Streams


@dataclass
class Ran:
    code: int
    out: str
    err: str


def run(*arguments: str, stdin: str = "", terminal: bool = False, **environ: str) -> Ran:
    """One command in this process, with streams and an environment of its own."""
    streams = Streams(
        stdin=io.StringIO(stdin),
        stdout=io.StringIO(),
        stderr=io.StringIO(),
        stdin_is_terminal=terminal,
        stdout_is_terminal=terminal,
        stderr_is_terminal=terminal,
        width=80,
        environ={"XDG_CONFIG_HOME": "/nonexistent", **environ},
    )
    code = program.run(arguments, streams)
    ran = Ran(code, streams.stdout.getvalue(), streams.stderr.getvalue())  # type: ignore[attr-defined]
    for line in ran.err.splitlines():
        if line.startswith("try: qctl "):
            require_typable(line.removeprefix("try: "), len(arguments))
    return ran


def require_typable(hint: str, typed: int) -> None:
    """Fail unless the command line takes a hint as it is printed.

    Args:
        typed: how many words the command had that it is about. With one of them put right it may
            still lack an argument.
    """
    name, *words = shlex.split(hint.replace("$'", "'"))
    may_lack = [click_errors.MissingParameter] if len(words) == typed else []
    group: Any = program.build()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(click_errors.Exit, *may_lack),
    ):
        context = group.make_context(name, words)
        while isinstance(group, typer.core.TyperGroup):
            name, group, words = group.resolve_command(
                context, [*context._protected_args, *context.args]
            )
            context = group.make_context(name, words, parent=context)


def qctl(redis_url: str, *words: str, stdin: str = "", terminal: bool = False) -> Ran:
    """One command on a Redis."""
    return run(*words, stdin=stdin, terminal=terminal, QCTL_REDIS_URL=redis_url)
