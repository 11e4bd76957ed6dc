"""Arguments and options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from qctl.cli.candidates import (
    background_workers,
    contexts,
    prefixes,
    queue_names,
    scheduler_ids,
    targets,
)
from qctl.errors import UsageError

OutputMode = Literal["table", "json", "ndjson"]


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The options of every command."""

    redis_url: Annotated[
        str | None,
        typer.Option("--redis", metavar="URL", help="Redis  [env: QCTL_REDIS_URL, else REDIS_URL]"),
    ] = None
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            metavar="PFX",
            help="BullMQ's key prefix  [env: QCTL_PREFIX]",
            autocompletion=prefixes,
        ),
    ] = None
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="A context of the config files  [env: QCTL_CONTEXT]",
            autocompletion=contexts,
        ),
    ] = None
    output: Annotated[
        OutputMode | None, typer.Option("--output", help="Output format  [env: QCTL_OUTPUT]")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Same as --output json")] = False
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours  [env: NO_COLOR]")] = (
        False
    )
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks  [env: QCTL_DEBUG]")] = (
        False
    )


COMMON_FLAGS = ("--redis", "--prefix", "--context", "--output", "--json", "--no-color", "--debug")
# Of every command that writes, which is every one with --dry-run.
Confirmed = Annotated[
    str | None,
    typer.Option("--confirm", metavar="NAME", help="The context's name, if it asks for it"),
]

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


def parse_endpoint(text: str, option: str = "--health-port") -> tuple[str, int]:
    """``[HOST:]PORT``; without a host, 127.0.0.1.

    Raises:
        UsageError: it is malformed.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(
            f"{option} {text!r} is not [HOST:]PORT",
            hint=f"{option} 8080, or 0.0.0.0:8080 where others must reach it",
        )
    return host.strip("[]") or "127.0.0.1", int(port)
