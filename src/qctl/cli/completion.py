"""``qctl completion SHELL``: the script that makes TAB work, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import typer

from qctl.cli.frame import new_app
from qctl.cli.streams import Streams

app = new_app()

# What stands in a parameter's metavar, and whose names are wanted there.
_KINDS = {"QUEUE": "queues", "TARGET": "targets", "[QUEUE]": "queues", "[TARGET]": "targets"}
_OPTION_KINDS = {"--context": "contexts", "--target": "targets", "--queue": "queues"}

# Key → words with their descriptions. Keys: "commands:PATH" (PATH is a command, with those below
# it), "options:PATH", "value:PATH OPTION", and "argument:PATH N" or "argument:PATH +".
Table = dict[str, list[tuple[str, str]]]


@app.command("completion")
def completion(
    ctx: typer.Context,
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish")
    ],
) -> None:
    """Completion of commands and queue names for your shell."""
    streams = ctx.obj if isinstance(ctx.obj, Streams) else Streams.standard()
    streams.stdout.write(script(shell))


def script(shell: str) -> str:
    """The completion script for ``bash``, ``zsh`` or ``fish``."""
    from qctl.cli import completion_scripts  # noqa: PLC0415 - not for --help
    from qctl.cli.program import build  # noqa: PLC0415 - it loads this module

    table: Table = {}
    valued: set[str] = set()
    _describe_command(build(), None, "", table, valued)
    template = {
        "bash": completion_scripts.BASH,
        "zsh": completion_scripts.ZSH,
        "fish": completion_scripts.FISH,
    }[shell]
    rows, join = _RENDERERS[shell]
    text = "\n".join(line for key, words in table.items() for line in rows(key, words))
    return template.replace("@@TABLE@@", text).replace("@@VALUES@@", join.join(sorted(valued)))


def _describe_command(command: Any, parent: Any, path: str, table: Table, valued: set[str]) -> None:
    """Add a command, its options, and all below it to the table."""
    ctx = typer.Context(command, parent=parent, info_name=path.rpartition(" ")[2] or "qctl")
    table[f"commands:{path}"] = []
    options = table[f"options:{path}"] = []
    position = 0
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "argument":
            many = parameter.nargs == -1
            if words := _values(parameter):
                table[f"argument:{path} {'+' if many else position}"] = words
            position += 1
            continue
        if parameter.hidden:
            continue
        names = [*parameter.opts, *parameter.secondary_opts]
        options += [(name, _brief(parameter.help)) for name in names if name.startswith("--")]
        # A value in brackets is optional; then the next word may as well be an argument.
        optional = (parameter.metavar or "").startswith("[")
        if not (parameter.is_flag or parameter.count or optional):
            valued.update(names)
            for name in names:
                if words := _values(parameter):
                    table[f"value:{path} {name}"] = words
    if not hasattr(command, "list_commands"):
        return
    names = command.list_commands(ctx)
    below = [(name, command.get_command(ctx, name)) for name in names]
    table[f"argument:{path} 0"] = [
        (name, _brief(child.get_short_help_str(200))) for name, child in below if not child.hidden
    ]
    for name, child in below:
        _describe_command(child, ctx, f"{path} {name}".strip(), table, valued)


def _values(parameter: Any) -> list[tuple[str, str]]:
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return [(str(choice), "") for choice in choices]
    metavar = (parameter.metavar or "").removesuffix("...")
    kind = _KINDS.get(metavar)
    for name in parameter.opts:
        kind = _OPTION_KINDS.get(name, kind)
    return [(f"@{kind}", "")] if kind else []


def _brief(text: str | None) -> str:
    """A help text without what stands in brackets behind it, on one line."""
    return " ".join((text or "").partition("  [")[0].split()).rstrip(".")


# A single-quoted word is taken literally by every shell.


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _bash_rows(key: str, words: list[tuple[str, str]]) -> Iterator[str]:
    yield f"    {_quoted(key)}) _qctl_found=({' '.join(_quoted(word) for word, _ in words)}) ;;"


def _zsh_rows(key: str, words: list[tuple[str, str]]) -> Iterator[str]:
    yield f"    ({_quoted(key)})"
    yield "      _qctl_found=("
    for word, text in words:
        # Before the colon the word, behind it what it means.
        entry = word.replace("\\", "\\\\").replace(":", "\\:") + (f":{text}" if text else "")
        yield f"        {_quoted(entry)}"
    yield "      ) ;;"


def _fish_rows(key: str, words: list[tuple[str, str]]) -> Iterator[str]:
    yield f"        case {_fish_quoted(key)}"
    if not words:
        yield "            true"
        return
    yield "            printf '%s\\n' \\"
    entries = [_fish_quoted(f"{word}\t{text}" if text else word) for word, text in words]
    yield " \\\n".join(f"                {entry}" for entry in entries)


_Rows = Callable[[str, list[tuple[str, str]]], Iterator[str]]
_RENDERERS: Mapping[str, tuple[_Rows, str]] = {
    "bash": (_bash_rows, " | "),
    "zsh": (_zsh_rows, "|"),
    "fish": (_fish_rows, " "),
}
