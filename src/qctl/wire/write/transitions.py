"""Moves jobs from one state to another, or deletes them; each change is one Lua transition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pace import Pace

# The answer for a job that is left for the next call, because this one has worked long enough.
_LATER = "later"


def retry_stalled(
    client: Client,
    keys: QueueKeys,
    locks: Mapping[str, str],
    *,
    count_stall: int | None = None,
) -> dict[str, str]:
    """Put active jobs back to run next, each only if its lock is the expected one.

    Args:
        locks: job id → the lock token that was seen, ``""`` for a job without a lock; in the order
            in which the jobs shall run.
        count_stall: None to forget earlier stalls; else the workers' ``maxStalledCount``, and one
            more stall is counted, as BullMQ does.

    Returns:
        id → ``retried``, ``locked``, ``inactive`` or ``missing`` (see the script).
    """
    head: list[Arg] = ["" if count_stall is None else count_stall, STALLED_TOO_OFTEN]
    jobs = {job_id: [job_id, lock] for job_id, lock in locks.items()}
    return _in_chunks(client, "retry_stalled", keys.whole, head, jobs)


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
) -> dict[str, str]:
    """Run finished jobs again, and put lost jobs back (unfinished, and in no state).

    Args:
        ids: in the order in which the jobs shall run.
        source: ``failed`` or ``completed``: only jobs in this state; empty for either, or none.
        only_reason: only jobs that failed with this text; empty for any.
        run_next: before the waiting jobs instead of behind them.
        forget: ``stalls`` to forget the stalls, ``attempts`` to forget the attempts as well.
        dry_run: write nothing.
        pace: how many jobs one call takes; None for a new pace.

    Returns:
        id → ``retried``, ``inactive``, ``missing`` or ``duplicate``; without a source also
        ``ghost``, ``ended``, ``locked`` or ``children`` (see the script).
    """
    return _in_chunks(
        client,
        "retry_finished",
        keys.whole,
        [source, only_reason, "next" if run_next else "", forget, "dry" if dry_run else ""],
        {job_id: [job_id] for job_id in ids},
        last_runs_first=run_next,
        pace=pace,
    )


def promote(
    client: Client,
    keys: QueueKeys,
    ids: Sequence[str],
    *,
    dry_run: bool = False,
    pace: Pace | None = None,
) -> dict[str, str]:
    """Run delayed jobs now.

    Args:
        ids: in the order in which the jobs shall run.
        dry_run: write nothing.
        pace: how many jobs one call takes; None for a new pace.

    Returns:
        id → ``promoted``, ``inactive`` or ``missing`` (see the script).
    """
    jobs = {job_id: [job_id] for job_id in ids}
    head: list[Arg] = ["dry" if dry_run else ""]
    return _in_chunks(client, "promote", keys.whole, head, jobs, last_runs_first=False, pace=pace)


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
) -> dict[str, str]:
    """Delete jobs with their logs and deduplication keys; their parents no longer wait for them.

    Args:
        state: only jobs in this state; empty for any.
        silent: write no ``removed`` events; the caller writes one with ``report_cleaned``.
        with_last: also delete a job that waits for one last child, together with that child.
        parent_key: only children of this job, and not the last one that it waits for.
        dry_run: write nothing.
        just_seen: the jobs were in the lists of ``state`` a moment ago; a dry run relies on it.
        pace: how many jobs one call takes; None for a new pace.

    Returns:
        id → ``removed``, ``locked``, ``scheduled``, ``parent``, ``child-locked``, ``last``,
        ``inactive`` or ``missing`` (see the script).
    """
    place = {"waiting": "wait", "stalled": "active"}.get(state, state)
    return _in_chunks(
        client,
        "remove_jobs",
        keys.whole,
        [
            place,
            "" if silent else "removed",
            "last" if with_last else "",
            parent_key,
            ("seen" if just_seen else "dry") if dry_run else "",
        ],
        {job_id: [job_id] for job_id in ids},
        last_runs_first=False,
        pace=pace,
    )


def report_cleaned(client: Client, keys: QueueKeys, count: int) -> None:
    """Write one event for jobs that were deleted silently, as BullMQ's clean does."""
    scripts.run(client, "report_cleaned", keys.whole, [count])


def _in_chunks(
    client: Client,
    script: str,
    keys: Sequence[str],
    head: list[Arg],
    jobs: Mapping[str, list[str]],
    *,
    last_runs_first: bool = True,
    pace: Pace | None = None,
) -> dict[str, str]:
    # The job that is put at the tail of wait last runs first.
    ids = [*jobs][::-1] if last_runs_first else [*jobs]
    pace = pace or Pace()
    answers: dict[str, str] = {}
    while ids:
        chunk = ids[: pace.size]
        args = [*head, *(arg for job_id in chunk for arg in jobs[job_id])]
        words, took_s = scripts.run_timed(client, script, keys, args)
        # What is left for later is always the end of the chunk.
        done = {job_id: word for job_id, word in zip(chunk, words, strict=True) if word != _LATER}
        pace.learn(len(done), took_s)
        answers |= done
        ids = ids[len(done) :]
    return {job_id: answers[job_id] for job_id in jobs}
