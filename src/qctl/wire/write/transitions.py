"""What qctl writes to a queue, each a call of one Lua transition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.jobs import STALLED_TOO_OFTEN
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import LEASE_TTL_MS, Holder, parse_holder
from qctl.wire.write.pace import Pace

# Jobs moved by one script call; keeps every call well below 5 ms.
MERGE_CHUNK = 1000
# Said of a job that a call has not looked at, since it had done enough.
_LATER = "later"


@dataclass(frozen=True, slots=True)
class Pause:
    """The outcome of a pause.

    Args:
        changed: False when somebody else had paused the queue already.
        event_id: of the ``paused`` event, or empty.
    """

    changed: bool
    event_id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """The outcome of a resume.

    Args:
        changed: whether the queue was paused before.
        moved: jobs brought over from BullMQ 5's ``paused`` list.
        owned: False when the pause belongs to somebody else and nothing was done.
        event_id: of the ``resumed`` event, or empty.
    """

    changed: bool
    moved: int
    owned: bool
    event_id: str


def _keys(keys: QueueKeys, *suffixes: str) -> list[str]:
    return [keys(suffix) for suffix in suffixes]


def pause(
    client: Client,
    keys: QueueKeys,
    holder: Holder,
    *,
    claim: bool = False,
    take_over: bool = False,
    use_list: bool = False,
) -> Pause:
    """Stop workers from taking jobs; running ones go on. Repeating a call does no harm.

    Args:
        claim: make it ours also when a drain has paused it for the time being, so that the queue
            stays paused when that drain ends.
        take_over: the same for a drain that is gone, unless somebody else has paused it since.
        use_list: put ready jobs into BullMQ 5's ``paused`` list, whatever ``meta.version`` says.
    """
    mode = "claim" if claim else "take over" if take_over else ""
    word, event_id = _pause(client, keys, holder, mode, use_list=use_list)
    return Pause(word != "others", event_id)


def pause_again(
    client: Client, keys: QueueKeys, holder: Holder, *, use_list: bool = False
) -> Pause | None:
    """Keep a queue paused that this holder has paused, with all ready jobs where they belong.

    Returns:
        ``changed`` when somebody had resumed it and it is paused again; None when somebody resumed
        it through qctl, which takes the note away: then nothing was done.
    """
    word, event_id = _pause(client, keys, holder, "again", use_list=use_list)
    return None if word == "resumed" else Pause(word == "paused", event_id)


def _pause(
    client: Client, keys: QueueKeys, holder: Holder, mode: str, *, use_list: bool
) -> tuple[str, str]:
    names = ("meta", "wait", "paused", "marker", "events")
    script_keys = [*_keys(keys, *names), keys.pause_note, *keys.whole]
    args: list[Arg] = [
        holder.to_json(),
        holder.owner,
        mode,
        "list" if use_list else "",
        MERGE_CHUNK,
    ]
    while True:
        word, event_id = scripts.run(client, "pause", script_keys, args)
        if word != "more":
            return word, event_id


def resume(client: Client, keys: QueueKeys, *, owner: str = "", force: bool = False) -> Resume:
    """Let workers take jobs again.

    Args:
        owner: resume only if the pause is this owner's, and nobody else has paused the queue
            since; empty resumes whoever's it is.
        force: let a drain that is at work on the queue see, by the event, that it shall stop.
    """
    args: list[Arg] = [owner, MERGE_CHUNK, "force" if force else ""]
    names = ("meta", "wait", "paused", "prioritized", "delayed", "marker", "events", "active")
    script_keys = [*_keys(keys, *names), keys.pause_note, *keys.whole]
    moved = None
    while True:
        word, in_paused, event_id = scripts.run(client, "resume", script_keys, args)
        moved = in_paused if moved is None else moved
        if word != "more":
            return Resume(word == "resumed", moved, owned=word != "others", event_id=event_id)


def retry_stalled(
    client: Client,
    keys: QueueKeys,
    locks: Mapping[str, str],
    *,
    count_stall: int | None = None,
) -> dict[str, str]:
    """Put active jobs back to run next, each only if its lock is the expected one.

    Args:
        locks: job id → the lock token seen, ``""`` for a job without a lock; in the order in which
            the jobs shall run.
        count_stall: None to forget earlier stalls; else the workers' ``maxStalledCount``, and one
            more stall is counted as BullMQ would.

    Returns:
        id → ``retried``, ``locked``, ``inactive`` or ``missing`` (see the script).
    """
    names = ("meta", "wait", "paused", "prioritized", "active", "marker", "events", "stalled")
    head: list[Arg] = [keys(""), "" if count_stall is None else count_stall, STALLED_TOO_OFTEN]
    return _in_chunks(
        client,
        "retry_stalled",
        [*_keys(keys, *names), *keys.whole],
        head,
        {job_id: [job_id, lock] for job_id, lock in locks.items()},
    )


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
    """Run finished jobs again, and put lost ones back: unfinished, and in no state.

    Args:
        ids: in the order in which the jobs shall run.
        source: ``failed`` or ``completed``: only jobs that are there; empty for either of them, or
            for no state at all.
        only_reason: restricts it to jobs that failed with this text; empty for any.
        run_next: before those that wait, instead of behind them.
        forget: ``stalls``: the stalls no longer count; ``attempts``: nor do the attempts made.
        dry_run: write nothing.
        pace: how many jobs a call takes; None to begin anew with a few.

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
        pace: how many jobs a call takes; None to begin anew with a few.

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
    """Delete jobs with their logs, their dedup keys and what holds their parents up.

    Args:
        state: only jobs that are there; empty for anywhere.
        silent: write no ``removed`` events; the caller reports them with ``report_cleaned``.
        with_last: also those that wait for one child only, and that child with them.
        parent_key: only children of this job, and not the last one that it waits for.
        dry_run: write nothing.
        just_seen: the jobs were in the lists of ``state`` a moment ago; a dry run relies on it.
        pace: how many jobs a call takes; None to begin anew with a few.

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
    """Write the one event for jobs that were deleted silently, as BullMQ's clean does."""
    scripts.run(client, "cleaned", [*_keys(keys, "events", "meta"), keys("")], [count])


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
    # What is put at the tail of wait last runs first.
    ids = [*jobs][::-1] if last_runs_first else [*jobs]
    pace = pace or Pace()
    answers: dict[str, str] = {}
    while ids:
        chunk = ids[: pace.size]
        args = [*head, *(arg for job_id in chunk for arg in jobs[job_id])]
        words, took_s = scripts.run_timed(client, script, keys, args)
        found = zip(chunk, words, strict=True)
        told = {job_id: answer for job_id, answer in found if answer != _LATER}
        pace.learn(len(told), took_s)
        answers.update(told)
        # Those that are left of the chunk are the last of it.
        ids = ids[len(told) :]
    return {job_id: answers[job_id] for job_id in jobs}


def hold_lease(client: Client, keys: QueueKeys, holder: Holder) -> Holder | None:
    """Take or renew a queue's lease.

    Returns:
        None when ``holder`` has it now, else the one who has it.
    """
    args: list[Arg] = [holder.to_json(), holder.owner, LEASE_TTL_MS]
    answer = scripts.run(client, "lease_hold", [keys.lease], args)
    return parse_holder(answer) if answer else None


def free_lease(client: Client, keys: QueueKeys, owner: str) -> None:
    """Give a lease back, if it still is this owner's."""
    scripts.run(client, "disown", [keys.lease], [owner])


def disown_pause(client: Client, keys: QueueKeys, owner: str) -> None:
    """Let a pause no longer be this owner's: somebody else wants the queue paused as well."""
    scripts.run(client, "disown", [keys.pause_note], [owner])
