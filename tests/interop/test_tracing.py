"""One trace from a producer in Node to a worker in Python, and back to a worker in Node."""

from __future__ import annotations

import asyncio
import json

from qctl import AsyncQueue, Job, Worker
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q
from tests.labs.node import NodeBull
from tests.labs.servers import wait_until
from tests.labs.spans import Spans

PRODUCER, CONSUMER = 3, 4


def test_a_trace_goes_on_in_python_and_back_in_node(
    bullmq: NodeBull, client: Client, redis_url: str
) -> None:
    spans = Spans()
    bullmq.send("trace")
    first = bullmq.add("q", job="ask")
    omitted = bullmq.add("q", job="ask", telemetry={"omitContext": True})
    (added,) = [span for span in bullmq.send("spans") if span["span"] in tm_of(client, Q(first))]
    assert (added["name"], added["kind"]) == ("add q.ask", PRODUCER)
    # What docs/wire-format.md says of both options.
    assert opts_of(client, Q(omitted))["omc"] is True
    assert "tm" not in opts_of(client, Q(omitted))

    async def run() -> None:
        worker = Worker("q", redis_url=redis_url, middleware=[spans.tracing])

        @worker.task("ask")
        async def ask(job: Job) -> None:
            async with AsyncQueue("back", redis_url=redis_url, telemetry=spans.tracing) as queue:
                await queue.add("reply", {"fail_times": 1}, attempts=2, job_id=f"of-{job.id}")

        await worker.start()
        await worker.wait_until_idle()
        await worker.stop()

    asyncio.run(run())
    bullmq.start_worker("back")
    keys = QueueKeys("bull", "back")
    wait_until(lambda: client.call("ZCARD", keys("completed")) == 2, "both replies to be completed")

    processed, reply = spans.rows("process q"), spans.rows("add back.reply")
    trace = added["trace"]
    in_trace = [row for row in processed if row.trace == trace]
    assert [row.parent for row in in_trace] == [added["span"]]
    assert [row.parent for row in reply if row.trace == trace] == [in_trace[0].span]
    (reply_row,) = [row for row in reply if row.trace == trace]
    # Node has run it twice, and both runs go on from the same span.
    rows = [span for span in bullmq.send("spans") if span["name"] == "process back"]
    assert [(span["parent"], span["kind"]) for span in rows if span["trace"] == trace] == [
        (reply_row.span, CONSUMER)
    ] * 2
    # BullMQ keeps the span of the failure in a field that no BullMQ reads.
    assert trace in str(client.call("HGET", keys(f"of-{first}"), "tm"))
    # The job without a context has begun a trace of its own.
    assert len({row.trace for row in processed}) == 2
    assert [row.parent for row in processed if row.trace != trace] == [None]


def opts_of(client: Client, key: str) -> dict[str, object]:
    opts: dict[str, object] = json.loads(str(client.call("HGET", key, "opts")))
    return opts


def tm_of(client: Client, key: str) -> str:
    return str(opts_of(client, key)["tm"])


def test_a_flow_and_a_bulk_of_node_continue(bullmq: NodeBull, redis_url: str) -> None:
    spans = Spans()
    bullmq.send("trace")
    bullmq.add_flow(
        {"name": "p", "queueName": "q", "opts": {}, "children": [
            {"name": "c", "queueName": "q", "opts": {}}
        ]}
    )  # fmt: skip
    bullmq.add_bulk("q", [{"name": "b", "data": {}}])

    async def run() -> None:
        worker = Worker("q", redis_url=redis_url, middleware=[spans.tracing])

        @worker.task()
        async def work(job: Job) -> None: ...

        await worker.start()
        await worker.wait_until_idle()
        await worker.stop()

    asyncio.run(run())
    made = {span["span"]: span["name"] for span in bullmq.send("spans")}
    names = sorted(made.get(row.parent or "", "none") for row in spans.rows("process q"))
    assert names == ["addBulk q", "addNode q", "addNode q"]
