"""``qctl status --watch``: the same table again and again, redrawn in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from qctl.cli.environment import Environment
from qctl.errors import QctlError, UsageError, is_outage
from qctl.output.status import status_text
from qctl.output.text import visible

if TYPE_CHECKING:
    from qctl.ops.queues.status import Inspection


def watch_status(env: Environment, inspect: Callable[[], Inspection], interval_s: float) -> None:
    """Show the queues every ``interval_s`` seconds until Ctrl-C, which is not a failure.

    Raises:
        UsageError: stdout is not a terminal, and the output is not ndjson.
    """
    if env.output == "ndjson":
        _print_lines(env, inspect, interval_s)
    elif env.output == "table" and env.streams.stdout_is_terminal:
        _redraw(env, inspect, interval_s)
    else:
        raise UsageError(
            "--watch needs a terminal to draw on",
            why="elsewhere it prints one JSON object per reading",
            hint="--watch --output ndjson",
        )


def _print_lines(env: Environment, inspect: Callable[[], Inspection], interval_s: float) -> None:
    is_away = False
    try:
        for tick in _ticks(interval_s):
            try:
                env.emit_json(inspect().report)
                is_away = False
            except QctlError as error:
                if tick == 0 or not is_outage(error):
                    raise
                if not is_away:
                    env.note(f"{error.what}; trying again")
                is_away = True
    except KeyboardInterrupt:
        return


def _redraw(env: Environment, inspect: Callable[[], Inspection], interval_s: float) -> None:
    from rich.live import Live  # noqa: PLC0415 - only for watching
    from rich.text import Text  # noqa: PLC0415

    drawn = ""
    with Live(
        console=env.console(env.streams.stdout), auto_refresh=False, vertical_overflow="ellipsis"
    ) as live:
        try:
            for tick in _ticks(interval_s):
                try:
                    inspection = inspect()
                    drawn = status_text(inspection.report, width=env.width, colour=env.colour())
                    trouble = "".join(f"\n{visible(remark)}" for remark in inspection.remarks)
                except QctlError as error:
                    # Redis may come back, and the operator wants to see that.
                    if tick == 0 or not is_outage(error):
                        raise
                    trouble = f"\n{visible(error.what)}; trying again"
                clock = time.strftime("%H:%M:%S")
                foot = f"\n{clock}, every {interval_s:g} s, Ctrl-C to leave"
                live.update(Text.from_ansi(drawn + trouble + foot), refresh=True)
        except KeyboardInterrupt:
            return


def _ticks(interval_s: float) -> Iterator[int]:
    """0, 1, 2 … every ``interval_s`` seconds, whatever the time the work between them takes."""
    due = time.monotonic()
    tick = 0
    while True:
        yield tick
        tick += 1
        # A slow reading delays the next ones; they do not catch up.
        due = max(due + interval_s, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
