"""How the verdict of an impact looks: one word, why, and what to type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qctl.output.console import styled
from qctl.output.impact.table import wrapped
from qctl.output.text import visible

if TYPE_CHECKING:
    from qctl.ops.impact.assess import Impact

_MAX_REASONS = 5
# A command with more queues is not worth copying.
_MAX_COPIED = 20
_STYLES = {"safe": "green", "drain first": "yellow", "not now": "bold red"}


def verdict_lines(impact: Impact, width: int, *, colour: bool) -> Iterator[str]:
    """The answer, its reasons, and the commands to type, as lines ``width`` cells wide."""
    verdict = impact.verdict
    word = "safe now" if verdict.word == "safe" else verdict.word
    reasons = "; ".join(visible(reason) for reason in verdict.reasons[:_MAX_REASONS])
    if (more := len(verdict.reasons) - _MAX_REASONS) > 0:
        reasons += f"; and {more:,} more (--json has all)"
    if verdict.holds_until is not None:
        local = verdict.holds_until.astimezone()
        reasons += f", until the next is due at {local:%H:%M:%S}"
    lines = [*wrapped(f"{word}: {reasons}", min(width, 100))]
    first = lines[0].replace(word, styled(word, _STYLES[verdict.word], colour=colour), 1)
    yield from [first, *lines[1:]]
    if not verdict.commands:
        yield "    # restart the workers"
    for command in verdict.commands:
        if impact.target is None and command.startswith("qctl resume "):
            yield "    # then restart the workers, and"
        yield f"    {_command(visible(command))}"


def _command(command: str) -> str:
    """The command to copy; with very many queues, its beginning as a comment."""
    verb, options = command.split(" ")[:2], command.partition(" --")
    names = options[0].split(" ")[2:]
    if len(names) <= _MAX_COPIED:
        return command
    shown = " ".join([*verb, *names[:_MAX_REASONS]])
    more = f" and {len(names) - _MAX_REASONS:,} more"
    return f"# {shown}{more}{''.join(options[1:])} (--json has all)"
