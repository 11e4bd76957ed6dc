"""OpenTelemetry: one trace from a producer through its jobs, in Python and Node (extra ``otel``).

    from qctl.otel import Tracing

    tracing = Tracing()
    queue = Queue("emails", telemetry=tracing)
    worker = Worker("emails", middleware=[tracing])

BullMQ's package ``bullmq-otel`` does the same in Node: the names of spans and attributes, and the
form of the trace in a job, are those of that package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qctl import __version__
from qctl.errors import UsageError
from qctl.extras import install_command
from qctl.runtime.handlers.tasks import Call
from qctl.runtime.job.job import Job
from qctl.runtime.job.outcomes import RateLimited, RetryLater, WaitForChildren
from qctl.wire.write.adding import FlowJob, NewJob

try:
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context
except ImportError:
    raise UsageError(
        "qctl.otel needs OpenTelemetry", why="it is not installed", hint=install_command("otel")
    ) from None

_QUEUE, _OPERATION = "bullmq.queue.name", "bullmq.queue.operation"
_JOB_ID, _JOB_NAME = "bullmq.job.id", "bullmq.job.name"
_ATTEMPTS, _BULK = "bullmq.job.attempts.made", "bullmq.job.bulk.count"
# A handler raises these to run again later. They are no failures.
_WISHES = (RateLimited, RetryLater, WaitForChildren)


class Tracing:
    """Makes spans for added jobs and for runs of jobs.

    As a middleware, it makes a span ``process QUEUE`` for each run, as a child of the span in which
    the job was added. As the ``telemetry`` of a ``Queue``, it makes a span ``add QUEUE.NAME``,
    ``addBulk QUEUE`` or ``addFlow QUEUE`` for each call.

    Args:
        tracer_provider: default: the global one.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("qctl", __version__, tracer_provider)

    async def __call__(self, job: Job, call_next: Call) -> Any:
        """Run a job in a span of its own; see ``Worker(middleware=…)``."""
        with self._tracer.start_as_current_span(
            f"process {job.queue}",
            context=_context_of(job.opts.get("tm")),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                _QUEUE: job.queue,
                _OPERATION: "process",
                _JOB_ID: job.id,
                _JOB_NAME: job.name,
                _ATTEMPTS: job.attempts_made + 1,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await call_next(job)
            except _WISHES:
                raise
            except BaseException as error:
                # A run that is cancelled, because of a time limit or a stop, has not succeeded.
                span.record_exception(error)
                span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
                raise

    @contextmanager
    def adding(self, queue: str, jobs: Sequence[NewJob | FlowJob]) -> Iterator[str]:
        """See ``Telemetry.adding``."""
        first = jobs[0]
        operation, destination = "addBulk", queue
        attributes: dict[str, str | int] = {_QUEUE: queue}
        if isinstance(first, FlowJob):
            operation, destination = "addFlow", first.queue
            attributes |= {_QUEUE: first.queue, _JOB_NAME: first.name}
        elif len(jobs) == 1:
            operation, destination = "add", f"{queue}.{first.name}"
            attributes[_JOB_NAME] = first.name
        else:
            attributes[_BULK] = len(jobs)
        with self._tracer.start_as_current_span(
            f"{operation} {destination}",
            kind=trace.SpanKind.PRODUCER,
            attributes={**attributes, _OPERATION: operation},
        ):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            yield json.dumps(carrier, separators=(",", ":")) if carrier else ""


def _context_of(metadata: object) -> Context | None:
    """The context in a job's ``tm``; None if there is none, or it has another form."""
    if not isinstance(metadata, str):
        return None
    try:
        carrier = json.loads(metadata)
    except ValueError:
        return None
    if not isinstance(carrier, dict):
        return None
    # OpenTelemetry fails for a value that is no text.
    return propagate.extract({k: v for k, v in carrier.items() if isinstance(v, str)})
