"""``qctl jobs retry-stalled``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.options import AllQueues, DryRun, QueuesOrAll, Yes
from qctl.errors import ExitStatus, InterruptedByUserError, PartialError, UsageError
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.connection.address import Client
    from qctl.ops.jobs.retry_stalled import RetryPlan


def retry_stalled(
    env: Environment,
    queues: QueuesOrAll = None,
    all_queues: AllQueues = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Also jobs that failed because they stalled too often")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="First wait until the locks of dead workers expire")
    ] = False,
    count_stall: Annotated[
        bool,
        typer.Option(
            "--count-stall",
            help="Count one more stall of each job, as BullMQ does; without this, each "
            "job's count of stalls is reset to 0",
        ),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Put stalled jobs back to run next, without waiting for BullMQ's stalled check.

    A job is stalled if it is active and has no lock. If a worker of the queue is connected, that
    worker may still be running the job, so qctl asks first.
    """
    from qctl.ops.jobs.retry_stalled import carry_out, plan_retry  # noqa: PLC0415 - not for --help
    from qctl.output.changes import retry_lines  # noqa: PLC0415

    if queues and all_queues:
        raise UsageError(
            "--all-queues and names of queues exclude each other", hint="leave out one of them"
        )
    address, client = env.redis()
    prefixes = env.settings.prefixes
    plan = plan_retry(client, prefixes, queues or [], db=address.db, failed=failed)
    if wait and not dry_run:
        _await_locks(env, client, plan)
        plan = plan_retry(client, prefixes, queues or [], db=address.db, failed=failed)
    if not dry_run:
        _confirm(env, plan, yes=yes)
    limit = env.settings.max_stalled_count if count_stall else None
    report = carry_out(client, plan, max_stalled=limit, dry_run=dry_run)
    if env.shows_blocks:
        from qctl.output.changes_block import retry_block  # noqa: PLC0415 - only for a terminal

        env.print_block(retry_block, report, plan, prefix=_prefix(plan), dry_run=dry_run)
    else:
        env.show(report, retry_lines(report, plan, dry_run=dry_run), dry_run=dry_run)
    if failures := [queue for queue in report.queues if queue.error is not None]:
        raise PartialError(
            f"{len(failures)} of {counted(len(report.queues), 'queue')} could not be done in full",
            why="\n".join(f"{queue.name}: {queue.error}" for queue in failures),
            hint="run the same command again for the jobs that are left",
        )
    plan.found.raise_if_broken()
    if report.left_alone:
        raise typer.Exit(ExitStatus.PARTIAL)


def _await_locks(env: Environment, client: Client, plan: RetryPlan) -> None:
    from qctl.cli.live import LiveLines  # noqa: PLC0415 - only for --wait
    from qctl.cli.signals import stop_on_signals  # noqa: PLC0415
    from qctl.ops.jobs.retry_stalled import await_locks  # noqa: PLC0415
    from qctl.output.changes_block import waiting_lines  # noqa: PLC0415

    began = time.monotonic()
    # The number of locks, and the monotonic time when the last of them expires.
    number, end_s = -1, began

    def draw() -> Iterator[str]:
        now = time.monotonic()
        return waiting_lines(
            max(number, 0),
            now - began,
            max(end_s - now, 0.0),
            width=env.terminal_width,
            colour=env.may_colour(env.streams.stderr),
        )

    live = LiveLines(env)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(live.note, doing="stopping"))
        for pending in await_locks(client, plan, stop):
            longest_s = max(job.lock_ttl_ms or 0 for job in pending) / 1000
            end_s = time.monotonic() + longest_s
            if number < 0:
                stack.enter_context(live.showing(draw))
            if len(pending) != number:
                number = len(pending)
                if not env.animated:
                    locks = counted(number, "lock")
                    env.note(f"waiting up to {longest_s:.0f} s for {locks} of dead workers …")
        if stop():
            raise InterruptedByUserError("interrupted", why="nothing was changed")


def _confirm(env: Environment, plan: RetryPlan, *, yes: bool) -> None:
    if yes or not plan.risky:
        return
    from qctl.output.changes import retry_risk_lines  # noqa: PLC0415

    if env.why_not_interactive:
        raise UsageError(
            f"some jobs may still be running, and {env.why_not_interactive}",
            why="\n".join(retry_risk_lines(plan)),
            hint="--dry-run shows the jobs, --yes puts them back",
        )
    from qctl.output.changes_block import risk_block  # noqa: PLC0415 - only for a terminal

    stderr = env.streams.stderr
    colour = env.may_colour(stderr)
    for line in risk_block(plan, prefix=_prefix(plan), width=env.terminal_width, colour=colour):
        stderr.write(line + "\n")
    jobs = sum(len(queue.stalled) + len(queue.failed_ids) for queue in plan.queues)
    env.confirm(f"Put {counted(jobs, 'job')} back?")


def _prefix(plan: RetryPlan) -> str | None:
    from qctl.wire.keys import common_prefix  # noqa: PLC0415

    return common_prefix(queue.keys for queue in plan.queues)
