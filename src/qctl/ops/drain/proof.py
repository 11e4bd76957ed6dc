"""The proof at the end of a drain: every job that the queues held is in some state, or has ended.

Up to ``MAX_IDS`` jobs of a queue are looked up by their ids, except those whose end an event
reports. In larger queues that is a sample; in addition the number of all jobs must be the number at
the start plus what the events since then have added or removed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import ReplyError, is_outage
from qctl.ops.drain.inventory import MAX_IDS, MAX_IDS_OF_ALL
from qctl.ops.drain.steps import Proof
from qctl.ops.drain.tracker import Tracker
from qctl.plurals import counted
from qctl.wire.events import last_event_id
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.census import DELETED, STRAY, in_no_state, read_census, read_ids
from qctl.wire.read.locate import locate
from qctl.wire.read.versions import other_libraries

# A job may move from one list to the next between two reads; in no list this often, it is gone.
MAX_READS = 4
READ_AGAIN_S = 0.05
# An iteration that a new one of the same scheduler replaces is deleted without an event.
_ITERATION = "repeat:"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the jobs.

    Args:
        lost: how many are lost; None when that could not be checked.
    """

    lost: int | None
    proof: Proof


def take_inventory(client: Client, tracker: Tracker, keys: QueueKeys) -> None:
    """Take note of a queue's jobs at the start, once its events are followed.

    What cannot be read stays unknown, which the verdict says.

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
    tracker.inventory.begin(keys, census, ids, max_ids, taken_id)


def prove(client: Client, tracker: Tracker) -> Verdict:
    """Find out what became of every job; the ledger takes note of it.

    Raises:
        QctlError: Redis is away, or refuses to be read.
    """
    inventory, ledger = tracker.inventory, tracker.ledger
    known = [keys for keys in tracker.queues if inventory.has(keys)]
    for keys in known:
        if not inventory.is_complete(keys):
            inventory.end(keys, read_census(client, keys))
    tracker.catch_up()
    _settle(client, tracker)
    # One that ran on and was removed once it had completed has an event by now.
    tracker.catch_up()
    nowhere = _find_nowhere(client, tracker, known)
    strays = [job for job, left in nowhere.items() if left == STRAY]
    others = other_libraries(client, sorted({keys for keys, _ in strays}))
    for job in strays:
        if job[0] not in others:
            ledger.note_lost(job, inventory.state(job) or "active")
        elif job in ledger.unsettled:
            ledger.settle(job, "unknown")
    unsettled = set(ledger.unsettled)
    deleted = [job for job, left in nowhere.items() if left == DELETED and job not in unsettled]
    doubts = [
        f"{keys.name} is a queue of {library}, which may keep jobs where qctl does not look"
        for keys, library in others.items()
    ]
    return _verdict(tracker, known, deleted, doubts)


def unproved(tracker: Tracker, why: str) -> Verdict:
    """The verdict when nothing could be checked."""
    proof = Proof(resumed_by_others=_names(tracker.pauses.resumed_by_others), why=why)
    return Verdict(None, proof)


def _settle(client: Client, tracker: Tracker) -> None:
    """Find out about the jobs that were active and whose end no event has reported.

    One that is in no state, and whose end nothing explains, stays unsettled, which means lost.
    """
    ledger = tracker.ledger
    absent = []
    for job in ledger.unsettled:
        where, locked = _where(client, job)
        if where is None:
            absent.append(job)
        elif where == "active":
            ledger.settle(job, "running" if locked else "orphaned")
        elif where in {"waiting", "delayed", "prioritized"}:
            ledger.settle(job, "retried")
        else:
            ledger.settle(job, where)
    for job, left in in_no_state(client, absent).items():
        if left == STRAY:
            continue
        if job[0] in tracker.missed:
            # Perhaps it has completed and was removed, and that event was cut off.
            ledger.settle(job, "unknown")
        elif left == DELETED and tracker.inventory.cleaned(job[0]):
            ledger.settle(job, "removed")


def _where(client: Client, job: JobKey) -> tuple[str | None, bool]:
    keys, job_id = job
    for attempt in range(MAX_READS):
        if attempt:
            time.sleep(READ_AGAIN_S)
        found = locate(client, keys, job_id)
        if found.state is not None:
            return found.state, found.lock_token is not None
    return None, False


def _find_nowhere(
    client: Client, tracker: Tracker, known: Iterable[QueueKeys]
) -> dict[JobKey, str]:
    """Jobs that are in no state although no event says that they have ended; what is left of each.

    Those that move during the search are looked up again.
    """
    inventory = tracker.inventory
    suspects = [job for keys in known for job in inventory.jobs(keys)]
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


def _verdict(
    tracker: Tracker, known: list[QueueKeys], deleted: list[JobKey], doubts: list[str]
) -> Verdict:
    inventory, missed = tracker.inventory, tracker.missed
    results = [job.result for job in tracker.ledger.outcomes()]
    lost = results.count("lost")
    doubts = doubts + [
        f"the jobs of {keys.name} could not be counted"
        if keys in tracker.cursors
        else f"{keys.name} was not reached"
        for keys in tracker.queues
        if keys not in known
    ]
    for keys in known:
        if keys in missed:
            doubts.append(
                f"events of {keys.name} are missing: they were cut off before they could be read "
                "(a larger streams.events.maxLen keeps more), or their stream was deleted"
            )
        elif inventory.is_disturbed(keys):
            doubts.append(f"{keys.name} was resumed by somebody else before its jobs were counted")
        elif not inventory.is_complete(keys):
            missing = inventory.balance(keys).missing
            own = tracker.ledger.lost_of(keys)
            if own and not any(job[0] == keys for job in deleted):
                # What happened to the sample happened to the others.
                lost += max(missing - own, 0)
            elif not inventory.balance(keys).agrees:
                less = "fewer" if missing > 0 else "more"
                doubts.append(
                    f"{keys.name} has {counted(abs(missing), 'job')} {less} than its events explain"
                )
    ids = sum(inventory.seen(keys) for keys in known)
    checked = "all ids"
    if not known:
        checked = "nothing"
    elif missed or len(known) < len(tracker.queues):
        checked = f"a sample of {counted(ids, 'job')}"
    elif not all(map(inventory.is_complete, known)):
        checked = f"counts and a sample of {counted(ids, 'job')}"
    silent = [job for job in deleted if not job[1].startswith(_ITERATION) and job[0] not in missed]
    proof = Proof(
        checked=checked,
        ids=ids,
        deleted=len(silent),
        events_missed=_names(missed),
        resumed_by_others=_names(tracker.pauses.resumed_by_others),
        why="; ".join(doubts),
    )
    return Verdict(None if doubts and not lost else lost, proof)


def _names(queues: Iterable[QueueKeys]) -> tuple[str, ...]:
    return tuple(sorted(keys.name for keys in queues))
