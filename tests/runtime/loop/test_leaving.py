"""A worker that stops takes no wake-up with it."""

from __future__ import annotations

import asyncio
import time

from qctl import AsyncQueue, Job, Worker
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys

ROUNDS = 5


def make(redis_url: str, started: dict[str, float]) -> Worker:
    worker = Worker("leave", redis_url=redis_url, concurrency=2, drain_delay_s=5)

    @worker.task("long")
    async def long(_: Job) -> None:
        await asyncio.sleep(0.3)

    @worker.task()
    async def note(job: Job) -> None:
        started[job.id] = time.monotonic()

    return worker


async def is_waiting(client: Client, workers: int) -> None:
    while f"blocked_clients:{workers}" not in client.call("INFO", "clients"):
        await asyncio.sleep(0.005)


def test_jobs_added_while_a_worker_leaves_are_not_left_waiting(
    redis_url: str, client: Client
) -> None:
    """One worker leaves with a job in hand while another one waits for markers."""

    async def main() -> None:
        async with AsyncQueue("leave", redis_url=redis_url) as queue:
            for _ in range(ROUNDS):
                started: dict[str, float] = {}
                leaving, staying = make(redis_url, started), make(redis_url, started)
                await leaving.start()
                await queue.add("long")
                # It is the first in the line, with room for one more.
                await is_waiting(client, 1)
                await staying.start()
                await is_waiting(client, 2)
                stopping = asyncio.create_task(leaving.stop())
                await asyncio.sleep(0)
                job_id = await queue.add("short")
                async with asyncio.timeout(2):
                    while job_id not in started:
                        await asyncio.sleep(0.005)
                await stopping
                await staying.stop()

    asyncio.run(main())
    assert client.call("ZCARD", QueueKeys("bull", "leave")("completed")) == 2 * ROUNDS
