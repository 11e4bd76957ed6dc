"""``qctl jobs add``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.options import DryRun, Queue
from qctl.errors import UsageError

_KEEP = (
    "When to delete a completed job: true (at once), false (never), N (keep the last N), 24h "
    "(after 24 hours), or N,24h (both)"
)


Data = Annotated[
    str | None,
    typer.Option("--data", metavar="JSON", help="The payload; @FILE, or - for stdin"),
]
Priority = Annotated[
    int | None,
    typer.Option("--priority", metavar="P", help="0 runs first, then 1 to 2097151"),
]
Attempts = Annotated[
    int | None,
    typer.Option("--attempts", metavar="N", help="How many runs at most, failures included"),
]
Backoff = Annotated[
    str | None,
    typer.Option("--backoff", metavar="KIND:D", help="Retry delay: fixed:10s, exponential:60s"),
]
RemoveOnComplete = Annotated[
    str | None, typer.Option("--remove-on-complete", metavar="KEEP", help=_KEEP)
]
RemoveOnFail = Annotated[
    str | None,
    typer.Option("--remove-on-fail", metavar="KEEP", help="When to delete a failed job"),
]


def add(
    env: Environment,
    queue: Queue,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The job's name")],
    *,
    data: Data = None,
    delay: Annotated[
        str | None,
        typer.Option("--delay", metavar="D", help="Wait before the first run: 30s, 2h, or seconds"),
    ] = None,
    priority: Priority = None,
    attempts: Attempts = None,
    backoff: Backoff = None,
    job_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The job's id. Default: the next number"),
    ] = None,
    lifo: Annotated[bool, typer.Option("--lifo", help="Run before the waiting jobs")] = False,
    remove_on_complete: RemoveOnComplete = None,
    remove_on_fail: RemoveOnFail = None,
    dedup: Annotated[
        str | None,
        typer.Option(
            "--dedup",
            metavar="ID[:TTL]",
            help="Add nothing if an unfinished job has this dedup id. With a TTL (user-7:5s), add "
            "nothing if a job with this dedup id was added in the last 5 s",
        ),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the queue if it does not exist")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Add a job, and print its id.

    If --id or --dedup matches an existing job, nothing is added, and that job's id is printed.
    """
    from qctl.durations import parse_duration_s  # noqa: PLC0415 - not for --help
    from qctl.ops.jobs import add as ops  # noqa: PLC0415
    from qctl.output.changes import add_lines, added_id  # noqa: PLC0415
    from qctl.wire.write.adding import NewJob  # noqa: PLC0415

    if job_id == "":
        # Probably an unset shell variable. Without an id, each call would add another job.
        raise UsageError("--id is empty", hint="leave out --id to use the next number")
    job = NewJob(
        name,
        ops.parse_data(read_data(env, data)),
        delay=None if delay is None else parse_duration_s(delay, "--delay"),
        priority=priority,
        attempts=attempts,
        backoff=ops.check_backoff(backoff),
        job_id=job_id,
        lifo=lifo,
        remove_on_complete=ops.parse_keep(remove_on_complete, "--remove-on-complete"),
        remove_on_fail=ops.parse_keep(remove_on_fail, "--remove-on-fail"),
        dedup=ops.parse_dedup(dedup),
    )
    address, client = env.redis()
    report = ops.add_job(
        client, env.settings.prefix, queue, job, db=address.db, create=create, dry_run=dry_run
    )
    env.show(report, [added_id(report)])
    if env.output == "table":
        env.streams.stdout.flush()
        env.note(*add_lines(report))


def read_data(env: Environment, data: str | None) -> str | None:
    """The payload as text: ``data`` itself, or the text of stdin (``-``) or of ``@FILE``."""
    try:
        if data == "-":
            return env.streams.stdin.read()
        if data is not None and data.startswith("@"):
            return Path(data[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        source = "stdin" if data == "-" else data
        raise UsageError(f"--data {source} cannot be read", why=str(error)) from None
    return data
