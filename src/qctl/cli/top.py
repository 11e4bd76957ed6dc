"""``qctl top``."""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from typing import Annotated

import typer

from qctl.cli.frame import Environment, new_app, with_environment
from qctl.errors import FailedError, UsageError
from qctl.extras import install_command

app = new_app()

_LEAST_INTERVAL_S = 0.5
_LONGEST_INTERVAL_S = 3600.0


@app.command("top")
@with_environment
def top(
    env: Environment,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUEUE]...", help="Only these queues", show_default=False),
    ] = None,
    interval_s: Annotated[
        float,
        typer.Option(
            "--interval",
            metavar="S",
            min=_LEAST_INTERVAL_S,
            max=_LONGEST_INTERVAL_S,
            help="Seconds between two readings",
        ),
    ] = 2.0,
) -> None:
    """Queues, workers and jobs, live on the whole screen.

    Arrow keys choose a queue, Tab goes to the other lists, `?` shows the keys. Actions say first
    what they will change. Needs the extra qctl[top].
    """
    _require_terminal(env)
    if find_spec("textual") is None:
        raise FailedError(
            "qctl top needs Textual, which is not installed",
            hint=install_command("top"),
        )
    from qctl.cli.top_actions import CommandActions  # noqa: PLC0415 - not for --help
    from qctl.connection.connect import connect  # noqa: PLC0415
    from qctl.ops.live.view import LiveReader  # noqa: PLC0415

    # Readings have a connection of their own: a drain waits on the other.
    address, client = connect(env.settings.full_url())
    with contextlib.closing(client):
        reader = LiveReader(client, address, env.settings, names or [])
        reader.check()
        if not env.colour():
            # Textual knows no other way to be told.
            os.environ["NO_COLOR"] = "1"
        from qctl.output.top.app import TopApp  # noqa: PLC0415 - Textual, 200 ms

        screen = TopApp(reader.read, CommandActions(env), interval_s=interval_s)
        code = screen.run(mouse=False)
    if code is None:
        code = screen.return_code or 0
    if code:
        raise typer.Exit(code)


def _require_terminal(env: Environment) -> None:
    streams = env.streams
    drawable = streams.stdin_is_terminal and streams.stdout_is_terminal
    if env.output != "table" or not drawable or streams.environ.get("TERM") in {"dumb", "unknown"}:
        raise UsageError(
            "qctl top needs a terminal to draw on",
            why="it is a screen for a person",
            hint="qctl status --watch --output ndjson prints one JSON object per look",
        )
