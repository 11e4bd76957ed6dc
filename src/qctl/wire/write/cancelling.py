"""Cancels jobs: deletes those that have not started, and asks workers to cancel those that run.

BullMQ has no such request: its ``worker.cancelJob()`` works only inside the worker's own process.
So the request is a field in a hash of qctl's own (``QueueKeys.cancel_requests``), which only
qctl's workers read, about once a second while they run jobs. The field's value is a JSON array:

    ["ask", LOCK TOKEN, REASON]     a request, for the run with this lock token
    ["cancelling", LOCK TOKEN]      the worker's answer: the handler is being cancelled
    ["thread", LOCK TOKEN]          its answer: the handler runs in a thread, which nothing can stop

A worker that does not answer is not one of qctl's, so the request is withdrawn. The hash expires.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.ending import read_ending
from qctl.wire.read.locate import locate
from qctl.wire.replies import read_checked, read_json
from qctl.wire.states import FINISHED
from qctl.wire.write.transitions import remove_jobs

# How often a worker that runs jobs looks for requests.
LOOK_S = 1.0
# A worker that has not answered after this time does not take requests.
ANSWER_S = 5.0
# How long a handler may take to end after it was cancelled.
END_S = 10.0
# The failed reason of a cancelled job begins with this.
CANCELLED = "cancelled"
# What a worker can answer.
CANCELLING, IN_THREAD = "cancelling", "thread"
_ASK = "ask"
_EXPIRES_S = 60
_POLL_S = 0.1
# How many times to try to cancel a job that moves from state to state.
_TRIES = 5

# Why a job was not cancelled: word → reason.
REASONS = {
    "missing": "it does not exist",
    "ended": "it has already ended",
    "inactive": "it moves from state to state",
    "scheduled": "it is the next job of a scheduler",
    "parent": "it waits for its children",
    "child-locked": "it waits for a child that a worker runs",
    "thread": "its handler runs in a thread, which cannot be interrupted; a handler with "
    "isolate=True can",
    "unanswered": "it runs on a worker that did not answer: a job of a Node worker can only be "
    "cancelled in the worker's own process (worker.cancelJob)",
    "unfinished": f"its handler was cancelled, but has not ended within {END_S:g} s",
    "unsure": "it runs, and it is unknown whether it can be cancelled: a qctl worker would be "
    "asked, but a Node worker cannot be asked",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request to cancel one run of a job.

    Args:
        token: the lock token of that run.
        text: the request as it is stored in the hash.
    """

    job_id: str
    token: str
    reason: str
    text: str


def failed_reason(reason: str) -> str:
    """The failed reason of a job that was cancelled for this reason, which may be empty."""
    return f"{CANCELLED}: {reason}" if reason else CANCELLED


# The worker's part


def read_requests(client: Client, keys: QueueKeys) -> list[Request]:
    """The requests that have no answer yet."""
    flat = client.call("HGETALL", keys.cancel_requests)
    found = []
    for job_id, text in zip(flat[::2], flat[1::2], strict=True):
        match read_json(text, None)[0]:
            case [kind, str(token), str(reason)] if kind == _ASK:
                found.append(Request(job_id, token, reason, text))
    return found


def answer(client: Client, keys: QueueKeys, request: Request, word: str) -> bool:
    """Answer a request; return False if it was withdrawn."""
    text = json.dumps([word, request.token])
    return _swap(client, keys, request.job_id, request.text, text)


# The caller's part


def cancel_jobs(
    client: Client,
    keys: QueueKeys,
    ids: Iterable[str],
    *,
    reason: str = "",
    dry_run: bool = False,
    check_stop: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Cancel jobs, and wait until those that run have failed.

    Args:
        reason: for the failed reason of a job that runs.
        check_stop: called again and again during the wait; it may raise an error.

    Returns:
        id → ``cancelled``, or a word of ``REASONS``. A job that has not started is deleted.
    """
    answers: dict[str, str] = dict.fromkeys(ids, "inactive")
    left = list(answers)
    for _ in range(_TRIES):
        running: dict[str, str] = {}
        for job_id in left:
            word, token = _cancel_resting(client, keys, job_id, dry_run=dry_run)
            answers[job_id] = word
            if token:
                running[job_id] = token
        if dry_run:
            owners = {job_id: heartbeats.owner_of(token) for job_id, token in running.items()}
            known = heartbeats.read(client, owners.values())
            for job_id, owner in owners.items():
                answers[job_id] = CANCELLED if owner in known else "unsure"
            break
        answers |= _cancel_running(client, keys, running, reason, check_stop)
        # A job that was given back or retried meanwhile has another lock, or none.
        left = [job_id for job_id in left if answers[job_id] == "inactive"]
        if not left:
            break
    return answers


def _cancel_resting(
    client: Client, keys: QueueKeys, job_id: str, *, dry_run: bool
) -> tuple[str, str]:
    """Delete a job that no worker runs.

    Returns:
        the word for the job, and the lock token if a worker runs it.
    """
    found = locate(client, keys, job_id)
    if found.lock_token:
        return "inactive", found.lock_token
    if not found.fields or found.listed_state is None:
        return "missing", ""
    if found.listed_state in FINISHED:
        return "ended", ""
    word = remove_jobs(client, keys, [job_id], state=found.listed_state, dry_run=dry_run)[job_id]
    return {"removed": CANCELLED, "locked": "inactive", "missing": "inactive"}.get(word, word), ""


def _cancel_running(
    client: Client,
    keys: QueueKeys,
    tokens: Mapping[str, str],
    reason: str,
    check_stop: Callable[[], None],
) -> dict[str, str]:
    """Ask the workers to cancel these jobs (id → lock token); return the words for the jobs."""
    if not tokens:
        return {}
    requests = {job_id: json.dumps([_ASK, token, reason]) for job_id, token in tokens.items()}
    key = keys.cancel_requests
    flat = [word for request in requests.items() for word in request]
    read_checked(client, [("HSET", key, *flat), ("EXPIRE", key, _EXPIRES_S)])
    began = time.monotonic()
    words: dict[str, str] = {}
    try:
        while True:
            left = [job_id for job_id in tokens if job_id not in words]
            # A job whose lock is gone or has changed has ended, or waits again. The locks are read
            # after the answers, so that the answer to a run that has ended is ignored.
            *texts, locks = read_checked(
                client,
                [
                    *(("HGET", key, job_id) for job_id in left),
                    ("MGET", *map(keys.lock, left)),
                ],
            )
            waited_s = time.monotonic() - began
            for job_id, text, lock in zip(left, texts, locks, strict=True):
                if lock != tokens[job_id]:
                    words[job_id] = _word_of_ending(client, keys, job_id)
                elif text == json.dumps([IN_THREAD, tokens[job_id]]):
                    words[job_id] = "thread"
                elif waited_s >= ANSWER_S and text == requests[job_id]:
                    if _swap(client, keys, job_id, text, ""):
                        words[job_id] = "unanswered"
                elif waited_s >= END_S:
                    words[job_id] = "unfinished"
            if len(words) == len(tokens):
                return words
            check_stop()
            time.sleep(_POLL_S)
    finally:
        _withdraw(client, keys, list(tokens))


def _word_of_ending(client: Client, keys: QueueKeys, job_id: str) -> str:
    ending = read_ending(client, keys, job_id)
    if ending.state == "failed" and (ending.failed_reason or "").startswith(CANCELLED):
        return CANCELLED
    return "ended" if ending.is_final else "inactive"


def _withdraw(client: Client, keys: QueueKeys, ids: Sequence[str]) -> None:
    client.call("HDEL", keys.cancel_requests, *ids)


def _swap(client: Client, keys: QueueKeys, job_id: str, seen: str, text: str) -> bool:
    return bool(scripts.run(client, "swap_request", [keys.cancel_requests], [job_id, seen, text]))
