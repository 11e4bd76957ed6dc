"""How ``--help`` begins: with examples, since most people look for the line to type.

The examples of every command stand in ``examples.py``, which is loaded for help alone.
"""

from __future__ import annotations

from typing import Any

import typer

# Typer's own copy of click; typer is pinned below the version that might move it.
from typer import _click as click
from typer.core import TyperCommand, TyperGroup

# An example that is longer has its meaning below it instead of beside it.
_MOST_BESIDE = 40


class Command(TyperCommand):
    """A command whose help begins with examples."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(ctx, formatter)
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """A group of commands whose help begins with examples."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(ctx, formatter)
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with the first line of their help, in full."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, (command.help or "").partition("\n")[0])
            for name, command in found
            if command is not None and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


class App(typer.Typer):
    """A set of commands of these classes."""

    def command(self, name: str | None = None, *, cls: Any = None, **settings: Any) -> Any:
        return super().command(name, cls=cls or Command, **settings)


def write_examples(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The examples of the command that ``ctx`` is about, if it has any."""
    from qctl.cli.examples import EXAMPLES  # noqa: PLC0415 - not for running commands

    rows = EXAMPLES.get(ctx.command_path.partition(" ")[2], ())
    if not rows:
        return
    beside = max((len(words) for words, _ in rows if len(words) <= _MOST_BESIDE), default=0)
    formatter.write("Examples:\n")
    for words, text in rows:
        line = f"  {words:<{beside}}  {text}"
        if len(words) > beside or len(line) > formatter.width:
            line = f"  {words}\n      {text}"
        formatter.write(f"{line}\n")
    formatter.write_paragraph()
