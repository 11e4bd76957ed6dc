"""``qctl status --watch``: a table that is redrawn in place, or a line of JSON per reading."""

from __future__ import annotations

import contextlib
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
        UsageError: the output is json, or it is a table but stdout is not a terminal.
    """
    readings = _readings(inspect, interval_s)
    with contextlib.suppress(KeyboardInterrupt):
        if env.output == "ndjson":
            _print_lines(env, readings)
        elif env.output == "table" and env.streams.stdout_is_terminal:
            _redraw(env, readings, interval_s)
        else:
            raise UsageError(
                "--watch needs a terminal to draw on",
                why="in a file or a pipe, readings must be ndjson, with one object per reading",
                hint="--watch --output ndjson",
            )


def _print_lines(env: Environment, readings: Iterator[Inspection | str]) -> None:
    # An outage is noted once, not at each reading.
    trouble = ""
    for reading in readings:
        if not isinstance(reading, str):
            env.emit_json(reading.report)
            trouble = ""
        elif not trouble:
            trouble = reading
            env.note(trouble)


def _redraw(env: Environment, readings: Iterator[Inspection | str], interval_s: float) -> None:
    from rich.live import Live  # noqa: PLC0415 - only for watching
    from rich.text import Text  # noqa: PLC0415

    drawn = ""
    console = env.console(env.streams.stdout)
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        for reading in readings:
            remarks = [reading] if isinstance(reading, str) else reading.remarks
            if not isinstance(reading, str):
                drawn = status_text(reading.report, width=env.width, colour=env.may_colour())
            trouble = "".join(f"\n{visible(remark)}" for remark in remarks)
            clock = time.strftime("%H:%M:%S")
            foot = f"\n{clock}, every {interval_s:g} s, Ctrl-C to quit"
            live.update(Text.from_ansi(drawn + trouble + foot), refresh=True)


def _readings(inspect: Callable[[], Inspection], interval_s: float) -> Iterator[Inspection | str]:
    """Yield a reading every ``interval_s`` seconds, or a message while Redis is away.

    Raises:
        QctlError: the first reading failed, or a later one failed although Redis is there.
    """
    due = time.monotonic()
    is_first = True
    while True:
        try:
            yield inspect()
        except QctlError as error:
            # Go on during an outage, because Redis may come back while the operator watches.
            if is_first or not is_outage(error):
                raise
            yield f"{error.what}; trying again"
        is_first = False
        # A slow reading delays all later readings; none is made early to catch up.
        due = max(due + interval_s, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
