"""``qctl purge``."""

from __future__ import annotations

from typing import Annotated

import typer

from qctl.cli.bulk import BulkOptions, RestingState, carry_out, select
from qctl.cli.environment import Environment
from qctl.cli.frame import new_app, with_environment
from qctl.cli.options import NamedIds, Queue

app = new_app()


@app.command("purge")
@with_environment
def purge(
    env: Environment,
    queue: Queue,
    *,
    state: Annotated[RestingState, typer.Option("--state", help="Which jobs")],
    ids: NamedIds = None,
    options: BulkOptions,
) -> None:
    """Delete the jobs of a state.

    Like `jobs remove --state`, but one event stands for many jobs, and you type the queue's name to
    confirm.
    """
    from qctl.ops.bulk.actions import purging  # noqa: PLC0415 - not for --help

    carry_out(env, queue, purging(), select(state, ids, options), options)
