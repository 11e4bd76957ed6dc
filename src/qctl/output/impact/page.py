"""An impact as lines of a terminal: what would restart, the aspects, the best time, the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qctl.output.impact.best_time import best_time_lines
from qctl.output.impact.rows import rows_of
from qctl.output.impact.table import aspect_lines, named, wrapped
from qctl.output.impact.verdict import verdict_lines
from qctl.output.text import duration, visible

if TYPE_CHECKING:
    from qctl.ops.impact.assess import Impact

_MAX_PROCESSES = 4


def impact_text(impact: Impact, *, width: int, colour: bool) -> str:
    """The answer as the lines of a terminal ``width`` cells wide."""
    lines = [*_heading(impact, width), ""]
    lines += aspect_lines([*rows_of(impact)], width=width, colour=colour)
    if impact.best_time is not None:
        lines += ["", *best_time_lines(impact.best_time, width=width)]
    lines += ["", *verdict_lines(impact, width, colour=colour)]
    return "".join(f"{line}\n" for line in lines)


def _heading(impact: Impact, width: int) -> Iterator[str]:
    queues = named([*(queue.name for queue in impact.queues), *impact.bull])
    if impact.target is None:
        text = f"a restart now of all workers of {queues or 'no queue'}: {impact.why_no_target}"
    else:
        text = (
            f"a plain restart of {visible(impact.target)} now, which serves {queues or 'no queue'}"
        )
        if impact.also:
            text += f" ({named(impact.also)} not named, but served too)"
    yield from wrapped(visible(text), min(width, 100))
    for process in impact.processes[:_MAX_PROCESSES]:
        yield f"  id {visible(process.key)}, pid {process.pid or '-'}, {process.status}: " + _stop(
            process.stop_signal, process.kill_timeout_ms, impact.kill_after_s
        )
    if len(impact.processes) > _MAX_PROCESSES:
        yield f"  and {len(impact.processes) - _MAX_PROCESSES:,} more processes"


def _stop(signal: str, kill_timeout_ms: int, kill_after_s: float | None) -> str:
    if kill_after_s is None:
        return f"{signal}, then as long as its jobs take"
    return f"{signal}, SIGKILL {duration(kill_timeout_ms / 1000)} later"
