"""Commands as typed, run in this process."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from typing import Any

import typer
from typer._click import exceptions as click_errors

from qctl.cli import program
from qctl.cli.streams import Streams

# A folder that cannot be created, not even by root.
NO_FOLDER = "/dev/null/none"


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
        environ={"XDG_CONFIG_HOME": "/nonexistent", "XDG_STATE_HOME": NO_FOLDER, **environ},
    )
    code = program.run(arguments, streams)
    ran = Ran(code, streams.stdout.getvalue(), streams.stderr.getvalue())  # type: ignore[attr-defined]
    for line in _SGR.sub("", ran.err).splitlines():
        if line.startswith("try: "):
            check_hint(line.removeprefix("try: "), len(arguments))
    return ran


def check_hint(hint: str, typed: int | None = None) -> int:
    """Fail unless every command in a hint exists and takes its options; how many there are.

    Args:
        typed: how many words the command had that it is about; None if that is unknown. With one
            of them put right it may still lack an argument.
    """
    found = 0
    for match in _COMMAND.finditer(hint):
        if match["word"] in _PROSE:
            continue
        found += 1
        if match["stands_alone"] is not None:
            _parse(hint[match.start("command") :], typed)
        else:
            _look_up(match["command"])
    return found


# A command stands alone at the beginning, after a colon or after "then": it goes on to the end.
# Elsewhere prose may follow it.
# Colours.
_SGR = re.compile("\x1b\\[[0-9;]*m")
_COMMAND = re.compile(
    r"(?P<stands_alone>^|: |then )?(?<![\w./:`-])`?(?P<command>qctl (?P<word>[a-z-]+)[^`;,]*)"
)
_PROSE = {"runs", "shows", "knows", "cannot", "never", "on", "only"}


def _parse(text: str, typed: int | None) -> None:
    if " prints " in text:
        text = text.partition(" prints ")[0]
    name, *words = shlex.split(text.replace("$'", "'"))
    may_lack = [click_errors.MissingParameter] if typed in {None, len(words)} else []
    group: Any = program.build()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(click_errors.Exit, *may_lack),
    ):
        context = group.make_context(name, words)
        # A group may stand alone, such as `qctl queues`.
        while isinstance(group, typer.core.TyperGroup) and (
            context._protected_args or not group.invoke_without_command
        ):
            name, group, words = group.resolve_command(
                context, [*context._protected_args, *context.args]
            )
            context = group.make_context(name, words, parent=context)


def _look_up(text: str) -> None:
    _, name, *words = text.split()
    command: Any = program.load_command(name) if name in program.COMMANDS else None
    assert command is not None, f"no command {name!r}: {text}"
    context = typer.Context(command, info_name=name)
    if isinstance(command, typer.core.TyperGroup):
        command = command.get_command(context, words[0])
        assert command is not None, f"no command {words[0]!r}: {text}"
    known = {flag for param in command.get_params(context) for flag in param.opts}
    assert {word for word in words if word.startswith("--")} <= known, text


def qctl(redis_url: str, *words: str, stdin: str = "", terminal: bool = False) -> Ran:
    """One command on a Redis."""
    return run(*words, stdin=stdin, terminal=terminal, QCTL_REDIS_URL=redis_url)
