"""How ``--help`` begins: with examples, since most people look for the line to type.

The examples of every command stand in ``examples.py``, which is loaded for help alone.
"""

from __future__ import annotations

from typing import Any

import typer

# Typer's own copy of click; typer is pinned below the version that might move it.
from typer import _click as click
from typer.core import TyperCommand, TyperGroup

# An example that is longer stands on a line of its own, its meaning below.
_MOST_BESIDE = 44


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


class App(typer.Typer):
    """A set of commands of these classes."""

    def command(self, name: str | None = None, *, cls: Any = None, **settings: Any) -> Any:
        return super().command(name, cls=cls or Command, **settings)


def write_examples(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The examples of the command that ``ctx`` is about, if it has any."""
    from qctl.cli.examples import EXAMPLES  # noqa: PLC0415 - not for running commands

    if rows := EXAMPLES.get(ctx.command_path.partition(" ")[2], ()):
        with formatter.section("Examples"):
            formatter.write_dl(list(rows), col_max=_MOST_BESIDE)
        formatter.write_paragraph()
