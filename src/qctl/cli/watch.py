"""``qctl status --watch``: a screen that is redrawn in place, or a line of JSON per reading."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from qctl.cli.environment import Environment
from qctl.connection.address import Client
from qctl.durations import duration
from qctl.errors import QctlError, UsageError, is_outage
from qctl.ops.patience import PatientClient, Pulse
from qctl.output.status import watch_text

if TYPE_CHECKING:
    from qctl.ops.queues.status import Inspection

# If Redis has not answered for this long, the screen says so.
SILENCE_S = 1.5
# The screen is redrawn at least this often, so that the ages on it stay right.
_TICK_S = 0.5

Inspect = Callable[[Client], "Inspection"]


def watch_status(env: Environment, inspect: Inspect, interval_s: float) -> None:
    """Show the queues every ``interval_s`` seconds until Ctrl-C, which is not a failure.

    Raises:
        UsageError: the output is json, or it is a table but stdout is not a terminal.
    """
    with contextlib.suppress(KeyboardInterrupt):
        if env.output == "ndjson":
            _print_lines(env, _readings(lambda: inspect(env.redis()[1]), interval_s))
        elif env.output == "table" and env.streams.stdout_is_terminal and not env.streams.is_dumb:
            _redraw(env, inspect, interval_s)
        else:
            raise UsageError(
                "--watch needs a terminal to draw on",
                why="in a file, a pipe or a dumb terminal, readings must be ndjson, with one "
                "object per reading",
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


def _redraw(env: Environment, inspect: Inspect, interval_s: float) -> None:
    """Redraw the screen at each reading, and in between, so that the ages on it stay right.

    Raises:
        QctlError: the first reading failed, or a later one failed although Redis is there.
    """
    from rich.live import Live  # noqa: PLC0415 - only for watching
    from rich.text import Text  # noqa: PLC0415

    reader = _Reader(env, inspect)
    last: Inspection | None = None
    read_at = due = time.monotonic()
    trouble = ""
    # When the outage began: Redis stopped answering, or a reading failed. None without an outage.
    away_since: float | None = None
    with Live(console=env.console(env.streams.stdout), auto_refresh=False) as live:
        while True:
            if not reader.is_reading and time.monotonic() >= due:
                reader.begin()
                due += interval_s
            wait_s = _TICK_S if reader.is_reading else min(due - time.monotonic(), _TICK_S)
            found = reader.wait(max(wait_s, 0))
            now = time.monotonic()
            if isinstance(found, QctlError) and last is not None and is_outage(found):
                trouble = f": {found.what}"
            elif isinstance(found, BaseException):
                raise found
            elif found is not None:
                last, read_at, trouble, away_since = found, now, "", None
            if found is not None:
                # A slow reading delays all later readings; none is made early to catch up.
                due = max(due, now)
            silent_s = reader.silent_s
            if away_since is None and (trouble or silent_s >= SILENCE_S):
                away_since = now - silent_s
            banner = ""
            if away_since is not None:
                banner = f"Redis has not answered for {duration(now - away_since)}{trouble}"
                if last is not None:
                    banner += f"; these figures are {duration(now - read_at)} old"
            elif last is None:
                continue
            clock = time.strftime("%H:%M:%S", time.localtime(time.time() - (now - read_at)))
            foot = f"every {interval_s:g} s, Ctrl-C to quit"
            if last is not None:
                foot = f"as of {clock}, {now - read_at:.0f} s ago; {foot}"
            text = watch_text(
                None if last is None else last.report,
                () if last is None else last.remarks,
                banner=banner,
                foot=foot,
                width=env.terminal_width,
                height=env.terminal_height,
                colour=env.may_colour(),
            )
            screen = Text.from_ansi(text, no_wrap=True, overflow="ellipsis")
            live.update(screen, refresh=True)


class _Reader:
    """Makes readings in a thread, so that the screen goes on if Redis hangs."""

    def __init__(self, env: Environment, inspect: Inspect) -> None:
        self._env = env
        self._inspect = inspect
        self._found: queue.SimpleQueue[Inspection | BaseException] = queue.SimpleQueue()
        self._client: PatientClient | None = None
        self._pulse = Pulse()
        self.is_reading = False

    def begin(self) -> None:
        """Begin a reading. The previous reading must have ended."""
        self.is_reading = True
        # A daemon thread does not delay the exit if Redis hangs.
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, timeout_s: float) -> Inspection | BaseException | None:
        """The reading or its error when it ends; None if that takes longer than ``timeout_s``."""
        try:
            found = self._found.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self.is_reading = False
        return found

    @property
    def silent_s(self) -> float:
        """For how many seconds Redis has not answered a command; 0 if no command waits for it.

        If a reading takes long for another reason, such as a slow process manager, this is 0.
        """
        return self._pulse.waited_s("Redis") if self.is_reading else 0.0

    def _read(self) -> None:
        try:
            if self._client is None:
                # Connecting is waiting for Redis as well.
                with self._pulse.asking("Redis"):
                    client = self._env.redis()[1]
                self._client = PatientClient(client, pulse=self._pulse)
            self._found.put(self._inspect(self._client))
        except BaseException as error:
            self._found.put(error)
