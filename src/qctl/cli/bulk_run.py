"""Carries out a bulk command: counts the jobs, asks for confirmation, and changes the jobs.

A bar shows the progress. At the end, a report shows what was done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import typer

from qctl.cli.environment import Environment
from qctl.cli.live import LiveLines
from qctl.cli.signals import stop_on_signals
from qctl.errors import ExitStatus, NotFoundError, PartialError
from qctl.ops.bulk.actions import (
    Action,
    Confirmation,
    Selection,
    max_changed,
    required_confirmation,
)
from qctl.ops.bulk.model import BulkReport
from qctl.ops.bulk.queues import BulkQueue, BulkRuns
from qctl.ops.processes.suggest import command
from qctl.ops.queues.find import Queues, require_bullmq
from qctl.output import bulk as view
from qctl.plurals import counted
from qctl.wire.keys import common_prefix


def carry_out(
    env: Environment,
    found: Queues,
    action: Action,
    selection: Selection,
    *,
    as_list: bool = False,
    rate: float | None = None,
    counts: bool = True,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """Ask for confirmation, change the jobs, show the progress, and report the result.

    Args:
        found: the queues; those of Bull 3/4 are refused.
        as_list: JSON is ``{"queues": [...]}``, even for one queue.
        rate: how many jobs a second are changed at most; None for no limit.
        counts: before the question, count the jobs that match a filter.

    Raises:
        RefusedError, UsageError: the change was not confirmed.
        NotFoundError: none of the jobs named by id was changed.
        PartialError: the jobs of some queues could not be read or changed.
        typer.Exit: some jobs could not be changed; the exit code is ``PARTIAL``.
    """
    require_bullmq(found.readable)
    _, client = env.redis()
    queues = [BulkQueue.of(snapshot, selection) for snapshot in found.readable]
    several = as_list or len(found.keys) > 1
    live = LiveLines(env)
    began = time.monotonic()
    reports: list[BulkReport] | None = None
    if not yes and not dry_run and queues:
        scanned = None
        if counts and not env.why_not_interactive and _needs_count(selection, queues):
            scanned = _count(env, live, queues, action, selection)
        # Outside of stop_on_signals, so that Ctrl-C ends the question.
        confirm(env, queues, action, selection, scanned)
        if scanned is not None and not any(report.done for report in scanned):
            # There is nothing to change, so the scan was all of the work.
            reports = [replace(report, dry_run=False) for report in scanned]
        else:
            began = time.monotonic()
    failures: list[str] = []
    if reports is None:
        with stop_on_signals(live.note, _STOPPING) as stop:
            runs = BulkRuns(
                client, queues, action, selection, dry_run=dry_run, rate=rate, stop=stop
            )
            reports = runs.reports
            try:
                with live.showing(_drawing(env, runs, view.DOING[action.name], selection.limit)):
                    for step in runs:
                        if env.output == "ndjson" and (several or not isinstance(step, BulkReport)):
                            env.emit_json(step)
            except BaseException:
                # Even after an error or a signal, the operator must know which changes were made.
                if any(report.done or report.below_count for report in reports):
                    _show(env, reports, queues, time.monotonic() - began, several=several)
                raise
        prefix = common_prefix(found.keys)
        failures = [f"{keys.label(prefix)}: {error.what}" for keys, error in runs.failures.items()]
    if reports:
        _show(env, reports, queues, time.monotonic() - began, several=several)
    if failures:
        raise PartialError(
            f"{len(failures)} of {counted(len(found.keys), 'queue')} could not be done in full",
            why="\n".join(failures),
            hint="" if dry_run else "run the same command again for the jobs that are left",
        )
    found.raise_if_broken()
    _check_skipped(reports, selection)


_STOPPING = "stopping after the current step"


def _needs_count(selection: Selection, queues: Sequence[BulkQueue]) -> bool:
    """Whether the number of jobs to change is unknown until a scan has counted them."""
    is_filtered = selection.only.is_set and not selection.named_count
    return is_filtered and any(queue.total for queue in queues)


def _count(
    env: Environment,
    live: LiveLines,
    queues: Sequence[BulkQueue],
    action: Action,
    selection: Selection,
) -> list[BulkReport] | None:
    """The reports of a dry run; None if the dry run ended early or failed in some queue.

    Raises:
        InterruptedByUserError: Ctrl-C or another signal stopped the count.
    """
    _, client = env.redis()
    with stop_on_signals(live.note, _STOPPING) as stop:
        scan = BulkRuns(client, queues, action, selection, dry_run=True, stop=stop)
        try:
            with live.showing(_drawing(env, scan, "counting", selection.limit)):
                for _ in scan:
                    pass
        except PartialError:
            return None
    return None if scan.failures else scan.reports


def confirm(
    env: Environment,
    queues: Sequence[BulkQueue],
    action: Action,
    selection: Selection,
    scanned: Sequence[BulkReport] | None,
) -> None:
    """Ask before jobs are changed, if the change needs it.

    Args:
        scanned: what the count found; None if the jobs were not counted.

    Raises:
        RefusedError, UsageError: the change was not confirmed.
    """
    total = sum(queue.total for queue in queues)
    number = view.Count(max_changed(selection, total), total)
    if scanned is not None:
        number = view.Count(
            sum(report.done for report in scanned),
            total,
            below=sum(report.below_count for report in scanned),
            skipped=sum(report.left_alone_count for report in scanned),
            exact=True,
        )
    required = required_confirmation(action, selection, number.jobs)
    if required is Confirmation.NONE:
        return
    keys = [queue.keys for queue in queues]
    if scanned is not None:
        env.note_wrapped(*view.scan_lines(scanned, number, several=len(keys) > 1))
    text, is_final = view.bulk_question(action, keys, selection, number), action.name in view.FINAL
    if required is Confirmation.YES:
        env.confirm(f"{text}?" + (" That cannot be undone." if is_final else ""))
    else:
        text += "; that cannot be undone." if is_final else "."
        env.confirm_name(text, keys[0].name if len(keys) == 1 else str(number.jobs))


def _show(
    env: Environment,
    reports: Sequence[BulkReport],
    queues: Sequence[BulkQueue],
    took_s: float,
    *,
    several: bool,
) -> None:
    if env.output == "ndjson" and several:
        # Each queue's report was printed when that queue was done.
        return
    if env.output != "table":
        env.emit_json({"queues": reports} if several else reports[0])
        return
    paused = [queue.keys for queue in queues if queue.paused]
    if env.shows_blocks:
        env.print_block(view.bulk_block, reports, took_s, paused=paused)
        return
    lines = (
        view.bulk_lines_of_several(reports, paused)
        if several
        else view.bulk_lines(reports[0], paused=bool(paused))
    )
    mark = " (dry run)" if reports[0].dry_run else ""
    env.print(*(f"{line}{mark}" for line in lines))


def _check_skipped(reports: Sequence[BulkReport], selection: Selection) -> None:
    """Fail if the command did not change all jobs that it should have changed."""
    skipped = [report for report in reports if report.skipped_count]
    if selection.named_count and skipped:
        if any(report.done or report.below_count for report in reports):
            raise typer.Exit(ExitStatus.PARTIAL)
        report, first = skipped[0], skipped[0].skipped[0]
        raise NotFoundError(
            "nothing would be changed" if report.dry_run else "nothing was changed",
            why=f"{first.id}: {first.reason}",
            hint=command(report.prefix, "jobs", "show", report.queue, first.id),
        )
    # A job that left the state while the command ran is no failure.
    if any(report.left_alone_count > 0 for report in skipped):
        raise typer.Exit(ExitStatus.PARTIAL)


def _drawing(
    env: Environment, runs: BulkRuns, doing: str, limit: int | None
) -> Callable[[], Iterator[str]]:
    """A function that returns the lines about the progress of ``runs``."""
    began = time.monotonic()

    def draw() -> Iterator[str]:
        return view.progress_lines(
            runs.progress(),
            time.monotonic() - began,
            doing=doing,
            limit=limit,
            width=env.terminal_width,
            colour=env.may_colour(env.streams.stderr),
        )

    return draw
