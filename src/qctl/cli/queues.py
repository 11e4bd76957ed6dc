"""``qctl queues``, alone, and with ``set`` and ``delete``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import DryRun, Queue, Yes
from qctl.cli.signals import stop_on_signals
from qctl.cli.status import remark_if_slow
from qctl.grouping import grouped

app = App()


@app.alone
def queues(env: Environment) -> None:
    """List the queues that exist; change or delete a queue.

    Scans every key of the database, which takes seconds if there are millions of keys. For a few
    minutes, other commands reuse the names.
    """
    from qctl.ops.queues.missing import no_queues  # noqa: PLC0415
    from qctl.ops.queues.names import QueueNameCache  # noqa: PLC0415
    from qctl.output.text import visible  # noqa: PLC0415

    address, client = env.redis()
    with remark_if_slow(env, "searching all keys of this Redis for queues …"):
        cache = QueueNameCache(env.settings.state_home, address, env.settings.prefixes)
        found = cache.scan(client).queues
    if not found:
        raise no_queues(client, env.settings.prefixes)
    is_single = env.settings.prefixes.single is not None
    names = [queue.name if is_single else queue.full_name for queue in found]
    by_prefix = {
        prefix: [queue.name for queue in queues]
        for prefix, queues in grouped(found, lambda queue: queue.prefix).items()
    }
    env.show(
        {"queues": names, "by_prefix": by_prefix}, (visible(name, env.width) for name in names)
    )


@app.command("set")
def set_command(
    env: Environment,
    queue: Queue,
    *,
    concurrency: Annotated[
        str | None,
        typer.Option(
            "--concurrency", metavar="N|none", help="At most N jobs run at once, over all workers"
        ),
    ] = None,
    rate_limit: Annotated[
        str | None,
        typer.Option(
            "--rate-limit",
            metavar="N/D|none",
            help="At most N jobs start within D (such as 1m), over all workers",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Set or remove the global concurrency and the global rate limit of a queue.

    The limits hold for all workers together (BullMQ 5, BullMQ 6 and qctl) until they are changed
    again.
    """
    from qctl.ops.queues.limits import (  # noqa: PLC0415 - not for --help
        change_limits,
        parse_concurrency,
        parse_rate_limit,
    )
    from qctl.output.queues import limits_lines  # noqa: PLC0415

    new = parse_concurrency(concurrency), parse_rate_limit(rate_limit)
    _, client = env.redis()
    report = change_limits(client, env.settings.prefix, queue, *new, dry_run=dry_run)
    env.show(report, limits_lines(report), dry_run=dry_run)
    if env.output == "table":
        env.streams.stdout.flush()
        env.note(*report.remarks)


@app.command("delete")
def delete_command(
    env: Environment,
    queue: Queue,
    *,
    ignore_workers: Annotated[
        bool,
        typer.Option(
            "--ignore-workers",
            help="Delete even if workers are connected, or if it is unknown whether they are",
        ),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete a queue with all its jobs, schedulers and settings.

    Counts all its keys first. To confirm, you type the queue's name. Looks at every key of the
    database, twice.
    """
    from qctl.ops.queues.delete import Deletion  # noqa: PLC0415 - not for --help
    from qctl.output import queues as view  # noqa: PLC0415

    address, client = env.redis()
    deletion = Deletion(client, address, env.settings.prefix, queue)
    if not (ignore_workers or dry_run):
        deletion.require_no_workers()
    with _stopping(env) as stop, env.progress(lambda: view.counting_text(deletion.total)):
        for _ in deletion.count(stop):
            pass
    report = deletion.report(dry_run=dry_run)
    if dry_run:
        env.show(report, view.deletion_lines(report), dry_run=True)
        env.streams.stdout.flush()
    if env.output == "table":
        env.note(*view.deletion_remarks(report))
    if dry_run:
        return
    if not yes:
        env.confirm_name(view.deletion_question(report), deletion.keys.name)
    if not ignore_workers:
        # A worker may have connected during the count, or before the operator answered.
        deletion.require_no_workers()
    try:
        with (
            _stopping(env) as stop,
            env.progress(lambda: view.deleting_text(deletion.deleted, deletion.total)),
        ):
            for _ in deletion.delete(stop):
                pass
    finally:
        report = deletion.report(dry_run=False)
        if report.complete or report.deleted:
            env.show(report, view.deletion_lines(report))


def _stopping(env: Environment) -> AbstractContextManager[Callable[[], bool]]:
    return stop_on_signals(env.note, doing="stopping after the current step")
