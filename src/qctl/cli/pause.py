"""``qctl pause`` and ``qctl resume``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import DryRun, Queues

if TYPE_CHECKING:
    from qctl.ops.queues.pause import PauseResult

app = App()

MixedVersions = Annotated[
    bool,
    typer.Option("--mixed-versions", help="Pause a queue that BullMQ 5 and 6 share; can lose jobs"),
]


@app.command("pause")
def pause(
    env: Environment, queues: Queues, mixed_versions: MixedVersions = False, dry_run: DryRun = False
) -> None:
    """Stop workers from taking jobs; active jobs continue.

    The pause applies to all workers on all hosts until the queue is resumed. `qctl status` shows
    who paused the queue.
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
def resume(
    env: Environment,
    queues: Queues,
    force: Annotated[
        bool, typer.Option("--force", help="Also resume a queue that a drain has paused")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Let workers take jobs again.

    Jobs that BullMQ 5 keeps in its paused list are moved back to the waiting jobs.
    """
    from qctl.ops.queues.pause import resume_queues  # noqa: PLC0415 - not for --help

    _, client = env.redis()
    results = resume_queues(client, env.settings.prefixes, queues, dry_run=dry_run, force=force)
    _show(env, results, dry_run=dry_run)


def _show(env: Environment, results: Sequence[PauseResult], *, dry_run: bool) -> None:
    if env.output != "table":
        env.emit_json({"queues": results, "dry_run": dry_run})
        return
    from qctl.output.changes import pause_line  # noqa: PLC0415 - not for JSON
    from qctl.output.text import visible  # noqa: PLC0415
    from qctl.wire.keys import QueueKeys, common_prefix  # noqa: PLC0415

    prefix = common_prefix(QueueKeys(result.prefix, result.name) for result in results)
    if env.shows_blocks:
        from qctl.output.changes_block import pause_block  # noqa: PLC0415 - only for a terminal

        env.print_block(pause_block, results, prefix=prefix, dry_run=dry_run)
        return
    for result in results:
        line = pause_line(result, "would" if dry_run else "", prefix=prefix)
        env.print(f"{line} (dry run)" if dry_run else line)
        for warning in result.warnings:
            env.note(f"note: {visible(warning)}")
