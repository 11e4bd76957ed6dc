"""``qctl jobs retry``, ``retry-failed``, ``promote``, ``remove``, and what ``purge`` shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qctl.cli.frame import Environment, with_environment
from qctl.errors import ExitStatus, NotFoundError, RefusedError, UsageError

if TYPE_CHECKING:
    from qctl.ops.bulk.actions import Action
    from qctl.ops.bulk.choice import Selection
    from qctl.ops.bulk.report import BulkReport
    from qctl.ops.bulk.run import BulkRun
    from qctl.ops.jobs.where import Filter

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs' ids")]
SomeIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Only these; or use the filters")
]
NamedIds = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Only this job; may be repeated")
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only jobs of this name")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help="Only if this holds, e.g. 'error ~ \"timeout\"'"),
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only those finished or added since: 2h, a time"),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only those finished or added before")
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="How many at most")]
Rate = Annotated[
    float | None, typer.Option("--rate", metavar="N", min=0.01, help="How many a second at most")
]
ResetAttempts = Annotated[
    bool,
    typer.Option("--reset-attempts", help="Forget attempts and stalls; else they get one more run"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing")]
State = Literal[
    "waiting",
    "stalled",
    "delayed",
    "prioritized",
    "waiting-children",
    "completed",
    "failed",
]


@with_environment
def retry(
    env: Environment,
    queue: Queue,
    ids: Ids,
    *,
    reset_attempts: ResetAttempts = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Run finished jobs again, failed or completed ones, and put lost ones back.

    A job keeps its priority, and its parent waits for it again. A lost job is one that has not
    ended and is in no state, as `qctl doctor --full` finds them.
    """
    from qctl.ops.bulk.actions import retrying  # noqa: PLC0415 - not for --help
    from qctl.ops.bulk.choice import Selection  # noqa: PLC0415

    action = retrying(reset_attempts=reset_attempts)
    carry_out(env, queue, action, Selection(ids=_unique(ids)), yes=yes, dry_run=dry_run)


@with_environment
def retry_failed(
    env: Environment,
    queue: Queue,
    *,
    name: Name = None,
    ids: NamedIds = None,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    rate: Rate = None,
    reset_attempts: ResetAttempts = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Run failed jobs again, those that failed first first.

    Each job keeps its priority, and its parent waits for it again. One that fails once more
    meanwhile is not retried a second time.
    """
    from qctl.ops.bulk.actions import retrying  # noqa: PLC0415 - not for --help

    chosen = select("failed", ids, name, where, since, until, limit)
    action = retrying("failed", reset_attempts=reset_attempts)
    carry_out(env, queue, action, chosen, rate=rate, yes=yes, dry_run=dry_run)


@with_environment
def promote(
    env: Environment,
    queue: Queue,
    ids: SomeIds = None,
    *,
    name: Name = None,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    rate: Rate = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Run delayed jobs now, those due first first.

    Each job keeps its priority.
    """
    from qctl.ops.bulk.actions import promoting  # noqa: PLC0415 - not for --help

    chosen = select(None if ids else "delayed", ids, name, where, since, until, limit)
    carry_out(env, queue, promoting(), chosen, rate=rate, yes=yes, dry_run=dry_run)


@with_environment
def remove(
    env: Environment,
    queue: Queue,
    ids: SomeIds = None,
    *,
    state: Annotated[State | None, typer.Option("--state", help="Which jobs")] = None,
    name: Name = None,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    rate: Rate = None,
    with_children: Annotated[
        bool, typer.Option("--with-children", help="Also all jobs below them in their flows")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete jobs, by id or those of a state.

    Jobs that a worker has are left alone, and so are parents whose children have not ended and the
    next runs of schedulers. A parent that waits for nothing else goes on without a deleted child.
    """
    from qctl.ops.bulk.actions import removing  # noqa: PLC0415 - not for --help

    if not ids and state is None:
        raise UsageError("which jobs?", hint="name their ids, or a state: --state failed")
    chosen = select(state, ids, name, where, since, until, limit)
    action = removing(with_children=with_children)
    carry_out(env, queue, action, chosen, rate=rate, yes=yes, dry_run=dry_run)


def _unique(ids: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids or ()))


def select(
    state: str | None,
    ids: list[str] | None,
    name: str | None,
    where: str | None,
    since: str | None,
    until: str | None,
    limit: int | None,
) -> Selection:
    """The jobs that the options of a command choose.

    Raises:
        UsageError: a value is not understood, or filters stand beside ids without a state.
    """
    from qctl.ops.bulk.choice import Selection  # noqa: PLC0415

    if state is None and any((name, where, since, until)):
        raise UsageError(
            "filters choose among the jobs of a state, and these jobs are named",
            hint="leave the ids out, or the filters",
        )
    if state is None:
        return Selection(ids=_unique(ids), limit=limit)
    return Selection(state=state, only=parse_filter(ids, name, where, since, until), limit=limit)


def parse_filter(
    ids: list[str] | None,
    name: str | None,
    where: str | None,
    since: str | None,
    until: str | None,
) -> Filter:
    """The options that choose among the jobs of a state.

    Raises:
        UsageError: a value is not understood.
    """
    from qctl.ops.jobs.where import Filter, parse_where  # noqa: PLC0415
    from qctl.ops.times import parse_time  # noqa: PLC0415

    return Filter(
        ids=frozenset(ids or ()),
        name=name,
        where=parse_where(where) if where is not None else None,
        since=parse_time(since) if since is not None else None,
        until=parse_time(until, flag="--until") if until is not None else None,
    )


def carry_out(
    env: Environment,
    queue: str,
    action: Action,
    selection: Selection,
    *,
    rate: float | None = None,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """Ask, do it, show how far it is, and tell what was done."""
    from qctl.cli.signals import stop_on_signals  # noqa: PLC0415
    from qctl.ops.bulk.run import BulkRun  # noqa: PLC0415
    from qctl.ops.queues.find import find_queues, require_bullmq  # noqa: PLC0415

    if rate is not None and not math.isfinite(rate):
        raise UsageError(f"--rate {rate} is no number of jobs", hint="leave it out for no limit")
    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    require_bullmq([snapshot])
    state = selection.state
    total = (
        len(selection.ids)
        if state is None
        else int(getattr(snapshot.counts, state.replace("-", "_")))
    )
    if not yes and not dry_run:
        _ask(env, queue, action, selection, total)
    with stop_on_signals(env.note, doing="ending after this call") as stop:
        run = BulkRun(
            client,
            snapshot.keys,
            action,
            selection,
            total,
            dry_run=dry_run,
            rate=rate,
            stop=stop,
        )
        try:
            _follow(env, run)
        finally:
            # Also when it was interrupted: what was done must be known.
            report = run.report()
            if report.complete or report.done or report.below_count:
                _tell(env, report, paused=snapshot.paused)
    if selection.named and report.skipped_count:
        _raise_for(env, report)
    elif report.skipped_count > report.moved_on_count:
        raise typer.Exit(ExitStatus.PARTIAL)


def _ask(env: Environment, queue: str, action: Action, selection: Selection, total: int) -> None:
    from qctl.ops.bulk.choice import Confirmation, max_changed, required_confirmation  # noqa: PLC0415
    from qctl.output.bulk import question  # noqa: PLC0415

    firm = required_confirmation(action, selection, total)
    if firm is Confirmation.NONE:
        return
    text = question(action, queue, selection, max_changed(selection, total))
    if firm is Confirmation.YES:
        agreed = env.confirm(f"{text}?")
    else:
        agreed = env.confirm_name(f"{text}.", queue)
    if not agreed:
        raise RefusedError("nothing was done")


def _follow(env: Environment, run: BulkRun) -> None:
    if env.output == "ndjson":
        from qctl.output.json import as_record  # noqa: PLC0415

        for progress in run:
            env.emit_json(as_record(progress, with_step=True))
    elif env.animated:
        _animate(env, run)
    else:
        for _ in run:
            pass


def _animate(env: Environment, run: BulkRun) -> None:
    from rich.progress import Progress, ProgressColumn, Task  # noqa: PLC0415 - only on a terminal
    from rich.text import Text  # noqa: PLC0415

    from qctl.output.bulk import progress_text  # noqa: PLC0415

    class Line(ProgressColumn):
        """Also while one step takes long: a flow of many jobs, or a way through a long list."""

        def render(self, task: Task) -> Text:  # noqa: ARG002
            return Text(progress_text(run.progress()))

    with Progress(Line(), console=env.err, transient=True) as bar:
        bar.add_task("")
        for _ in run:
            pass


def _tell(env: Environment, report: BulkReport, *, paused: bool) -> None:
    if env.output != "table":
        from qctl.output.json import as_record  # noqa: PLC0415

        env.emit_json(as_record(report, with_step=env.output == "ndjson"))
        return
    from qctl.output.bulk import report_lines  # noqa: PLC0415 - not for JSON

    for line in report_lines(report, paused=paused):
        env.line(line + (" (dry run)" if report.dry_run else ""))
    env.streams.stdout.flush()


def _raise_for(env: Environment, report: BulkReport) -> None:
    """Not all of the named jobs were changed."""
    from qctl.ops.processes.suggest import command  # noqa: PLC0415

    if report.done or report.below_count:
        raise typer.Exit(ExitStatus.PARTIAL)
    first = report.skipped[0]
    raise NotFoundError(
        "nothing would be changed" if report.dry_run else "nothing was changed",
        why=f"{first.id}: {first.reason}",
        hint=command(env.settings.prefix, "jobs", "show", report.queue, first.id),
    )
