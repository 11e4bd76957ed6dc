"""The command reference and the man page, made from the commands themselves.

    python -m qctl.cli.reference docs

writes ``docs/reference.md`` and ``docs/qctl.1``. A test fails when they are stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from qctl.cli.examples import EXAMPLES
from qctl.cli.frame import COMMON_FLAGS
from qctl.cli.program import build
from qctl.errors import ExitStatus

Pairs = tuple[tuple[str, str], ...]

_ENVIRONMENT: Pairs = (
    ("QCTL_REDIS_URL, REDIS_URL", "where Redis is, without --redis"),
    ("QCTL_PREFIX", "BullMQ's key prefix, without --prefix"),
    ("QCTL_CONTEXT", "a context of the config files, without --context"),
    ("QCTL_OUTPUT", "table, json or ndjson, without --output"),
    ("QCTL_REDIS_PASSWORD_FILE", "its first line is the password of QCTL_REDIS_URL"),
    ("QCTL_MAX_STALLED_COUNT", "the workers' maxStalledCount"),
    ("NO_COLOR", "no colours, if it is not empty"),
    ("QCTL_DEBUG", "tracebacks, if it is neither 0 nor empty"),
    ("PM2_HOME", "PM2's folder"),
)
_FILES: Pairs = (
    ("qctl.toml", "settings of a project, in its folder or one above"),
    ("$XDG_CONFIG_HOME/qctl/config.toml", "settings of the user; ~/.config without the variable"),
    ("$XDG_STATE_HOME/qctl", "what qctl keeps; in ~/.local/state without the variable"),
)
_EXITS: dict[ExitStatus, str] = {
    ExitStatus.OK: "done",
    ExitStatus.FAILED: "the operation failed",
    ExitStatus.USAGE: "usage error, or an answer is needed and cannot be asked for",
    ExitStatus.NOT_FOUND: "no such queue, job, process or scheduler",
    ExitStatus.TIMED_OUT: "timed out; state was restored",
    ExitStatus.REFUSED: "refused because it is unsafe; the message names the flag that overrides",
    ExitStatus.UNREACHABLE: "Redis or the process manager cannot be reached",
    ExitStatus.PARTIAL: "partly done; the rest is listed",
    ExitStatus.INTERRUPTED: "interrupted; state was restored",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A command as the reference has it.

    Args:
        path: what is typed, beginning with ``qctl``.
        usage: the words after it.
        paragraphs: of its help.
        parameters: arguments and options of its own, as ``--help`` has them.
    """

    path: str
    usage: str
    paragraphs: tuple[str, ...]
    examples: Pairs
    parameters: Pairs
    common: Pairs


def entries() -> Iterator[Entry]:
    """Every command that runs something, in the order of ``--help``."""
    yield from _below(build(), None, "qctl")


def _below(command: Any, parent: Any, name: str) -> Iterator[Entry]:
    ctx = typer.Context(command, parent=parent, info_name=name)
    if hasattr(command, "list_commands"):
        for child in command.list_commands(ctx):
            yield from _below(command.get_command(ctx, child), ctx, child)
        return
    path = ctx.command_path
    own: list[tuple[str, str]] = []
    common: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and "--help" not in parameter.opts:
            is_common = bool(set(parameter.opts) & set(COMMON_FLAGS))
            (common if is_common else own).append((record[0], " ".join(record[1].split())))
    paragraphs = re.split(r"\n\s*\n", command.help or "")
    yield Entry(
        path=path,
        usage=" ".join(command.collect_usage_pieces(ctx)),
        paragraphs=tuple(" ".join(text.split()) for text in paragraphs if text.strip()),
        examples=EXAMPLES.get(path.partition(" ")[2], ()),
        parameters=tuple(own),
        common=tuple(common),
    )


# Markdown


def markdown() -> str:
    """``docs/reference.md``."""
    commands = list(entries())
    lines = [
        "# Commands",
        "",
        "Made from the commands by `python -m qctl.cli.reference docs`; the same as `--help` and "
        "`man qctl`.",
        "What scripts can rely on is in [the command line](cli.md).",
        "",
        *_table(("options of every command", "meaning"), commands[0].common),
    ]
    for entry in commands:
        lines += ["", f"## {entry.path}", ""]
        for text in entry.paragraphs:
            lines += [_prose(text), ""]
        lines += ["```console"]
        beside = max(len(words) for words, _ in entry.examples)
        lines += [f"$ {words:<{beside}}  # {text}" for words, text in entry.examples]
        lines += ["```", "", f"`{entry.path} {entry.usage}`"]
        if entry.parameters:
            lines += ["", *_table(("argument or option", "meaning"), entry.parameters)]
    return "\n".join(lines) + "\n"


def _prose(text: str) -> str:
    """Text whose angle brackets and the like are not taken for markup."""
    return text.replace("<", "&lt;").replace("*", r"\*")


def _table(heading: tuple[str, str], rows: Pairs) -> Iterator[str]:
    yield f"| {heading[0]} | {heading[1]} |"
    yield "|---|---|"
    for left, right in rows:
        escaped = left.replace("|", r"\|")
        yield f"| `{escaped}` | {_prose(right).replace('|', chr(92) + '|')} |"


# The man page


def man_page() -> str:
    """``docs/qctl.1``, in the man macros."""
    commands = list(entries())
    lines = [
        r".\" Made by python -m qctl.cli.reference docs",
        '.TH QCTL 1 "" "qctl" "User Commands"',
        ".SH NAME",
        r"qctl \- operate BullMQ job queues: inspect, drain, restart workers, lose nothing",
        ".SH SYNOPSIS",
        ".B qctl",
        r"\fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_text("Queues and their jobs are in Redis; the workers run under a process manager such "
               "as PM2. qctl reads and changes both, so that a restart interrupts no job."),
        ".SH EXAMPLES",
        *_examples(EXAMPLES[""]),
        ".SH COMMANDS",
    ]  # fmt: skip
    for entry in commands:
        lines += [f".SS {_roff(entry.path)} {_roff(entry.usage)}"]
        for number, text in enumerate(entry.paragraphs):
            lines += [*([".PP"] if number else []), *_text(text)]
        lines += [*_terms(entry.parameters), ".PP", *_examples(entry.examples)]
    lines += [".SH OPTIONS OF EVERY COMMAND", *_terms(commands[0].common)]
    lines += [".SH EXIT STATUS", *_terms([(str(int(code)), text) for code, text in _EXITS.items()])]
    lines += [".SH ENVIRONMENT", *_terms(_ENVIRONMENT), ".SH FILES", *_terms(_FILES)]
    lines += [".SH SEE ALSO", *_text("redis-cli(1), pm2(1)")]
    return "\n".join(lines) + "\n"


def _terms(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    for left, right in rows:
        yield ".TP"
        yield rf"\fB{_roff(left)}\fR"
        yield from _text(right or "-")


def _examples(rows: Pairs) -> Iterator[str]:
    """Each with its meaning above it; unfilled, so that nothing is broken into lines."""
    yield ".nf"
    for words, text in rows:
        yield _line(f"  # {text}")
        yield _line(f"  {words}")
    yield ".fi"


def _text(text: str) -> Iterator[str]:
    # A sentence a line, as the macros want it.
    for sentence in re.split(r"(?<=[.:;]) +", text):
        yield _line(sentence)


def _line(text: str) -> str:
    """A line of text; a dot or an apostrophe at its start would be a request."""
    safe = _roff(text)
    return rf"\&{safe}" if safe[:1] in {".", "'"} else safe


def _roff(text: str) -> str:
    special = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "^": r"\(ha", "~": r"\(ti", "`": r"\(ga"}
    return "".join(
        special.get(char, char if char.isascii() else rf"\[u{ord(char):04X}]") for char in text
    )


def main() -> None:
    """Write both files into the folder named on the command line."""
    folder = Path(sys.argv[1])
    (folder / "reference.md").write_text(markdown(), encoding="utf-8")
    (folder / "qctl.1").write_text(man_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
