"""``qctl jobs``: list, show, tree, logs. Other commands have their own modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from qctl.cli.add import add
from qctl.cli.bulk import FilterOptions, cancel, parse_filter, promote, remove, retry, retry_failed
from qctl.cli.environment import Environment
from qctl.cli.failures import failures
from qctl.cli.frame import App
from qctl.cli.options import JobId, NamedIds, Queue, State
from qctl.cli.stalled import retry_stalled
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import UsageError
from qctl.ops.jobs.fate import AnyJob, add_fates
from qctl.ops.jobs.flows import DEFAULT_DEPTH, DEFAULT_NODES, read_tree
from qctl.ops.jobs.listing import DEFAULT_LIMIT, list_jobs, show_job, stream_jobs
from qctl.ops.jobs.logs import follow_logs, read_logs
from qctl.ops.queues.find import find_queues
from qctl.ops.queues.status import workers_of
from qctl.wire.read.clients import list_workers
from qctl.wire.read.snapshot import QueueSnapshot

app = App()


@app.command("list")
def list_command(
    env: Environment,
    queue: Queue,
    *,
    state: Annotated[State, typer.Option("--state", help="The state of the jobs")],
    ids: NamedIds = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="At most N jobs")
    ] = DEFAULT_LIMIT,
    filters: FilterOptions,
) -> None:
    """Jobs of one state. The job that runs next comes first; of finished jobs, the newest."""
    only = parse_filter(env, ids, filters)
    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    if env.output == "ndjson" and state not in {"active", "stalled"}:
        # Streaming saves memory. Active jobs are not streamed, because their fates are added below.
        env.emit_json(None, stream_jobs(client, snapshot.keys, state, only, limit=limit))
        return
    jobs = list_jobs(client, snapshot, state, only, limit=limit)
    if any(job.state in {"active", "stalled"} for job in jobs.jobs):
        jobs = replace(jobs, jobs=with_fates(*env.redis(), env.settings, snapshot, jobs.jobs))
    if env.output != "table":
        env.emit_json(jobs, jobs.jobs)
        return
    from qctl.output import jobs as view  # noqa: PLC0415 - not for JSON

    if jobs.jobs:
        env.table(view.columns(jobs, datetime.now(UTC), env.width), jobs.jobs)
    if state in {"active", "stalled"}:
        env.print(*view.fate_lines(jobs))
    if remark := view.summary(jobs, limit=limit, filtered=only.is_set):
        env.note(remark)


@app.command("show")
def show_command(env: Environment, queue: Queue, job_id: JobId) -> None:
    """One job in full."""
    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    job = show_job(client, snapshot.keys, job_id)
    if job.state in {"active", "stalled"}:
        (job,) = with_fates(*env.redis(), env.settings, snapshot, [job])
    now, prefix = datetime.now(UTC), snapshot.keys.prefix
    if env.shows_blocks:
        from qctl.output.job_block import job_block  # noqa: PLC0415 - only for a terminal

        env.print_block(job_block, job, now, prefix)
        return
    from qctl.output.jobs import detail_lines  # noqa: PLC0415 - only for this and `jobs list`

    env.show(job, detail_lines(job, now, prefix))


@app.command("tree")
def tree_command(
    env: Environment,
    queue: Queue,
    job_id: JobId,
    *,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="At most N jobs")
    ] = DEFAULT_NODES,
    depth: Annotated[
        int, typer.Option("--depth", metavar="N", min=1, max=100, help="At most N levels")
    ] = DEFAULT_DEPTH,
) -> None:
    """The whole flow that a job belongs to, from its root, with states.

    Jobs of other queues are shown as QUEUE ID. Children that have not ended come first.
    """
    from qctl.output.flows import tree_remarks, tree_text  # noqa: PLC0415

    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    tree = read_tree(client, (snapshot.keys, job_id), max_nodes=limit, max_depth=depth)
    if env.output != "table":
        env.emit_json(tree)
        return
    env.draw(tree_text, tree)
    env.streams.stdout.flush()
    env.note(*tree_remarks(tree))


@app.command("logs")
def logs_command(
    env: Environment,
    queue: Queue,
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Continue with new rows until the job has finished")
    ] = False,
) -> None:
    """The log rows of a job."""
    from qctl.output.text import visible  # noqa: PLC0415

    if follow and env.output == "json":
        raise UsageError(
            "--follow prints one row at a time, so it cannot print one JSON object",
            hint="--output ndjson prints one object per row",
        )
    _, client = env.redis()
    keys = find_queues(client, env.settings.prefix, [queue])[0].keys
    if not follow and env.output == "json":
        env.emit_json(read_logs(client, keys, job_id))
        return
    rows: Iterable[str] = (
        follow_logs(client, keys, job_id, say=env.note)
        if follow
        else read_logs(client, keys, job_id).logs
    )
    for row in rows:
        env.show({"row": row}, [visible(row)])
        if follow:
            env.streams.stdout.flush()


def with_fates(
    address: Address,
    client: Client,
    settings: Settings,
    snapshot: QueueSnapshot,
    jobs: Sequence[AnyJob],
) -> tuple[AnyJob, ...]:
    """Add to each active or stalled job its fate: what happens if the job's worker is gone."""
    keys = snapshot.keys
    return add_fates(
        client,
        keys,
        jobs,
        workers_of(snapshot, list_workers(client, keys.prefix, [keys.name], address.db)),
        max_stalled_count=settings.max_stalled_count,
        paused=snapshot.paused,
    )


app.command("failures")(failures)
app.command("retry-stalled")(retry_stalled)
app.command("retry")(retry)
app.command("retry-failed")(retry_failed)
app.command("promote")(promote)
app.command("remove")(remove)
app.command("cancel")(cancel)
app.command("add")(add)
