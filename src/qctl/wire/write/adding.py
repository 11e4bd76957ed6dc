"""Turns new jobs and flows into script calls, and the answers of those calls into ids.

Nothing is sent here, so the same code serves a producer with a socket and one on an event loop. All
jobs are checked before the first call is made: one wrong job among thousands leaves nothing behind.
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

# One call adds at most so many jobs, and no further ones after so many characters of data: it takes
# Redis some 2 ms.
MAX_CALL_JOBS = 200
MAX_CALL_CHARS = 500_000
_NO_PARENT = -5


@dataclass(slots=True)
class NewJob(JobOptions):
    """A job to add.

    Args:
        name: tells the worker what to do.
        data: the payload, any JSON value; None is ``{}``.
    """

    name: str
    data: Any = None


@dataclass(slots=True)
class FlowJob(JobOptions):
    """A job to add together with the jobs that it waits for.

    Args:
        name: tells the worker what to do.
        queue: its queue; all queues of a flow have the same prefix.
        data: the payload, any JSON value; None is ``{}``.
        children: the jobs it waits for.
    """

    name: str
    queue: str
    data: Any = None
    children: Sequence[FlowJob] = ()


@dataclass(frozen=True, slots=True)
class AddedJob:
    """A job of a flow that was added.

    Args:
        attached: False for a job that existed already and has another parent: the parent in this
            flow waits for ever (wire format T18).
    """

    id: str
    name: str
    queue: str
    attached: bool
    children: tuple[AddedJob, ...]


def check_queue_name(name: str) -> None:
    """Check a name that becomes part of key names.

    Raises:
        UsageError: it is empty or has a colon.
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise UsageError(f"a queue cannot be named {name!r}", why="it needs a name without a colon")


def add_calls(keys: QueueKeys, jobs: Sequence[NewJob], now_ms: int) -> list[ScriptCall]:
    """The calls that add ``jobs`` in this order, at most ``MAX_CALL_JOBS`` each.

    Raises:
        UsageError: a job is wrong.
    """
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
    # By identity: equal options are usually the same object.
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


# An id; a code; or the id of another job and why that one stands for the new one.
Answer = str | int | list[str]


@dataclass(frozen=True, slots=True)
class AddOutcome:
    """What became of a new job.

    Args:
        id: of the job, or of the other job if it was not added.
        outcome: ``added``; ``exists`` if there was a job with its id; ``deduplicated`` if another
            job stands for it.
    """

    id: str
    outcome: str


def added_ids(jobs: Sequence[NewJob], answers: Sequence[Sequence[Answer]]) -> list[str]:
    """The ids in the answers to ``add_calls``.

    Raises:
        NotFoundError, RefusedError: the only job was not added; see ``refusal``.
        PartialError: some of several jobs were not added.
    """
    return [
        answer[0] if isinstance(answer, list) else answer
        for answer in _require_added(jobs, answers)
    ]


def added_job(job: NewJob, answers: Sequence[Sequence[Answer]]) -> AddOutcome:
    """What became of a single job, from the answers to its ``add_calls``.

    Raises:
        NotFoundError, RefusedError: it was not added; see ``refusal``.
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
    """Why a script did not add a job, from its code."""
    parent = f"{job.parent.id} in {job.parent.queue}" if job.parent else "none"
    if code == _NO_PARENT:
        return NotFoundError(f"job {job.name!r} was not added", why=f"no parent job {parent}")
    return RefusedError(
        f"job {job.job_id} was not given a new parent",
        why=f"it exists and has another parent than {parent}",
    )


@dataclass(frozen=True, slots=True)
class FlowNode:
    """A job of a flow with the id that it will have.

    Args:
        children: their positions in the list of nodes.
    """

    id: str
    job: FlowJob
    children: range


def flow_nodes(root: FlowJob) -> list[FlowNode]:
    """The jobs of a flow level by level, parents before their children, as BullMQ adds them.

    Raises:
        UsageError: a job below the root names a parent, or a job with children is deduplicated.
    """
    jobs, nodes = [root], []
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
    """The call that adds the nodes of ``flow_nodes``.

    Raises:
        UsageError: a job is wrong.
    """
    keys: list[str] = []
    args: list[Arg] = [now_ms]
    for node in nodes:
        job = node.job
        keys.append(QueueKeys(prefix, job.queue)(""))
        args += (node.id, encode_name(job.name), encode_data(job.data))
        args += ("1" if job.children else "", *option_set(job, prefix))
    # All queues of a flow lie in one cluster slot, so the first one's key stands for all of them.
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
