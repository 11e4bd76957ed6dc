"""``qctl status --watch``: the same picture again and again, redrawn in place."""

from __future__ import annotations

import time
from collections.abc import Iterator

from qctl.cli.frame import Environment
from qctl.cli.status import look, picture
from qctl.errors import QctlError, UsageError, is_outage
from qctl.output.text import visible


def watch_status(env: Environment, names: list[str], interval_s: float) -> None:
    """Look every ``interval_s`` seconds until Ctrl-C, which is the way out and no failure.

    Raises:
        UsageError: the output can neither be redrawn nor be a line per look.
    """
    if env.output == "ndjson":
        _print_lines(env, names, interval_s)
    elif env.output == "table" and env.streams.stdout_is_terminal:
        _redraw(env, names, interval_s)
    else:
        raise UsageError(
            "--watch needs a terminal to draw on",
            why="elsewhere it prints one JSON object per look",
            hint="--watch --output ndjson",
        )


def _print_lines(env: Environment, names: list[str], interval_s: float) -> None:
    is_away = False
    try:
        for tick in _ticks(interval_s):
            try:
                env.emit_json(look(env, names).report)
                is_away = False
            except QctlError as error:
                if tick == 0 or not is_outage(error):
                    raise
                if not is_away:
                    env.note(f"{error.what}; looking again")
                is_away = True
    except KeyboardInterrupt:
        return


def _redraw(env: Environment, names: list[str], interval_s: float) -> None:
    from rich.live import Live  # noqa: PLC0415 - only for watching
    from rich.text import Text  # noqa: PLC0415

    drawn = ""
    with Live(console=env.out, auto_refresh=False, vertical_overflow="ellipsis") as live:
        try:
            for tick in _ticks(interval_s):
                try:
                    inspection = look(env, names)
                    drawn = picture(env, inspection)
                    trouble = "".join(f"\n{visible(remark)}" for remark in inspection.remarks)
                except QctlError as error:
                    # Redis may come back, and whoever watches wants to see just that.
                    if tick == 0 or not is_outage(error):
                        raise
                    trouble = f"\n{visible(error.what)}; looking again"
                clock = time.strftime("%H:%M:%S")
                foot = f"\n{clock}, every {interval_s:g} s, Ctrl-C to leave"
                live.update(Text.from_ansi(drawn + trouble + foot), refresh=True)
        except KeyboardInterrupt:
            return


def _ticks(interval_s: float) -> Iterator[int]:
    """0, 1, 2 … each ``interval_s`` seconds after the other, however long the work between took."""
    due = time.monotonic()
    tick = 0
    while True:
        yield tick
        tick += 1
        # A look that took longer than the interval delays the next ones instead of crowding them.
        due = max(due + interval_s, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))
