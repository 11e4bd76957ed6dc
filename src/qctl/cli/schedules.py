"""``qctl schedules``: list, show, remove, run."""

from __future__ import annotations

from datetime import UTC, datetime

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import DryRun, Queue, QueuesOrAll, SchedulerId

app = App()


@app.command("list")
def list_command(
    env: Environment,
    queues: QueuesOrAll = None,
) -> None:
    """Schedulers and when they are due, next due first.

    STATE is dead if the scheduler has no pending job: such a scheduler never adds a job again.
    """
    from qctl.ops.schedules.listing import list_schedules  # noqa: PLC0415 - not for --help

    _, client = env.redis()
    found, searched = list_schedules(client, env.settings.prefixes, queues or [])
    if env.output != "table":
        env.emit_json(found, found.schedules)
    else:
        from qctl.output.schedules import attention_lines, columns  # noqa: PLC0415

        if found.schedules:
            env.table(columns(found.schedules, datetime.now(UTC)), found.schedules)
        else:
            env.note("no schedulers")
        env.print(*attention_lines(found.schedules))
    searched.raise_if_broken()


@app.command("show")
def show_command(env: Environment, queue: Queue, scheduler_id: SchedulerId) -> None:
    """One scheduler in full, and its next due times."""
    from qctl.ops.schedules.listing import show_schedule  # noqa: PLC0415 - not for --help
    from qctl.output.schedules import detail_lines  # noqa: PLC0415

    _, client = env.redis()
    schedule = show_schedule(client, env.settings.prefix, queue, scheduler_id)
    env.show(schedule, detail_lines(schedule, datetime.now(UTC)))


@app.command("remove")
def remove_command(
    env: Environment, queue: Queue, scheduler_id: SchedulerId, dry_run: DryRun = False
) -> None:
    """Remove a scheduler, and its next job if that job is not yet due.

    If an app creates the scheduler at each start, the scheduler is back after the app's next start.
    """
    from qctl.ops.schedules.changes import remove_schedule  # noqa: PLC0415 - not for --help
    from qctl.output.schedules import removal_lines  # noqa: PLC0415

    _, client = env.redis()
    removal = remove_schedule(client, env.settings.prefix, queue, scheduler_id, dry_run=dry_run)
    env.show(removal, removal_lines(removal))


@app.command("run")
def run_command(
    env: Environment, queue: Queue, scheduler_id: SchedulerId, dry_run: DryRun = False
) -> None:
    """Add one job of the scheduler now.

    The schedule continues unchanged, and does not count this extra job.
    """
    from qctl.ops.schedules.changes import run_schedule  # noqa: PLC0415 - not for --help
    from qctl.output.schedules import run_line  # noqa: PLC0415

    address, client = env.redis()
    run = run_schedule(
        client, env.settings.prefix, queue, scheduler_id, db=address.db, dry_run=dry_run
    )
    env.show(run, [run_line(run)])
    if env.output == "table":
        env.streams.stdout.flush()
        env.note(*run.remarks)
