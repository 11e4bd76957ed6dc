"""The page of ``qctl impact``: the verdict, what would restart, the aspects, the best time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qctl.output.console import styled
from qctl.output.impact.best_time import best_time_lines
from qctl.output.impact.rows import rows_of
from qctl.output.impact.table import MAX_WIDTH, aspect_table
from qctl.output.text import duration, listed, visible, wrapped

if TYPE_CHECKING:
    from qctl.ops.impact.assess import Impact

_MAX_PROCESSES = 4
_MAX_REASONS = 5
# A command with more queues than this is too long to copy, so only its first queues are shown.
_MAX_COPIED = 20
_MAX_NAMED = 5
_STYLES = {"safe": "green", "drain first": "yellow", "not now": "bold red"}


def impact_text(impact: Impact, *, width: int, colour: bool) -> str:
    """The impact as text for a terminal that is ``width`` cells wide."""
    table = aspect_table([*rows_of(impact)], width=width, colour=colour)
    width = min(width, MAX_WIDTH)
    lines = [*_verdict(impact, width, colour), "", *_heading(impact, width)]
    lines += ["", table.rstrip("\n")]
    if impact.best_time is not None:
        lines += ["", *best_time_lines(impact.best_time, width=width)]
    return "".join(f"{line}\n" for line in lines)


def _heading(impact: Impact, width: int) -> Iterator[str]:
    queues = listed([*map(impact.label, impact.queues), *impact.bull])
    if impact.target is None:
        text = f"a restart now of all workers of {queues or 'no queue'}: {impact.why_no_target}"
    else:
        text = (
            f"a plain restart now of {visible(impact.target)}, which serves {queues or 'no queue'}"
        )
        if impact.also:
            text += f" (the command did not name {listed(impact.also)})"
    yield from wrapped(visible(text), width)
    for process in impact.processes[:_MAX_PROCESSES]:
        then = "no SIGKILL: it exits when its jobs have ended"
        if process.kill_timeout_ms is None:
            then = "SIGKILL after an unknown time"
        elif process.is_never_killed and not process.target.startswith("qctl:"):
            then = "no SIGKILL"
        elif not process.target.startswith("qctl:"):
            then = f"SIGKILL {duration(process.kill_timeout_ms / 1000)} later"
        about = f"id {visible(process.key)}, pid {process.pid or '-'}, {process.status}"
        yield f"  {about}: {process.stop_signal or 'unknown stop signal'}, {then}"
        if process.signal_trouble:
            yield from wrapped(f"    {visible(process.signal_trouble)}", width)
    if len(impact.processes) > _MAX_PROCESSES:
        yield f"  and {len(impact.processes) - _MAX_PROCESSES:,} more processes"


def _verdict(impact: Impact, width: int, colour: bool) -> Iterator[str]:
    """The verdict, its reasons, and the commands to type."""
    verdict = impact.verdict
    word = "safe now" if verdict.word == "safe" else verdict.word
    reasons = "; ".join(visible(reason) for reason in verdict.reasons[:_MAX_REASONS])
    if (more := len(verdict.reasons) - _MAX_REASONS) > 0:
        reasons += f"; and {more:,} more (--json has all)"
    if verdict.holds_until is not None:
        local = verdict.holds_until.astimezone()
        reasons += f", until the next job is due at {local:%H:%M:%S}"
    lines = [*wrapped(f"{word}: {reasons}", width)]
    first = lines[0].replace(word, styled(word, _STYLES[verdict.word], colour=colour), 1)
    yield from [first, *lines[1:]]
    if not verdict.commands:
        yield "    # restart the workers"
    for command in verdict.commands:
        # Without a target, no command restarts the workers, so the operator must restart them.
        if impact.target is None and command.startswith("qctl resume "):
            yield "    # then restart the workers, and"
        yield f"    {_command(visible(command))}"


def _command(command: str) -> str:
    """The command to copy; a command with too many queues is shortened and becomes a comment."""
    verb, options = command.split(" ")[:2], command.partition(" --")
    names = options[0].split(" ")[2:]
    if len(names) <= _MAX_COPIED:
        return command
    shown = " ".join([*verb, *names[:_MAX_NAMED]])
    more = f" and {len(names) - _MAX_NAMED:,} more"
    return f"# {shown}{more}{''.join(options[1:])} (--json has all)"
