"""``qctl impact``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import QueuesOrThoseOfTarget, target_option
from qctl.durations import parse_duration_s
from qctl.errors import UsageError

if TYPE_CHECKING:
    from qctl.ops.impact.scope import Platform

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
            help="How long the queues have no worker; what is scheduled in this time runs late. "
            "Default: as long as a plain restart takes",
            show_default=False,
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(
            "--grace",
            metavar="D",
            help="The platform's time from the stop signal to SIGKILL. For platforms that qctl "
            "cannot ask: Fly, Cloud Run, ECS, Heroku. Without --target, it applies to all workers "
            "of the queues",
            show_default=False,
        ),
    ] = None,
    stop_signal: Annotated[
        str | None,
        typer.Option(
            "--signal",
            metavar="NAME",
            help="With --grace: the stop signal that the platform sends, for example TERM",
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
    platform = _platform(grace, stop_signal)
    address, client = env.redis()
    words = queues or []
    found = assess(
        client, address, env.settings, words, target=target, away_s=away_s, platform=platform
    )
    if env.output == "table":
        from qctl.output.impact.page import impact_text  # noqa: PLC0415

        env.draw(impact_text, found.impact)
    else:
        env.emit_json(found.impact)
    env.note(*found.remarks)
    found.queues.raise_if_broken()


def _platform(grace: str | None, stop_signal: str | None) -> Platform | None:
    import signal  # noqa: PLC0415 - not for --help

    from qctl.ops.impact.scope import Platform  # noqa: PLC0415

    if grace is None:
        if stop_signal is not None:
            raise UsageError("--signal needs --grace", hint="--grace 10s --signal TERM")
        return None
    name = (stop_signal or "").upper()
    name = name if not name or name.startswith("SIG") else f"SIG{name}"
    if name and name not in {each.name for each in signal.Signals}:
        raise UsageError(f"--signal: no signal {stop_signal!r}", hint="--signal TERM")
    return Platform(parse_duration_s(grace, "--grace"), name)
