"""``qctl schedules``: list, show, set, remove, run, migrate."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from qctl.cli import add
from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import DryRun, Queue, Queues, QueuesOrAll, SchedulerId, Yes
from qctl.errors import PartialError

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


@app.command("set")
def set_command(
    env: Environment,
    queue: Queue,
    scheduler_id: SchedulerId,
    *,
    cron: Annotated[
        str | None,
        typer.Option("--cron", metavar="PATTERN", help="Five fields, or six with seconds first"),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="D", help="The interval: 30s, 2h, or seconds")
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option("--tz", metavar="ZONE", help="The pattern's time zone: Europe/Berlin, UTC+2"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The jobs' name. Default: the scheduler's id"),
    ] = None,
    data: add.Data = None,
    priority: add.Priority = None,
    attempts: add.Attempts = None,
    backoff: add.Backoff = None,
    remove_on_complete: add.RemoveOnComplete = None,
    remove_on_fail: add.RemoveOnFail = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Make a scheduler, or change an existing one and its next job.

    What is not given stays as it is. Asks before it changes an existing scheduler.
    """
    from qctl.durations import parse_duration_s  # noqa: PLC0415 - not for --help
    from qctl.ops.jobs.add import check_backoff, parse_data, parse_keep  # noqa: PLC0415
    from qctl.ops.schedules.set import NewSettings, set_schedule  # noqa: PLC0415
    from qctl.output.schedules import set_line, set_question  # noqa: PLC0415
    from qctl.wire.options import JobOptions  # noqa: PLC0415

    options = JobOptions(
        priority=priority,
        attempts=attempts,
        backoff=check_backoff(backoff),
        remove_on_complete=parse_keep(remove_on_complete, "--remove-on-complete"),
        remove_on_fail=parse_keep(remove_on_fail, "--remove-on-fail"),
    )
    new = NewSettings(
        cron=cron,
        every_s=None if every is None else parse_duration_s(every, "--every"),
        tz=tz,
        name=name,
        data=parse_data(add.read_data(env, data)),
        options=options,
    )
    address, client = env.redis()
    what = (client, env.settings.prefix, queue, scheduler_id, new)
    change = set_schedule(*what, db=address.db, dry_run=True)
    if not dry_run:
        if change.before is not None and not yes:
            env.confirm(set_question(change))
        change = set_schedule(*what, db=address.db)
    env.show(change, [set_line(change, datetime.now(UTC))])
    if env.output == "table":
        env.streams.stdout.flush()
        env.note(*change.remarks)


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


@app.command("migrate")
def migrate_command(
    env: Environment, queues: Queues, yes: Yes = False, dry_run: DryRun = False
) -> None:
    """Turn repeatables of BullMQ 5 and older into job schedulers.

    Each keeps its times, data and options. The scheduler's id is the job's name, with a hash if
    several have that name. Each is replaced in one step, so that no run is lost or doubled.
    """
    from qctl.ops.schedules.migrate import migrate, plan_migration  # noqa: PLC0415
    from qctl.output import schedules as view  # noqa: PLC0415

    _, client = env.redis()
    migration = plan_migration(client, env.settings.prefixes, queues, dry_run=dry_run)
    if not dry_run and migration.count("planned"):
        if not yes:
            if env.output == "table":
                env.note(*view.migration_lines(migration, datetime.now(UTC)))
            env.confirm(view.migration_question(migration))
        migration = migrate(client, migration)
    env.show(migration, view.migration_lines(migration, datetime.now(UTC)))
    if env.output == "table":
        env.streams.stdout.flush()
        env.note(*filter(None, [view.migration_remark(migration)]))
    if not dry_run and (skipped := migration.count("skipped")):
        raise PartialError(
            f"{skipped:,} of {len(migration.repeatables):,} repeatables are left as they are",
            why="the lines above say why",
        )
