"""``qctl jobs failures``."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.options import Queue
from qctl.cli.signals import stop_on_signals
from qctl.cli.times import typed_time

if TYPE_CHECKING:
    from qctl.ops.jobs.failures import FailureReport


def failures(
    env: Environment,
    queue: Queue,
    *,
    by: Annotated[
        str,
        typer.Option("--by", metavar="WHAT", help="reason, name or a payload field: data.tenant"),
    ] = "reason",
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Failed since TIME: an age (2h), 03:55, yesterday, or a date and time",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, help="At most N groups")
    ] = 20,
) -> None:
    """Failed jobs in groups, the largest first, each with the command that retries it.

    Reasons are grouped by their shape: numbers, ids, addresses, paths, URLs and quoted texts count
    as equal. Ctrl-C shows what was counted so far.
    """
    from qctl.ops.jobs.failures import FailureScan  # noqa: PLC0415 - not for --help
    from qctl.ops.queues.find import find_queues  # noqa: PLC0415
    from qctl.output import failures as view  # noqa: PLC0415

    since_at = typed_time(env, since)
    _, client = env.redis()
    (snapshot,) = find_queues(client, env.settings.prefix, [queue])
    total = snapshot.counts.failed
    with stop_on_signals(env.note, doing="showing what was counted so far") as stop:
        scan = FailureScan(
            client,
            snapshot.keys,
            by,
            total,
            since=since_at,
            stop=stop,
            may_retry=snapshot.format == "bullmq",
        )
        try:
            with env.progress(lambda: view.progress_text(scan.scanned, total)):
                for _ in scan:
                    pass
        finally:
            # After an error or a signal, also show what was counted so far.
            report = scan.report(limit)
            if report.complete or report.scanned:
                _show(env, report)


def _show(env: Environment, report: FailureReport) -> None:
    from qctl.ops.jobs.failures import MAX_HELD  # noqa: PLC0415
    from qctl.output import failures as view  # noqa: PLC0415

    if env.output != "table":
        env.emit_json(report, [*report.groups, replace(report, groups=())])
        return
    rows = view.rows(report, datetime.now(UTC))
    if rows and env.streams.stdout_is_terminal:
        env.draw(view.blocks, rows)
    elif rows:
        env.table(view.columns(report), rows)
    env.streams.stdout.flush()
    env.note(*view.remarks(report, held=MAX_HELD))
