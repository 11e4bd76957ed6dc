"""``qctl doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import QueuesOrAll, target_option
from qctl.errors import ExitStatus

app = App()


@app.command("doctor")
def doctor(
    env: Environment,
    queues: QueuesOrAll = None,
    target: Annotated[
        str | None,
        target_option("Only this process, for example pm2:worker, and the queues that it serves"),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Check every job and key instead of samples")
    ] = False,
) -> None:
    """Find problems of queues, workers and Redis, each with its fix.

    Nothing is written to Redis. The exit code is 1 if there is an error or a warning, else 0. The
    checks are listed by `qctl help doctor`.
    """
    from qctl.ops.doctor.run import examine, remember_errors  # noqa: PLC0415 - not for --help

    address, client = env.redis()
    diagnosis = examine(client, address, env.settings, queues or [], target=target, full=full)
    if not queues and target is None:
        remember_errors(client, address, env.settings, diagnosis)
    if env.output == "table":
        from qctl.output.doctor import diagnosis_text  # noqa: PLC0415

        env.draw(diagnosis_text, diagnosis)
    else:
        env.emit_json(diagnosis)
    if not diagnosis.is_well:
        raise typer.Exit(ExitStatus.FAILED)
