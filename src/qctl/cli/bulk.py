"""``qctl purge``, and ``qctl jobs retry``, ``retry-failed``, ``promote``, ``remove``."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import DryRun, Limit, NamedIds, Queue, Yes
from qctl.errors import ExitStatus, NotFoundError, UsageError

if TYPE_CHECKING:
    from rich.live import Live

    from qctl.ops.bulk.actions import Action, Selection
    from qctl.ops.bulk.model import BulkReport
    from qctl.ops.bulk.run import BulkRun
    from qctl.ops.jobs.where import Filter

app = App()

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
            "--since", metavar="TIME", help="Added or finished since TIME: an age (2h) or a time"
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
    queue: Queue,
    *,
    ids: NamedIds = None,
    reset_attempts: ResetAttempts = False,
    options: BulkOptions,
) -> None:
    """Run failed jobs again, oldest failures first.

    Each job keeps its priority, and its parent waits for the job again. A job that fails again
    while this command runs is not retried a second time.
    """
    from qctl.ops.bulk.actions import retrying  # noqa: PLC0415 - not for --help

    chosen = _select("failed", ids, options)
    _carry_out(env, queue, retrying("failed", reset_attempts=reset_attempts), chosen, options)


def promote(env: Environment, queue: Queue, ids: SomeIds = None, *, options: BulkOptions) -> None:
    """Run delayed jobs now, earliest due first.

    Each job keeps its priority.
    """
    from qctl.ops.bulk.actions import promoting  # noqa: PLC0415 - not for --help

    chosen = _select(None if ids else "delayed", ids, options)
    _carry_out(env, queue, promoting(), chosen, options)


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
    _carry_out(env, queue, action, _select(state, ids, options), options)


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

    _carry_out(env, queue, purging(), _select(state, ids, options), options)


def _unique(ids: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids or ()))


def _select(state: str | None, ids: list[str] | None, options: BulkOptions) -> Selection:
    from qctl.ops.bulk.actions import Selection  # noqa: PLC0415

    if state is not None:
        return Selection(state=state, only=parse_filter(ids, options), limit=options.limit)
    if any((options.name, options.where, options.since, options.until)):
        raise UsageError(
            "filters choose among the jobs of a state, but these jobs are named by id",
            hint="leave out the ids or the filters",
        )
    return Selection(ids=_unique(ids), limit=options.limit)


def parse_filter(ids: list[str] | None, options: FilterOptions) -> Filter:
    """The filter that the options describe; a UsageError if a value is malformed."""
    from qctl.ops.jobs.where import Filter, parse_where  # noqa: PLC0415
    from qctl.ops.times import parse_time  # noqa: PLC0415

    where, since, until = options.where, options.since, options.until
    return Filter(
        ids=frozenset(ids or ()),
        name=options.name,
        where=parse_where(where) if where is not None else None,
        since=parse_time(since) if since is not None else None,
        until=parse_time(until, flag="--until") if until is not None else None,
    )


def _carry_out(
    env: Environment,
    queue: str,
    action: Action,
    selection: Selection,
    options: BulkOptions,
) -> None:
    """Ask for confirmation, change the jobs, show the progress, and report the result.

    Raises:
        RefusedError, UsageError: the change was not confirmed, or ``--rate`` is not finite.
        NotFoundError: there is no such queue, or none of the jobs named by id was changed.
        typer.Exit: some jobs could not be changed; the exit code is ``PARTIAL``.
    """
    from qctl.cli.signals import stop_on_signals  # noqa: PLC0415
    from qctl.ops.bulk.run import BulkRun  # noqa: PLC0415
    from qctl.ops.queues.find import find_queues, require_bullmq  # noqa: PLC0415
    from qctl.output.changes import bulk_lines  # noqa: PLC0415

    if options.rate is not None and not math.isfinite(options.rate):
        raise UsageError(f"--rate {options.rate} is not a number", hint="leave it out for no limit")
    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    require_bullmq([snapshot])
    state = selection.state
    total = (
        len(selection.ids)
        if state is None
        else int(getattr(snapshot.counts, state.replace("-", "_")))
    )
    if not options.yes and not options.dry_run:
        _confirm(env, queue, action, selection, total)
    with stop_on_signals(env.note, doing="stopping after the current step") as stop:
        run = BulkRun(
            client,
            snapshot.keys,
            action,
            selection,
            total,
            dry_run=options.dry_run,
            rate=options.rate,
            stop=stop,
        )
        try:
            with _progress_line(env, run) if env.animated else contextlib.nullcontext():
                for progress in run:
                    if env.output == "ndjson":
                        env.emit_json(progress)
        finally:
            # Even after an error or a signal, the operator must know which changes were made.
            report = run.report()
            if report.complete or report.done or report.below_count:
                lines = bulk_lines(report, paused=snapshot.paused)
                env.show(report, lines, dry_run=report.dry_run)
    if selection.named_count and report.skipped_count:
        _raise_skipped(env, report)
    # A job that left the state while the command ran is no failure.
    elif report.skipped_count > report.moved_on_count:
        raise typer.Exit(ExitStatus.PARTIAL)


def _confirm(
    env: Environment, queue: str, action: Action, selection: Selection, total: int
) -> None:
    from qctl.ops.bulk.actions import Confirmation, max_changed, required_confirmation  # noqa: PLC0415
    from qctl.output.changes import bulk_question  # noqa: PLC0415

    required = required_confirmation(action, selection, total)
    if required is Confirmation.NONE:
        return
    text = bulk_question(action, queue, selection, max_changed(selection, total))
    if required is Confirmation.YES:
        env.confirm(f"{text}?")
    else:
        env.confirm_name(f"{text}.", queue)


def _progress_line(env: Environment, run: BulkRun) -> Live:
    """A progress line on a terminal, redrawn even while one step takes long, as in a large flow."""
    from rich.live import Live  # noqa: PLC0415 - only on a terminal
    from rich.text import Text  # noqa: PLC0415

    from qctl.output.changes import bulk_progress  # noqa: PLC0415

    return Live(
        get_renderable=lambda: Text(bulk_progress(run.progress())),
        console=env.console(env.streams.stderr),
        refresh_per_second=10,
        transient=True,
    )


def _raise_skipped(env: Environment, report: BulkReport) -> None:
    """Fail because some of the jobs that were named by id were not changed."""
    from qctl.ops.processes.suggest import command  # noqa: PLC0415

    if report.done or report.below_count:
        raise typer.Exit(ExitStatus.PARTIAL)
    first = report.skipped[0]
    raise NotFoundError(
        "nothing would be changed" if report.dry_run else "nothing was changed",
        why=f"{first.id}: {first.reason}",
        hint=command(env.settings.prefix, "jobs", "show", report.queue, first.id),
    )
