"""Moves jobs from one state to another, or deletes them. One run of a Lua script changes many jobs.

The functions return one word per job; the comments of the scripts explain the words. With
``dry_run``, the functions write nothing. ``pace`` adapts the number of jobs per call; None for a
new pace. ``foresight`` passes on what earlier calls of the same dry run would have changed; None
for the first call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pace import Pace

# The script's word for a job that must be sent again, because the call has already taken too long.
_LATER = "later"
# Maximum characters that one call of a dry run hands to the next.
_MAX_FORESEEN = 100_000


@dataclass(slots=True)
class Foresight:
    """What a dry run would have changed so far, as JSON that only the script reads."""

    text: str = ""

    def replace(self, text: str) -> None:
        """Keep the text from the last answer; if the text is too long, forget everything."""
        self.text = text if len(text) <= _MAX_FORESEEN else ""


def retry_stalled(
    client: Client,
    keys: QueueKeys,
    locks: Mapping[str, str],
    *,
    max_stalled: int | None = None,
) -> dict[str, str]:
    """Put active jobs back to run next, each only if its lock has not changed.

    Args:
        locks: job id → the lock token that was seen, ``""`` for a job without a lock; in the order
            in which the jobs are to run.
        max_stalled: the workers' ``maxStalledCount``. Each job gets one more stall, as in BullMQ's
            stalled check. None: no stall is counted, and earlier stalls are forgotten.

    Returns:
        id → ``retried``, ``locked``, ``inactive`` or ``missing``.
    """
    head: list[Arg] = ["" if max_stalled is None else max_stalled, STALLED_TOO_OFTEN]
    return _in_chunks(client, "retry_stalled", keys, head, locks, locks=locks, last_runs_first=True)


def retry_finished(
    client: Client,
    keys: QueueKeys,
    ids: Sequence[str],
    *,
    source: str = "",
    only_reason: str = "",
    run_next: bool = False,
    forget: str = "",
    dry_run: bool = False,
    pace: Pace | None = None,
    foresight: Foresight | None = None,
) -> dict[str, str]:
    """Run finished jobs again, and put back lost jobs, which are unfinished and in no state.

    Args:
        ids: in the order in which the jobs are to run.
        source: ``failed`` or ``completed``: only jobs in this state; empty for all finished and
            lost jobs.
        only_reason: only jobs whose failure reason is this text; empty for any.
        run_next: put the jobs before the waiting ones instead of behind them.
        forget: ``stalls`` to forget the stalls, ``attempts`` to forget the stalls and attempts.

    Returns:
        id → ``retried``, ``inactive``, ``missing`` or ``duplicate``; without a source also
        ``ghost``, ``ended``, ``locked`` or ``children``.
    """
    head: list[Arg] = [source, only_reason, "next" if run_next else "", forget]
    head.append("dry" if dry_run else "")
    return _in_chunks(
        client,
        "retry_finished",
        keys,
        head,
        ids,
        last_runs_first=run_next,
        pace=pace,
        foresight=foresight or Foresight(),
    )


def promote(
    client: Client,
    keys: QueueKeys,
    ids: Sequence[str],
    *,
    dry_run: bool = False,
    pace: Pace | None = None,
) -> dict[str, str]:
    """Run delayed jobs now, in this order.

    Returns:
        id → ``promoted``, ``inactive`` or ``missing``.
    """
    return _in_chunks(client, "promote", keys, ["dry" if dry_run else ""], ids, pace=pace)


def remove_jobs(
    client: Client,
    keys: QueueKeys,
    ids: Sequence[str],
    *,
    state: str = "",
    silent: bool = False,
    with_last: bool = False,
    parent_key: str = "",
    dry_run: bool = False,
    just_seen: bool = False,
    pace: Pace | None = None,
    foresight: Foresight | None = None,
) -> dict[str, str]:
    """Delete jobs, their logs and their deduplication keys. Parents no longer wait for these jobs.

    Args:
        state: only jobs in this state; empty for any.
        silent: write no ``removed`` events; the caller writes one event with ``report_cleaned``.
        with_last: if a job waits for a single child, delete both. Without it, jobs that wait for
            children stay.
        parent_key: delete only children of the parent with this key. The last child that the
            parent waits for stays.
        just_seen: the jobs were just read from ``state``, so a dry run does not search for them.

    Returns:
        id → ``removed``, ``locked``, ``scheduled``, ``parent``, ``child-locked``, ``last``,
        ``inactive`` or ``missing``.
    """
    head: list[Arg] = [
        {"waiting": "wait", "stalled": "active"}.get(state, state),
        "" if silent else "removed",
        "last" if with_last else "",
        parent_key,
        ("seen" if just_seen else "dry") if dry_run else "",
    ]
    foresight = foresight or Foresight()
    return _in_chunks(client, "remove_jobs", keys, head, ids, pace=pace, foresight=foresight)


def report_cleaned(client: Client, keys: QueueKeys, count: int) -> None:
    """Write one event for jobs that were deleted silently, as BullMQ's clean does."""
    scripts.run(client, "report_cleaned", keys.whole, [count])


def _in_chunks(
    client: Client,
    script: str,
    keys: QueueKeys,
    head: list[Arg],
    ids: Iterable[str],
    *,
    locks: Mapping[str, str] | None = None,
    last_runs_first: bool = False,
    pace: Pace | None = None,
    foresight: Foresight | None = None,
) -> dict[str, str]:
    ordered = list(dict.fromkeys(ids))
    # Of the jobs that a script puts at the tail of ``wait``, the last one runs first.
    left = ordered[::-1] if last_runs_first else ordered
    pace = pace or Pace()
    answers: dict[str, str] = {}
    while left:
        chunk = left[: pace.size]
        jobs = chunk if locks is None else [arg for id_ in chunk for arg in (id_, locks[id_])]
        memory = [] if foresight is None else [foresight.text]
        args = [*head, *memory, *jobs]
        reply, took_s = scripts.run_timed(client, script, keys.whole, args)
        words, foreseen = reply[: len(chunk)], reply[len(chunk) :]
        if foresight is not None and foreseen:
            foresight.replace(foreseen[0])
        # The jobs left to the next call are always the end of the chunk.
        done = {job_id: word for job_id, word in zip(chunk, words, strict=True) if word != _LATER}
        pace.learn(len(done), took_s)
        answers |= done
        left = left[len(done) :]
    return {job_id: answers[job_id] for job_id in ordered}
