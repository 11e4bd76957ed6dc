"""``qctl top``."""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import QueuesOrAll
from qctl.durations import parse_duration_s
from qctl.errors import FailedError, UsageError
from qctl.extras import install_command

app = App()

_MIN_INTERVAL_S, _MAX_INTERVAL_S = 0.5, 3600.0


@app.command("top")
def top(
    env: Environment,
    names: QueuesOrAll = None,
    interval: Annotated[
        str, typer.Option("--interval", metavar="D", help="Time between two readings: 2s, 1m")
    ] = "2s",
) -> None:
    """Queues, workers and jobs, live on a full screen.

    Arrow keys choose a queue, Tab moves to the next list, `?` shows the keys. An action shows what
    it will change, and asks first. Needs the extra qctl[top].
    """
    interval_s = parse_duration_s(
        interval, "--interval", min_s=_MIN_INTERVAL_S, max_s=_MAX_INTERVAL_S, example="2s"
    )
    streams = env.streams
    can_draw = streams.stdin_is_terminal and streams.stdout_is_terminal
    if env.output != "table" or not can_draw or streams.environ.get("TERM") in {"dumb", "unknown"}:
        raise UsageError(
            "qctl top needs a terminal to draw on",
            hint="qctl status --watch --output ndjson prints one JSON object per reading",
        )
    if find_spec("textual") is None:
        raise FailedError(
            "qctl top needs Textual, which is not installed",
            hint=install_command("top"),
        )
    from qctl.cli.top_actions import CommandActions  # noqa: PLC0415 - not for --help
    from qctl.cli.top_details import CommandDetails  # noqa: PLC0415
    from qctl.connection.connect import connect  # noqa: PLC0415
    from qctl.ops.live.view import LiveReader  # noqa: PLC0415
    from qctl.ops.queues.select import select_queues  # noqa: PLC0415

    queues = select_queues(env.redis()[1], env.settings.prefixes, names or [])
    # Readings and details use connections of their own, because a drain blocks ``env.redis()``.
    address, client = connect(env.settings.full_url())
    _, other = connect(env.settings.full_url())
    with contextlib.closing(client), contextlib.closing(other):
        reader = LiveReader(client, address, env.settings, queues)
        reader.check()
        if not env.may_colour():
            # Textual has no other switch for colours.
            os.environ["NO_COLOR"] = "1"
        from qctl.output.top.app import TopApp  # noqa: PLC0415 - Textual, 200 ms

        details = CommandDetails(other, address, env.settings, reader.keys_of)
        actions = CommandActions(env, reader.keys_of)
        screen = TopApp(reader.read, actions, details, interval_s=interval_s)
        code = screen.run(mouse=False)
    # If there is no exit code, Textual itself ended the screen, for example after an error.
    if code is None:
        code = screen.return_code or 0
    if code:
        raise typer.Exit(code)
