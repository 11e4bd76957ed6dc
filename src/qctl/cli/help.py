"""The classes of commands and groups: their help begins with examples.

Commands also refuse repeated options. The examples are in ``examples.py``, which is loaded only for
help.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Typer's own copy of click; a later version of typer might move it, so typer is pinned.
from typer import _click as click
from typer.core import TyperCommand, TyperGroup

from qctl.cli.options import given_twice

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
# An example longer than this has its explanation below it, not beside it.
_MAX_BESIDE = 40


class _ExamplesFirst(click.Command):
    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(ctx, formatter)
        super().format_help(ctx, formatter)


class Command(_ExamplesFirst, TyperCommand):
    """A command whose help begins with examples, and which refuses repeated options.

    Click would take the last value: ``drain --target a --target b`` would silently ignore ``a``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            _require_once(ctx, given)
        return super().parse_args(ctx, args)


def optional_value(flag: str, default: str) -> type[Command]:
    """Make a command class in which ``flag`` without a value means ``flag default``.

    The word after ``flag`` is its value only if the word starts with a digit; otherwise the word is
    an argument of the command.
    """

    class OptionalValueCommand(Command):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            for index in range(end - 1, -1, -1):
                following = args[index + 1 : end][:1]
                if args[index] == flag and not (following and following[0][:1].isdigit()):
                    args.insert(index + 1, default)
            return super().parse_args(ctx, args)

    return OptionalValueCommand


class Group(_ExamplesFirst, TyperGroup):
    """A group of commands whose help begins with examples, and which refuses repeated options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
            _require_once(ctx, given)
        return super().parse_args(ctx, args)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the whole first line of its help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.first_lines()))

    def first_lines(self) -> Iterator[tuple[str, str]]:
        """The name of each command, and the first line of its help."""
        for name, command in self.commands.items():
            yield name, (command.help or "").partition("\n")[0]


def _require_once(ctx: click.Context, given: list[Any]) -> None:
    """Refuse an option that is in ``given`` twice, unless it takes several values or is a flag."""
    for param in given:
        times = given.count(param)
        # Repeating a flag changes nothing.
        may_repeat = param.param_type_name != "option" or param.multiple or param.is_flag
        if times > 1 and not may_repeat:
            flag = max(param.opts, key=len)
            raise given_twice(ctx.command_path, flag, times)


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
