"""Spans of a queue and its worker, in OpenTelemetry's own SDK; Redis is fakeredis."""

from __future__ import annotations

import json
import logging

import pytest

from qctl import FlowJob, Job, NewJob, Queue, RetryLater, SyncJob, Worker
from qctl.testing import FakeQueues
from tests.labs.spans import Spans


def tm_of(fake: FakeQueues, queue: Queue, job_id: str) -> object:
    return json.loads(str(fake.client.call("HGET", queue.keys(job_id), "opts"))).get("tm")


def test_each_run_is_a_child_of_the_span_that_added_the_job() -> None:
    spans = Spans()
    worker = Worker("q", middleware=[spans.tracing], concurrency=5)
    with FakeQueues() as fake:
        queue = Queue("q", redis_url=fake.url, telemetry=spans.tracing)

        @worker.task("first")
        def first(job: SyncJob) -> None:
            # In a thread, which is in the same trace.
            queue.add("second")

        @worker.task()
        async def other(job: Job) -> None:
            if job.name == "second":
                raise ValueError("no answer")
            if job.name == "wish" and job.attempts_started == 1:
                raise RetryLater

        with spans.provider.get_tracer("test").start_as_current_span("request"):
            job_id = queue.add("first")
        fake.run(worker)
        (request,), (added,) = spans.rows("request"), spans.rows("add q.first")
        run, failed = spans.rows("process q")
        (again,) = spans.rows("add q.second")
        chain = [request, added, run, again, failed]
        assert [row.parent for row in chain] == [None, *(row.span for row in chain[:-1])]
        assert {row.trace for row in chain} == {request.trace}
        assert [row.kind for row in chain[1:3]] == ["PRODUCER", "CONSUMER"]
        assert run.attributes == {
            "bullmq.queue.name": "q", "bullmq.queue.operation": "process", "bullmq.job.id": job_id,
            "bullmq.job.name": "first", "bullmq.job.attempts.made": 1,
        }  # fmt: skip
        assert [row.error for row in chain] == [None] * 4 + ["ValueError: no answer"]

        # Bulks and flows have one span for all their jobs.
        bulk = queue.add_bulk([NewJob("a"), NewJob("wish"), NewJob("c", extra={"omc": True})])
        flow = queue.add_flow(FlowJob("p", "q", children=[FlowJob("c", "q", extra={"x": 1})]))
        (many,), (tree,) = spans.rows("addBulk q"), spans.rows("addFlow q")
        ids = [*bulk, flow.id, flow.children[0].id]
        held = [str(tm_of(fake, queue, each)) for each in ids]
        assert [many.span in text for text in held] == [True, True, False, False, False]
        assert [tree.span in text for text in held] == [False, False, False, True, True]
        assert held[2] == "None"
        fake.run(worker)
        runs = spans.rows("process q")[2:]
        # "wish" has run twice, and has not failed.
        assert sorted(str(row.attributes["bullmq.job.name"]) for row in runs) == [
            "a", "c", "c", "p", "wish", "wish",
        ]  # fmt: skip
        assert [row.error for row in runs] == [None] * 6
        assert sum(row.parent is None for row in runs) == 1
        queue.close()


@pytest.mark.parametrize("tm", ["", "no JSON", "[1]", "{}", '{"traceparent": 1}', 7])
def test_a_trace_of_another_form_begins_a_new_one(
    tm: object, caplog: pytest.LogCaptureFixture
) -> None:
    spans = Spans()
    worker = Worker("q", middleware=[spans.tracing])

    @worker.task()
    async def work(job: Job) -> None: ...

    with FakeQueues() as fake, caplog.at_level(logging.WARNING):
        queue = fake.queue("q")
        job_id = queue.add("job", extra={"tm": tm})
        fake.run(worker)
        assert fake.outcome(queue, job_id).state == "completed"
    assert [row.parent for row in spans.rows("process q")] == [None]
    assert not caplog.records


def test_without_a_provider_nothing_is_stored() -> None:
    pytest.importorskip("opentelemetry")
    from opentelemetry.trace import NoOpTracerProvider  # noqa: PLC0415

    from qctl.otel import Tracing  # noqa: PLC0415

    with FakeQueues() as fake:
        queue = Queue("q", redis_url=fake.url, telemetry=Tracing(NoOpTracerProvider()))
        assert tm_of(fake, queue, queue.add("job")) is None
        assert queue.add_bulk([]) == []
        queue.close()
