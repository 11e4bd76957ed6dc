"""Commands whose ``--help`` begins with examples.

The examples are in ``examples.py``, which is loaded only for help.
"""

from __future__ import annotations

from typing import Any

import typer

# Typer's own copy of click; typer is pinned below the version that might move it.
from typer import _click as click
from typer.core import TyperCommand, TyperGroup

from qctl.errors import UsageError

# The meaning of a longer example is below it instead of beside it.
_MAX_BESIDE = 40


class Command(TyperCommand):
    """A command whose help begins with examples, and whose options may be given once.

    Click takes the last of several: ``drain --target a --target b`` would silently ignore a.
    """

    def make_parser(self, ctx: click.Context) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            parsed = parse(args)
            if not ctx.resilient_parsing:
                _require_once(ctx, parsed[2])
            return parsed

        parser.parse_args = parse_once
        return parser

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


def _require_once(ctx: click.Context, given: list[Any]) -> None:
    """Refuse an option with a value that is given twice, unless it takes several.

    Args:
        given: the parameters in the order of the command line, repeated ones several times.

    Raises:
        UsageError: there is such an option.
    """
    for param in given:
        times = given.count(param)
        if times > 1 and param.param_type_name == "option" and not _takes_several(param):
            flag = max(param.opts, key=len)
            raise UsageError(
                f"{ctx.command_path} takes one {flag}, and it is given {times} times",
                why="all but the last would be ignored",
                hint=f"give {flag} once, and run the command once for each value",
            )


def _takes_several(param: Any) -> bool:
    # Repeating a flag changes nothing.
    return bool(param.multiple or param.is_flag or param.count)


def write_examples(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the examples of the command, if it has any."""
    from qctl.cli.examples import EXAMPLES  # noqa: PLC0415 - not for running commands

    rows = EXAMPLES.get(ctx.command_path.partition(" ")[2], ())
    if not rows:
        return
    beside = max((len(words) for words, _ in rows if len(words) <= _MAX_BESIDE), default=0)
    formatter.write("Examples:\n")
    for words, text in rows:
        line = f"  {words:<{beside}}  {text}"
        if len(words) > beside or len(line) > formatter.width:
            line = f"  {words}\n      {text}"
        formatter.write(f"{line}\n")
    formatter.write_paragraph()
