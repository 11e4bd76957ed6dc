"""``qctl purge``."""

from __future__ import annotations

from typing import Annotated

import typer

from qctl.cli.bulk import (
    DryRun,
    Limit,
    Name,
    NamedIds,
    Queue,
    Rate,
    Since,
    State,
    Until,
    Where,
    Yes,
    carry_out,
    select,
)
from qctl.cli.frame import Environment, new_app, with_environment

app = new_app()


@app.command("purge")
@with_environment
def purge(
    env: Environment,
    queue: Queue,
    *,
    state: Annotated[State, typer.Option("--state", help="Which jobs")],
    name: Name = None,
    ids: NamedIds = None,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    rate: Rate = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete the jobs of a state.

    Like `jobs remove --state`, but one event tells of many jobs, and the queue's name is asked for.
    """
    from qctl.ops.bulk.actions import purging  # noqa: PLC0415 - not for --help

    chosen = select(state, ids, name, where, since, until, limit)
    carry_out(env, queue, purging(), chosen, rate=rate, yes=yes, dry_run=dry_run)
