"""Turns new jobs and flows into script calls, and the answers of the scripts into ids.

This module sends nothing, so the blocking ``Queue`` and the asyncio one share it. All jobs are
checked before the first call is sent: if one of thousands of jobs is wrong, ``add_calls`` or
``flow_call`` raises UsageError, and no job is added.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg
from qctl.errors import NotFoundError, PartialError, QctlError, RefusedError, UsageError
from qctl.wire.encoding import OptionSet, encode_data, encode_name, option_set
from qctl.wire.keys import QueueKeys
from qctl.wire.options import JobOptions, Parent
from qctl.wire.scripts import ScriptCall

# A call is full if it has this many jobs, or if their data has more than this many characters. A
# full call takes Redis about 2 ms.
MAX_CALL_JOBS = 200
MAX_CALL_CHARS = 500_000
# The scripts' answer if the parent of a job does not exist.
_NO_PARENT = -5


@dataclass(slots=True)
class NewJob(JobOptions):
    """A job to add.

    Args:
        name: the job's name, by which the worker chooses what to do.
        data: the payload, any JSON value; None is ``{}``.
    """

    name: str
    data: Any = None


@dataclass(slots=True)
class FlowJob(JobOptions):
    """A job to add together with the jobs that it waits for.

    Args:
        name, data: as in ``NewJob``.
        queue: the job's queue; all queues of a flow have the same prefix.
        children: the jobs that this job waits for.
    """

    name: str
    queue: str
    data: Any = None
    children: Sequence[FlowJob] = ()


@dataclass(frozen=True, slots=True)
class AddedJob:
    """A job of a flow that was added.

    Args:
        attached: False if the job existed already and has another parent. Its parent in this flow
            waits for ever (wire format T18).
    """

    id: str
    name: str
    queue: str
    attached: bool
    children: tuple[AddedJob, ...]


def check_queue_name(name: str) -> None:
    """Raise UsageError if a queue's name is empty or has a colon, which separates parts of keys."""
    if not isinstance(name, str) or not name or ":" in name:
        raise UsageError(f"a queue cannot be named {name!r}", why="it needs a name without a colon")


def add_calls(keys: QueueKeys, jobs: Sequence[NewJob], now_ms: int) -> list[ScriptCall]:
    """The calls that add ``jobs`` in this order, at most ``MAX_CALL_JOBS`` each."""
    encoded = [encode_data(job.data) for job in jobs]
    return [_add_call(keys, jobs[part], encoded[part], now_ms) for part in _parts(encoded)]


def _parts(encoded: Sequence[str]) -> Iterator[slice]:
    start = size = 0
    for index, data in enumerate(encoded):
        if index - start == MAX_CALL_JOBS or size > MAX_CALL_CHARS:
            yield slice(start, index)
            start, size = index, 0
        size += len(data)
    if start < len(encoded):
        yield slice(start, len(encoded))


def _add_call(
    keys: QueueKeys, jobs: Sequence[NewJob], encoded: Sequence[str], now_ms: int
) -> ScriptCall:
    prefix = keys.prefix
    sets: list[OptionSet] = []
    # ``id()`` of an option set → its number. ``id()`` finds most equal option sets, because they
    # are usually the same cached object.
    numbers: dict[int, str] = {}
    rows: list[Arg] = []
    for job, data in zip(jobs, encoded, strict=True):
        found = option_set(job, prefix)
        number = numbers.get(id(found))
        if number is None:
            sets.append(found)
            number = numbers[id(found)] = str(len(sets))
        rows += (number, encode_name(job.name), data)
    head: list[Arg] = [now_ms, len(sets)]
    for found in sets:
        head += found
    return ScriptCall("add", keys.whole, (*head, *rows))


# The answer for one job: its id if it was added; a code if it was refused (see ``refusal``); or the
# ``id`` and ``outcome`` of an ``AddOutcome`` if there was already such a job.
Answer = str | int | list[str]


@dataclass(frozen=True, slots=True)
class AddOutcome:
    """Whether a new job was added.

    Args:
        id: the job's id; if it was not added, the id of the existing job.
        outcome: ``added``; ``exists`` if there was already a job with the id; ``deduplicated`` if
            there was already a job with the deduplication id.
    """

    id: str
    outcome: str


def added_ids(jobs: Sequence[NewJob], answers: Sequence[Sequence[Answer]]) -> list[str]:
    """The id of each job or, if it was not added, of the existing job (see ``AddOutcome``).

    Args:
        answers: the answers to ``add_calls``.

    Raises:
        NotFoundError, RefusedError: a script refused the only job; see ``refusal``.
        PartialError: a script refused some of several jobs.
    """
    return [
        answer[0] if isinstance(answer, list) else answer
        for answer in _require_added(jobs, answers)
    ]


def added_job(job: NewJob, answers: Sequence[Sequence[Answer]]) -> AddOutcome:
    """Whether a single job was added, from the answers to its ``add_calls``.

    Raises:
        NotFoundError, RefusedError: a script refused the job; see ``refusal``.
    """
    (answer,) = _require_added([job], answers)
    return AddOutcome(*answer) if isinstance(answer, list) else AddOutcome(answer, "added")


def _require_added(
    jobs: Sequence[NewJob], answers: Sequence[Sequence[Answer]]
) -> list[str | list[str]]:
    flat = [answer for chunk in answers for answer in chunk]
    failures = [
        refusal(code, job) for job, code in zip(jobs, flat, strict=True) if isinstance(code, int)
    ]
    if failures and len(jobs) == 1:
        raise failures[0]
    if failures:
        raise PartialError(
            f"{len(failures):,} of {len(jobs):,} jobs were not added",
            why="\n".join(f"{error.what}: {error.why}" for error in failures[:10]),
        )
    return [answer for answer in flat if not isinstance(answer, int)]


def refusal(code: int, job: NewJob | FlowJob) -> QctlError:
    """The error for a code with which a script refused a job."""
    parent = f"{job.parent.id} in {job.parent.queue}" if job.parent else "none"
    if code == _NO_PARENT:
        return NotFoundError(f"job {job.name!r} was not added", why=f"no parent job {parent}")
    return RefusedError(
        f"job {job.job_id} was not given a new parent",
        why=f"it exists and has another parent than {parent}",
    )


@dataclass(frozen=True, slots=True)
class FlowNode:
    """A job of a flow, the id that it will have, and its children's indexes in the node list."""

    id: str
    job: FlowJob
    children: range


def flow_nodes(root: FlowJob) -> list[FlowNode]:
    """The jobs of a flow level by level, parents before their children, as BullMQ adds them.

    Raises:
        UsageError: a job below the root names a parent, a job with children is deduplicated, or the
            name of a queue is wrong.
    """
    jobs, nodes = [root], []
    # The loop also visits the children that it appends.
    for job in jobs:
        check_queue_name(job.queue)
        if job.children and job.dedup is not None:
            raise UsageError("a job with children cannot be deduplicated")
        if any(child.parent is not None for child in job.children):
            raise UsageError("only the root of a flow may name a parent of its own")
        node_id = job.job_id or str(uuid.uuid4())
        nodes.append(FlowNode(node_id, job, range(len(jobs), len(jobs) + len(job.children))))
        parent = Parent(node_id, job.queue)
        jobs += [dataclasses.replace(child, parent=parent) for child in job.children]
    return nodes


def flow_call(prefix: str, nodes: Sequence[FlowNode], now_ms: int) -> ScriptCall:
    """The call that adds the nodes of ``flow_nodes``."""
    keys: list[str] = []
    args: list[Arg] = [now_ms]
    for node in nodes:
        job = node.job
        keys.append(QueueKeys(prefix, job.queue)(""))
        args += (node.id, encode_name(job.name), encode_data(job.data))
        args += ("1" if job.children else "", *option_set(job, prefix))
    # The second key of ``whole`` is needed while the queue's cluster slot moves. All queues of a
    # flow are in one slot, so the second key of one queue is enough.
    guard = QueueKeys(prefix, nodes[0].job.queue).whole
    return ScriptCall("add_flow", (*keys, guard[1]), tuple(args))


def added_flow(nodes: Sequence[FlowNode], answers: Sequence[str | int]) -> AddedJob:
    """The flow with its ids, from the answers to ``flow_call``.

    Raises:
        NotFoundError, RefusedError: the root was not added.
    """
    if isinstance(answers[0], int):
        raise refusal(answers[0], nodes[0].job)

    def added(index: int) -> AddedJob:
        node, answer = nodes[index], answers[index]
        is_attached = not isinstance(answer, int)
        return AddedJob(
            id=str(answer) if is_attached else node.id,
            name=node.job.name,
            queue=node.job.queue,
            attached=is_attached,
            children=tuple(map(added, node.children)),
        )

    return added(0)
