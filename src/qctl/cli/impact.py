"""``qctl impact``."""

from __future__ import annotations

from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import QueuesOrThoseOfTarget, target_option
from qctl.durations import parse_duration_s

app = App()


@app.command("impact")
def impact(
    env: Environment,
    queues: QueuesOrThoseOfTarget = None,
    target: Annotated[
        str | None,
        target_option(
            "What would be restarted, for example pm2:worker. Default: the app that serves the "
            "queues, if there is exactly one; else all workers of the queues"
        ),
    ] = None,
    away: Annotated[
        str | None,
        typer.Option(
            "--away",
            metavar="D",
            help="How long no worker will run; decides which scheduled jobs run late. Default: as "
            "long as a plain restart takes",
            show_default=False,
        ),
    ] = None,
) -> None:
    """What a restart now would do to the jobs, and when to restart.

    Nothing is written. The verdict assumes the worst case, because qctl cannot see whether an app
    finishes its jobs on the stop signal. Exit code 0 means that there is an answer, not that a
    restart is safe, so scripts must read .verdict.word of --json.
    """
    from qctl.ops.impact.assess import assess  # noqa: PLC0415 - not for --help

    away_s = None if away is None else parse_duration_s(away, "--away")
    address, client = env.redis()
    names = env.under_one_prefix(queues or [])
    found = assess(client, address, env.settings, names, target=target, away_s=away_s)
    if env.output == "table":
        from qctl.output.impact.page import impact_text  # noqa: PLC0415

        env.draw(impact_text, found.impact)
    else:
        env.emit_json(found.impact)
    env.note(*found.remarks)
    found.queues.raise_if_broken()
