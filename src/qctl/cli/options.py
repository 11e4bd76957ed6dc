"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

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
Complete = Callable[[typer.Context], list[str]]


def _argument(metavar: str, help_text: str, complete: Complete) -> Any:
    """An argument that TAB completes with the names from ``complete``."""
    return typer.Argument(
        metavar=metavar, help=help_text, show_default=False, autocompletion=complete
    )


def _option(flag: str, metavar: str, help_text: str, complete: Complete) -> Any:
    """An option that TAB completes with the names from ``complete``."""
    return typer.Option(
        flag, metavar=metavar, help=help_text, show_default=False, autocompletion=complete
    )


def target_option(help_text: str) -> Any:
    """``--target``, whose meaning depends on the command."""
    return _option("--target", "TARGET", help_text, targets)


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The options of every command."""

    redis_url: Annotated[
        str | None,
        typer.Option(
            "--redis", metavar="URL", help="URL of Redis  [env: QCTL_REDIS_URL, else REDIS_URL]"
        ),
    ] = None
    prefix: Annotated[
        list[str] | None,
        _option(
            "--prefix",
            "PFX",
            "BullMQ's key prefix, or a pattern: 'app*', '{$QUEUE}'; may be repeated  "
            "[env: QCTL_PREFIX]",
            prefixes,
        ),
    ] = None
    all_prefixes: Annotated[
        bool, typer.Option("--all-prefixes", help="Every prefix under which queues are found")
    ] = False
    context: Annotated[
        str | None,
        _option(
            "--context", "NAME", "A context of the config files  [env: QCTL_CONTEXT]", contexts
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

    def following(self, before: CommonOptions, path: str) -> CommonOptions:
        """Merge these options, given after a command, with the options given ``before`` it.

        Args:
            path: the command, as typed.

        Raises:
            UsageError: an option that takes one value has two.
        """
        merged: dict[str, Any] = {}
        for field, flag in zip(fields(self), COMMON_FLAGS, strict=True):
            first, second = getattr(before, field.name), getattr(self, field.name)
            if field.name == "prefix":
                merged[field.name] = [*(first or ()), *(second or ())] or None
            elif isinstance(second, bool):
                merged[field.name] = first or second
            elif first is not None and second is not None and first != second:
                raise given_twice(path, flag, 2)
            else:
                # An empty text counts: ``Environment`` refuses it.
                merged[field.name] = first if second is None else second
        return CommonOptions(**merged)


# In the order of the fields of ``CommonOptions``.
COMMON_FLAGS = (
    "--redis",
    "--prefix",
    "--all-prefixes",
    "--context",
    "--output",
    "--json",
    "--no-color",
    "--debug",
)
# An option of every command that writes, that is, of every command with --dry-run.
Confirmed = Annotated[
    str | None,
    typer.Option("--confirm", metavar="NAME", help="The context's name, if the config asks for it"),
]
# An option of every command that names a target.
KubeContext = Annotated[
    str | None,
    typer.Option(
        "--kube-context",
        metavar="NAME",
        help="For a kubernetes: target: the context of the kubeconfig. Default: the context in "
        "[kubernetes] of the config, else the kubeconfig's current one",
        show_default=False,
    ),
]

Queue = Annotated[str, _argument("QUEUE", "The queue's name", queue_names)]
Queues = Annotated[list[str], _argument("QUEUE...", "The queues' names", queue_names)]
QueuesOrAll = Annotated[
    list[str] | None, _argument("[QUEUE]...", "Only these queues. Default: all", queue_names)
]
QueuesOrAllQueues = Annotated[
    list[str] | None,
    _argument("[QUEUE]...", "The queues' names, or use --all-queues", queue_names),
]
AllQueues = Annotated[
    bool, typer.Option("--all-queues", help="All queues under the chosen prefixes")
]
QueuesOrThoseOfTarget = Annotated[
    list[str] | None,
    _argument("[QUEUE]...", "Default: the queues that the target serves", queue_names),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id")]
SchedulerId = Annotated[str, _argument("ID", "The scheduler's id", scheduler_ids)]
WorkerName = Annotated[
    str, _argument("NAME", "The NAME given to `worker start`", background_workers)
]
Targets = Annotated[
    list[str],
    _argument("TARGET...", "For example pm2:worker, or a group of the config", targets),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
# An option of every command that writes or changes processes but asks nothing.
UnusedYes = Annotated[
    bool, typer.Option("--yes", "-y", help="No effect: this command asks nothing")
]
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


def given_twice(path: str, flag: str, times: int) -> UsageError:
    """The error for an option that takes one value but is given several times."""
    return UsageError(
        f"{path} takes one {flag}, but {flag} is given {times} times",
        why="all but the last would be ignored",
        hint=f"give {flag} once, and run the command once for each value",
    )


def parse_endpoint(text: str, option: str = "--health-port") -> tuple[str, int]:
    """Host (by default 127.0.0.1) and port of ``[HOST:]PORT``; a UsageError if malformed."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(
            f"{option} {text!r} is not [HOST:]PORT",
            hint=f"{option} 8080, or 0.0.0.0:8080 to serve other hosts",
        )
    return host.strip("[]") or "127.0.0.1", int(port)
