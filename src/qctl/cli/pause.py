"""``qctl pause`` and ``qctl resume``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.frame import Environment, new_app, with_environment

if TYPE_CHECKING:
    from qctl.ops.queues.pause import PauseResult

app = new_app()

Queues = Annotated[list[str], typer.Argument(metavar="QUEUE...", help="Queues by name")]
MixedVersions = Annotated[
    bool,
    typer.Option(
        "--mixed-versions",
        help="Also a queue on which BullMQ 5 and BullMQ 6 both work, where a pause can lose jobs",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing")]


@app.command("pause")
@with_environment
def pause(
    env: Environment, queues: Queues, mixed_versions: MixedVersions = False, dry_run: DryRun = False
) -> None:
    """Stop workers from taking jobs; running ones go on.

    The pause holds on every host until somebody resumes the queue. `qctl status` tells who paused.
    """
    from qctl.ops.queues.pause import pause_queues  # noqa: PLC0415 - not for --help

    address, client = env.redis()
    results = pause_queues(
        client,
        env.settings,
        queues,
        db=address.db,
        dry_run=dry_run,
        mixed_versions=mixed_versions,
    )
    _show(env, results, dry_run=dry_run)


@app.command("resume")
@with_environment
def resume(
    env: Environment,
    queues: Queues,
    force: Annotated[
        bool, typer.Option("--force", help="Also a queue that a drain is at work on")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Let workers take jobs again.

    Brings back every job that BullMQ 5 set aside in its paused list.
    """
    from qctl.ops.queues.pause import resume_queues  # noqa: PLC0415 - not for --help

    _, client = env.redis()
    results = resume_queues(client, env.settings.prefix, queues, dry_run=dry_run, force=force)
    _show(env, results, dry_run=dry_run)


def _show(env: Environment, results: Sequence[PauseResult], *, dry_run: bool) -> None:
    if env.output != "table":
        env.emit_json({"queues": results, "dry_run": dry_run})
        return
    from qctl.output.pause import pause_line  # noqa: PLC0415 - not for JSON
    from qctl.output.text import visible  # noqa: PLC0415

    for result in results:
        env.line(pause_line(result) + (" (dry run)" if dry_run else ""))
        for warning in result.warnings:
            env.note(f"note: {visible(warning)}")
