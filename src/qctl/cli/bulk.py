"""``qctl purge``; ``qctl jobs retry``, ``retry-failed``, ``promote``, ``remove``, ``cancel``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qctl.cli.candidates import queue_names
from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import AllQueues, DryRun, Limit, NamedIds, Queue, QueuesOrAllQueues, Yes
from qctl.cli.times import typed_time
from qctl.errors import UsageError

if TYPE_CHECKING:
    from qctl.ops.bulk.actions import Action, Selection
    from qctl.ops.jobs.where import Filter

app = App()

OptionalQueue = Annotated[
    str | None,
    typer.Argument(
        metavar="[QUEUE]",
        help="The queue's name, or use --all-queues",
        show_default=False,
        autocompletion=queue_names,
    ),
]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs' ids")]
SomeIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Only these jobs; or use the filters")
]
ResetAttempts = Annotated[
    bool,
    typer.Option(
        "--reset-attempts",
        help="Reset the counts of attempts and stalls; without this, each job gets one more run",
    ),
]
# The states of `jobs list` without active: qctl does not change a job that a worker runs.
RestingState = Literal[
    "waiting", "stalled", "delayed", "prioritized", "waiting-children", "completed", "failed"
]


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """The options that choose among the jobs of a state."""

    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Only jobs with this name")
    ] = None
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="EXPR", help="Only matching jobs: 'error ~ \"timeout\"'"),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Added or finished since TIME: an age (2h), 03:55, yesterday, or a date and time",
        ),
    ] = None
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Added or finished before TIME"),
    ] = None


@dataclass(frozen=True, slots=True)
class BulkOptions(FilterOptions):
    """The options of commands that change many jobs."""

    limit: Limit = None
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", min=0.01, help="At most N jobs a second"),
    ] = None
    no_count: Annotated[
        bool,
        typer.Option(
            "--no-count",
            help="Ask for confirmation at once, without counting the jobs that match the filters",
        ),
    ] = False
    yes: Yes = False
    dry_run: DryRun = False


def retry(
    env: Environment,
    queue: Queue,
    ids: Ids,
    *,
    reset_attempts: ResetAttempts = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Run finished jobs again, failed or completed, and put lost jobs back.

    A job keeps its priority, and its parent waits for the job again. A lost job has not finished
    and is in no state; `qctl doctor --full` finds lost jobs.
    """
    from qctl.ops.bulk.actions import Selection, retrying  # noqa: PLC0415 - not for --help

    action = retrying(reset_attempts=reset_attempts)
    _carry_out(
        env, queue, action, Selection(ids=_unique(ids)), BulkOptions(yes=yes, dry_run=dry_run)
    )


def retry_failed(
    env: Environment,
    queues: QueuesOrAllQueues = None,
    *,
    all_queues: AllQueues = False,
    ids: NamedIds = None,
    reset_attempts: ResetAttempts = False,
    options: BulkOptions,
) -> None:
    """Run failed jobs again, oldest failures first.

    Each job keeps its priority, and its parent waits for the job again. A job that fails again
    while this command runs is not retried a second time.
    """
    from qctl.ops.bulk.actions import retrying  # noqa: PLC0415 - not for --help

    action = retrying("failed", reset_attempts=reset_attempts)
    selection = _select(env, "failed", ids, options)
    _carry_out_in_several(env, queues or [], action, selection, options, all_queues=all_queues)


def promote(
    env: Environment,
    queue: OptionalQueue = None,
    ids: SomeIds = None,
    *,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="QUEUE",
            help="Also the delayed jobs of this queue; may be repeated",
            autocompletion=queue_names,
        ),
    ] = None,
    all_queues: AllQueues = False,
    options: BulkOptions,
) -> None:
    """Run delayed jobs now, earliest due first.

    Each job keeps its priority.
    """
    from qctl.ops.bulk.actions import promoting  # noqa: PLC0415 - not for --help

    selection = _select(env, None if ids else "delayed", ids, options)
    words = [*([] if queue is None else [queue]), *(queues or [])]
    _carry_out_in_several(env, words, promoting(), selection, options, all_queues=all_queues)


def remove(
    env: Environment,
    queue: Queue,
    ids: SomeIds = None,
    *,
    state: Annotated[
        RestingState | None, typer.Option("--state", help="The state of the jobs")
    ] = None,
    with_children: Annotated[
        bool, typer.Option("--with-children", help="Also delete all jobs below these in a flow")
    ] = False,
    options: BulkOptions,
) -> None:
    """Delete jobs, by id or by state.

    Does not delete jobs that a worker runs, parents with unfinished children, or the next jobs of
    schedulers. If a parent waited only for a deleted child, the parent continues.
    """
    from qctl.ops.bulk.actions import removing  # noqa: PLC0415 - not for --help

    if not ids and state is None:
        raise UsageError("no job is named", hint="name ids, or a state: --state failed")
    action = removing(with_children=with_children)
    _carry_out(env, queue, action, _select(env, state, ids, options), options)


def cancel(
    env: Environment, queue: Queue, ids: Ids, *, yes: Yes = False, dry_run: DryRun = False
) -> None:
    """Cancel jobs: interrupt those that run on qctl's own workers, delete those that wait.

    A running job that is cancelled fails, and is not retried. A job cannot be cancelled if it runs
    in a thread, or on a Node worker: BullMQ can cancel a job only inside the worker's process.
    """
    from qctl.ops.bulk.actions import Selection, cancelling  # noqa: PLC0415 - not for --help

    selection = Selection(ids=_unique(ids))
    _carry_out(env, queue, cancelling(), selection, BulkOptions(yes=yes, dry_run=dry_run))


@app.command("purge")
def purge(
    env: Environment,
    queue: Queue,
    *,
    state: Annotated[RestingState, typer.Option("--state", help="The state of the jobs")],
    ids: NamedIds = None,
    options: BulkOptions,
) -> None:
    """Delete the jobs of a state.

    Faster than `jobs remove --state`, and adds only one event for many jobs. To confirm, you type
    the queue's name.
    """
    from qctl.ops.bulk.actions import purging  # noqa: PLC0415 - not for --help

    _carry_out(env, queue, purging(), _select(env, state, ids, options), options)


def _unique(ids: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids or ()))


def _select(
    env: Environment, state: str | None, ids: list[str] | None, options: BulkOptions
) -> Selection:
    from qctl.ops.bulk.actions import Selection  # noqa: PLC0415

    if state is not None:
        return Selection(state=state, only=parse_filter(env, ids, options), limit=options.limit)
    if any((options.name, options.where, options.since, options.until)):
        raise UsageError(
            "filters choose among the jobs of a state, but these jobs are named by id",
            hint="leave out the ids or the filters",
        )
    return Selection(ids=_unique(ids), limit=options.limit)


def parse_filter(env: Environment, ids: list[str] | None, options: FilterOptions) -> Filter:
    """The filter that the options describe; a UsageError if a value is malformed."""
    from qctl.ops.jobs.where import Filter, parse_where  # noqa: PLC0415

    where = options.where
    since = typed_time(env, options.since)
    until = typed_time(env, options.until, "--until")
    if since is not None and until is not None and since > until:
        raise UsageError(
            f"--since {options.since} is later than --until {options.until}",
            why="a time of day that is later than now means yesterday",
            hint="give the date as well, as in 2026-01-31T03:55",
        )
    return Filter(
        ids=frozenset(ids or ()),
        name=options.name,
        where=parse_where(where) if where is not None else None,
        since=since,
        until=until,
    )


def _carry_out(
    env: Environment,
    queue: str,
    action: Action,
    selection: Selection,
    options: BulkOptions,
) -> None:
    """``carry_out`` for one queue.

    Raises:
        NotFoundError: there is no such queue.
        UsageError: ``--rate`` is not finite.
    """
    from qctl.cli.bulk_run import carry_out  # noqa: PLC0415 - not for --help
    from qctl.ops.queues.find import Queues, find_queues  # noqa: PLC0415

    _require_finite(options.rate)
    _, client = env.redis()
    found = Queues(tuple(find_queues(client, env.settings.prefix, [queue])))
    carry_out(env, found, action, selection, **_how(options))


def _carry_out_in_several(
    env: Environment,
    words: list[str],
    action: Action,
    selection: Selection,
    options: BulkOptions,
    *,
    all_queues: bool,
) -> None:
    """``carry_out`` for the queues that the words name, or for all queues.

    Raises:
        NotFoundError: there is no such queue.
        UsageError: no queue is named, jobs of several queues are named by id, or ``--rate`` is not
            finite.
    """
    from qctl.cli.bulk_run import carry_out  # noqa: PLC0415 - not for --help
    from qctl.ops.queues.find import Queues, queues_named_or_all, read_existing  # noqa: PLC0415
    from qctl.ops.queues.select import select_one  # noqa: PLC0415

    require_queues(words, all_queues=all_queues)
    _require_finite(options.rate)
    _, client = env.redis()
    prefixes = env.settings.prefixes
    if selection.named_count:
        if all_queues or len(set(words)) > 1:
            raise UsageError(
                "ids name jobs of one queue, but several queues are chosen",
                hint="name one queue, or leave out the ids",
            )
        keys = select_one(client, prefixes, words[0])
        found = Queues(tuple(read_existing(client, [keys])))
    elif all_queues:
        found = queues_named_or_all(client, prefixes, [])
        # If all queues are of Bull 3/4, keep them, so that ``carry_out`` refuses them.
        found = found.without_bull() if found.bullmq or found.broken else found
    else:
        found = queues_named_or_all(client, prefixes, words)
    as_list = all_queues or len(found.keys) > 1
    carry_out(env, found, action, selection, as_list=as_list, **_how(options))


def require_queues(words: list[str], *, all_queues: bool) -> None:
    """Require names of queues or ``--all-queues``.

    Raises:
        UsageError: neither or both are given.
    """
    if words and all_queues:
        raise UsageError(
            "--all-queues and names of queues exclude each other", hint="leave out one of them"
        )
    if not words and not all_queues:
        raise UsageError("no queue is named", hint="name queues, or --all-queues")


def _how(options: BulkOptions) -> dict[str, Any]:
    return {
        "rate": options.rate,
        "counts": not options.no_count,
        "yes": options.yes,
        "dry_run": options.dry_run,
    }


def _require_finite(rate: float | None) -> None:
    if rate is not None and not math.isfinite(rate):
        raise UsageError(f"--rate {rate} is not a number", hint="leave it out for no limit")
