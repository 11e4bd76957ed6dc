"""The proof at the end of a drain: every job that the queues held is in some state, or has ended.

The drain remembers the ids of up to ``MAX_IDS`` jobs of a queue. If no event reports the end of
such a job, the job is looked up. In a larger queue, these jobs are a sample. Therefore the number
of all jobs is also checked: it must be the number at the start, changed by the events since then.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import ReplyError, is_outage
from qctl.ops.drain.inventory import MAX_IDS, MAX_IDS_OF_ALL, QueueJobs
from qctl.ops.drain.steps import Proof
from qctl.ops.drain.tracker import Tracker
from qctl.plurals import counted
from qctl.wire.events import event_order, last_event_id
from qctl.wire.keys import ITERATION_PREFIX, JobKey, QueueKeys
from qctl.wire.read.census import DELETED, STRAY, in_no_state, read_census, read_ids
from qctl.wire.read.locate import locate
from qctl.wire.read.versions import other_libraries

# A read may miss a job that moves meanwhile, so a job is gone only if this many reads miss it.
MAX_READS = 4
READ_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the proof.

    Args:
        lost: the number of lost jobs; None when unknown.
    """

    lost: int | None
    proof: Proof


def take_inventory(client: Client, tracker: Tracker, keys: QueueKeys) -> None:
    """Record a queue's jobs at the start. Call this once the drain follows the queue's events.

    If Redis refuses a read, the queue stays without an inventory, and the verdict says so.

    Raises:
        QctlError: Redis is away.
    """
    max_ids = min(MAX_IDS, MAX_IDS_OF_ALL // len(tracker.queues))
    try:
        census = read_census(client, keys)
        ids = read_ids(client, keys, census.counts, max_ids)
        taken_id = last_event_id(client, keys)
    except ReplyError as error:
        if is_outage(error):
            raise
        return
    tracker.inventory.queues[keys] = QueueJobs(
        ids=ids,
        seen=len(ids),
        max_ids=2 * max_ids,
        # ``begin_active`` adds the active jobs, so they do not count here.
        is_complete=census.job_count - census.counts["active"] <= max_ids,
        begin=census,
        begin_order=event_order(census.last_event_id),
        taken_order=event_order(taken_id),
        iterations={job_id.rpartition(":")[0]: job_id for job_id in census.iterations},
    )


def prove(client: Client, tracker: Tracker) -> Verdict:
    """Find out what became of every job, and record it in the ledger.

    Raises:
        QctlError: Redis is away, or refuses a read.
    """
    inventory, ledger = tracker.inventory, tracker.ledger
    for keys, queue in inventory.queues.items():
        if not queue.is_complete:
            queue.end = read_census(client, keys)
    tracker.catch_up()
    _settle(client, tracker)
    # A job that completed and was removed in the meantime has an event by now.
    tracker.catch_up()
    nowhere = _find_nowhere(client, tracker)
    strays = [job for job, left in nowhere.items() if left == STRAY]
    others = other_libraries(client, sorted({keys for keys, _ in strays}))
    for job in strays:
        if job[0] not in others:
            ledger.note_lost(job, inventory.queues[job[0]].ids.get(job[1], "active"))
        elif job in ledger.unsettled:
            ledger.settle(job, "unknown")
    unsettled = set(ledger.unsettled)
    deleted = [job for job, left in nowhere.items() if left == DELETED and job not in unsettled]
    doubts = [
        f"{tracker.label(keys)} is a queue of {library}, which may keep jobs where qctl does not "
        "look"
        for keys, library in others.items()
    ]
    return _verdict(tracker, deleted, doubts)


def unproved(tracker: Tracker, why: str) -> Verdict:
    """The verdict when nothing could be checked."""
    return Verdict(
        None, Proof(resumed_by_others=_names(tracker, tracker.pauses.resumed_by_others), why=why)
    )


def _settle(client: Client, tracker: Tracker) -> None:
    """Read and record the state of each unsettled job.

    An unsettled job was active, and no event reports its end.

    If a job is in no state, and nothing explains why, it stays unsettled, which means lost.
    """
    ledger = tracker.ledger
    absent = []
    for job in ledger.unsettled:
        state, is_locked = _find_state(client, job)
        if state is None:
            absent.append(job)
        elif state == "active":
            ledger.settle(job, "running" if is_locked else "orphaned")
        elif state in {"waiting", "delayed", "prioritized"}:
            ledger.settle(job, "retried")
        else:
            ledger.settle(job, state)
    for job, left in in_no_state(client, absent).items():
        if left == STRAY:
            # The job's hash still exists, so ``prove`` decides whether the job is lost.
            continue
        if job[0] in tracker.missed:
            # The job may have ended and been removed: its event may be among the missed ones.
            ledger.settle(job, "unknown")
        elif left == DELETED and (queue := tracker.inventory.queues.get(job[0])) and queue.cleaned:
            ledger.settle(job, "removed")


def _find_state(client: Client, job: JobKey) -> tuple[str | None, bool]:
    """The state of a job (None if it is in no state), and whether the job is locked."""
    keys, job_id = job
    for attempt in range(MAX_READS):
        if attempt:
            time.sleep(READ_AGAIN_S)
        found = locate(client, keys, job_id)
        if found.state is not None:
            return found.state, found.lock_token is not None
    return None, False


def _find_nowhere(client: Client, tracker: Tracker) -> dict[JobKey, str]:
    """Jobs that are in no state although no event reports their end → what is left of each.

    A job that has events while it is looked up has moved, so it is left out.
    """
    inventory = tracker.inventory
    suspects = [(keys, job_id) for keys, queue in inventory.queues.items() for job_id in queue.ids]
    nowhere: dict[JobKey, str] = {}
    for attempt in range(MAX_READS):
        if attempt:
            time.sleep(READ_AGAIN_S)
        inventory.moved()
        nowhere = in_no_state(client, suspects)
        tracker.catch_up()
        moved = inventory.moved()
        nowhere = {job: left for job, left in nowhere.items() if job not in moved}
        suspects = list(nowhere)
        if not suspects:
            break
    return nowhere


def _verdict(tracker: Tracker, deleted: list[JobKey], doubts: list[str]) -> Verdict:
    known, missed = tracker.inventory.queues, tracker.missed
    results = [job.result for job in tracker.ledger.outcomes()]
    lost = results.count("lost")
    doubts = doubts + [
        f"the jobs of {tracker.label(keys)} could not be counted"
        if keys in tracker.cursors
        else f"{tracker.label(keys)} was not reached"
        for keys in tracker.queues
        if keys not in known
    ]
    for keys, queue in known.items():
        name = tracker.label(keys)
        if keys in missed:
            doubts.append(
                f"events of {name} are missing: they were cut off before they could be read "
                "(a larger streams.events.maxLen keeps more), or their stream was deleted"
            )
        elif queue.is_disturbed:
            doubts.append(f"{name} was resumed by somebody else before its jobs were counted")
        elif not queue.is_complete:
            known_lost = tracker.ledger.lost_of(keys)
            if known_lost and not any(job[0] == keys for job in deleted):
                # The sample has lost jobs and no deleted ones, so all missing jobs count as lost.
                queue.lost_unnamed = max(queue.missing - known_lost, 0)
                lost += queue.lost_unnamed
            elif not queue.is_balanced:
                less = "fewer" if queue.missing > 0 else "more"
                jobs = counted(abs(queue.missing), "job")
                doubts.append(f"{name} has {jobs} {less} than its events explain")
    ids = sum(queue.seen for queue in known.values())
    checked = "all ids"
    if not known:
        checked = "nothing"
    elif missed or len(known) < len(tracker.queues):
        checked = f"a sample of {counted(ids, 'job')}"
    elif not all(queue.is_complete for queue in known.values()):
        checked = f"counts and a sample of {counted(ids, 'job')}"
    # BullMQ replaces a scheduler's iteration without an event, so iterations are not counted.
    silent = sum(
        keys not in missed and not job_id.startswith(ITERATION_PREFIX) for keys, job_id in deleted
    )
    proof = Proof(
        checked=checked,
        ids=ids,
        deleted=silent,
        events_missed=_names(tracker, missed),
        resumed_by_others=_names(tracker, tracker.pauses.resumed_by_others),
        why="; ".join(doubts),
    )
    return Verdict(None if doubts and not lost else lost, proof)


def _names(tracker: Tracker, queues: Iterable[QueueKeys]) -> tuple[str, ...]:
    return tuple(sorted(map(tracker.label, queues)))
