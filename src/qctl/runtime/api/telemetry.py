"""Passes a trace from a ``Queue`` to its jobs (wire format 3.2, ``tm`` and ``omc``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from qctl.wire.write.adding import FlowJob, NewJob

J = TypeVar("J", NewJob, FlowJob)


class Telemetry(Protocol):
    """What a ``Queue`` calls when it adds jobs; ``qctl.otel.Tracing`` is one."""

    def adding(self, queue: str, jobs: Sequence[NewJob | FlowJob]) -> AbstractContextManager[str]:
        """Return a context manager; the queue adds ``jobs`` inside its ``with`` block.

        The text that ``with`` binds is stored in the jobs as ``tm``; "" stores none. A worker
        continues the trace in ``tm``.

        Args:
            jobs: for a flow, only the root.
        """
        ...


@contextmanager
def traced(telemetry: Telemetry, queue: str, jobs: Sequence[J]) -> Iterator[Sequence[J]]:
    """Yield the jobs to add instead of ``jobs``: copies that carry the trace of ``telemetry``."""
    with telemetry.adding(queue, jobs) as metadata:
        yield [_with_trace(job, metadata) for job in jobs] if metadata else jobs


def _with_trace(job: J, metadata: str) -> J:
    extra = job.extra or {}
    # As in BullMQ, ``omc`` keeps the trace out of a job, and a job may bring a trace of its own.
    if not (extra.get("omc") or extra.get("tm")):
        job = replace(job, extra={**extra, "tm": metadata})
    if isinstance(job, FlowJob) and job.children:
        job = replace(job, children=[_with_trace(child, metadata) for child in job.children])
    return job
