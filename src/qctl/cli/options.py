"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from qctl.cli.candidates import background_workers, queue_names, scheduler_ids, targets

Queue = Annotated[
    str, typer.Argument(metavar="QUEUE", help="The queue's name", autocompletion=queue_names)
]
Queues = Annotated[
    list[str],
    typer.Argument(metavar="QUEUE...", help="The queues' names", autocompletion=queue_names),
]
QueuesOrAll = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUEUE]...",
        help="Only these queues. Default: all",
        show_default=False,
        autocompletion=queue_names,
    ),
]
QueuesOrThoseOfTarget = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUEUE]...",
        help="Default: the queues that the target serves",
        show_default=False,
        autocompletion=queue_names,
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id")]
SchedulerId = Annotated[
    str, typer.Argument(metavar="ID", help="The scheduler's id", autocompletion=scheduler_ids)
]
WorkerName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The name it was started with", autocompletion=background_workers
    ),
]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="For example pm2:worker", autocompletion=targets)
]


def target_option(help_text: str) -> typer.models.OptionInfo:
    """``--target``, whose meaning depends on the command."""
    option: typer.models.OptionInfo = typer.Option(
        "--target", metavar="TARGET", help=help_text, show_default=False, autocompletion=targets
    )
    return option


DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most N jobs")]
NamedIds = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Only this job; may be repeated")
]
State = Literal[
    "waiting",
    "active",
    "stalled",
    "delayed",
    "prioritized",
    "waiting-children",
    "completed",
    "failed",
]
