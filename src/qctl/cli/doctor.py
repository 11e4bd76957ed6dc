"""``qctl doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from qctl.cli.frame import Environment, new_app, with_environment
from qctl.errors import ExitStatus

app = new_app()


@app.command("doctor")
@with_environment
def doctor(
    env: Environment,
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUEUE]...", help="Only these queues", show_default=False),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="Only this process and the queues that it serves, for example pm2:worker",
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Look at every job and key instead of samples")
    ] = False,
) -> None:
    """Hazards of queues, workers and Redis, each with its remedy.

    Nothing is written. Exit code 1 when there is an error or a warning, 0 when there is none; an
    info alone is 0. What the checks look at stands in docs/doctor.md.
    """
    from qctl.ops.doctor.run import examine  # noqa: PLC0415 - not for --help

    address, client = env.redis()
    diagnosis = examine(client, address, env.settings, queues or [], target=target, full=full)
    if env.output == "table":
        from qctl.output.doctor import diagnosis_text  # noqa: PLC0415

        text = diagnosis_text(diagnosis, width=env.width, colour=env.colour())
        env.streams.stdout.write(text)
    else:
        env.emit_json(diagnosis)
    if not diagnosis.is_well:
        raise typer.Exit(ExitStatus.FAILED)
