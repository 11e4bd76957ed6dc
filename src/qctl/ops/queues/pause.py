"""Pause and resume queues, safely beside BullMQ 5 and 6 clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qctl.config.prefixes import Prefixes
from qctl.config.settings import Settings
from qctl.connection.address import Client
from qctl.errors import RefusedError
from qctl.ops.queues.find import read_existing, require_bullmq
from qctl.ops.queues.select import select_queues
from qctl.ops.queues.versions import require_safe_pause
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import this_process
from qctl.wire.read import rights
from qctl.wire.write.pausing import pause, resume

_BULL_HINT = "use Bull's own queue.pause() and queue.resume()"


@dataclass(frozen=True, slots=True)
class PauseResult:
    """One queue after ``pause`` or ``resume``.

    Args:
        paused: whether the queue is paused now.
        changed: whether this command paused or resumed the queue, or would in a dry run.
        active: how many jobs were active at that time; a pause does not stop them.
        stalled: how many of them had no lock: their worker has died or is stuck.
        moved: how many jobs a resume moved back from BullMQ 5's paused list.
        warnings: what the operator must pay attention to.
    """

    name: str
    prefix: str
    paused: bool
    changed: bool
    active: int
    moved: int = 0
    warnings: tuple[str, ...] = ()
    stalled: int = 0


def pause_queues(
    client: Client,
    settings: Settings,
    words: Sequence[str],
    *,
    db: int,
    dry_run: bool = False,
    mixed_versions: bool = False,
) -> list[PauseResult]:
    """Stop workers from taking jobs of these queues; running jobs go on.

    Args:
        words: each a ``NAME`` or ``NAME@PREFIX``.
        mixed_versions: also pause queues on which both BullMQ 5 and BullMQ 6 work.

    Raises:
        NotFoundError: a queue does not exist; then no queue is paused.
        RefusedError: a queue belongs to Bull 3 or 4, BullMQ 5 and 6 both work on a queue, or this
            Redis user lacks a right; then no queue is paused.
    """
    snapshots = read_existing(client, select_queues(client, settings.prefixes, words))
    require_bullmq(snapshots, hint=_BULL_HINT)
    mixed = require_safe_pause(client, snapshots, settings, db, accept=mixed_versions)
    # The Redis user must be allowed to resume the queues again.
    require_rights(
        client, [s.keys for s in snapshots], rights.PAUSE, what="a pause with its resume"
    )
    holder = this_process("pause")
    results = []
    for snapshot in snapshots:
        keys, changed = snapshot.keys, not snapshot.paused
        if not dry_run:
            changed = pause(client, keys, holder, "claim", use_list=keys in mixed).changed
        warnings = [mixed[keys]] if keys in mixed else []
        if snapshot.lease is not None:
            warnings.append(
                f"{snapshot.lease} is at work on {keys.name} and goes on; after it has ended, the "
                "queue stays paused"
            )
        results.append(
            PauseResult(
                name=keys.name,
                prefix=keys.prefix,
                paused=True,
                changed=changed,
                active=snapshot.counts.active,
                warnings=tuple(warnings),
                stalled=snapshot.counts.stalled,
            )
        )
    return results


def require_rights(
    client: Client, queues: Iterable[QueueKeys], scripts: Sequence[str], *, what: str
) -> bool:
    """Make sure that this Redis user may run every command of these scripts on each queue.

    Args:
        scripts: names of scripts: ``DRAIN`` or ``PAUSE`` of ``wire.read.rights``.
        what: the action, for the message, e.g. ``a drain``.

    Returns:
        True if the user has all rights; False if the rights are unknown, as before Redis 7.

    Raises:
        RefusedError: a right is missing; the message names the commands.
    """
    for keys in queues:
        refused = rights.read_missing_rights(client, keys, scripts)
        if refused is None:
            return False
        missing = []
        if refused.on_queue:
            missing.append(f"on keys of queue {keys.name}: {', '.join(refused.on_queue)}")
        if refused.on_own:
            missing.append(f"on qctl's own keys, qctl:*: {', '.join(refused.on_own)}")
        if missing:
            commands = sorted({*refused.on_queue, *refused.on_own})
            grant = " ".join(f"+{name}" for name in commands)
            raise RefusedError(
                f"this Redis user may not run all commands that {what} needs, so nothing was "
                "changed",
                why="not granted " + "; ".join(missing),
                hint=f"ACL SETUSER NAME {grant} ~{keys.prefix}:* ~qctl:*; "
                "all rights at once: qctl acl drain",
            )
    return True


def resume_queues(
    client: Client,
    prefixes: Prefixes,
    words: Sequence[str],
    *,
    dry_run: bool = False,
    force: bool = False,
) -> list[PauseResult]:
    """Let workers take jobs of these queues again, including jobs in BullMQ 5's ``paused`` list.

    Args:
        words: each a ``NAME`` or ``NAME@PREFIX``.
        force: also resume queues that are being drained.

    Raises:
        NotFoundError: a queue does not exist; then no queue is resumed.
        RefusedError: a queue belongs to Bull 3 or 4, or is being drained; then no queue is resumed.
    """
    snapshots = read_existing(client, select_queues(client, prefixes, words))
    require_bullmq(snapshots, hint=_BULL_HINT)
    for snapshot in snapshots:
        if snapshot.lease is not None and not force:
            raise RefusedError(
                f"queue {snapshot.keys.name} is being drained",
                why=f"{snapshot.lease} is at work on it",
                hint="wait until the drain has ended, stop it with Ctrl-C, or resume the queue now "
                "with --force",
            )
    results = []
    for snapshot in snapshots:
        changed, moved = snapshot.paused, snapshot.legacy_paused
        if not dry_run:
            done = resume(client, snapshot.keys, force=force)
            changed, moved = done.changed, done.moved
        results.append(
            PauseResult(
                name=snapshot.keys.name,
                prefix=snapshot.keys.prefix,
                paused=False,
                changed=changed,
                active=snapshot.counts.active,
                moved=moved,
                stalled=snapshot.counts.stalled,
            )
        )
    return results
