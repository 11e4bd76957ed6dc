"""How many jobs a worker's steps settle under different loads, with a Redis that is simulated."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from qctl.connection.address import parse_url
from qctl.runtime.job.job import Job
from qctl.runtime.loop.engine import Engine
from qctl.runtime.loop.options import WorkerOptions
from qctl.runtime.loop.step_size import MIN_JOBS, StepSize
from qctl.wire.keys import QueueKeys

CONCURRENCY = 100
# Where a step's words have the number of wanted jobs and of groups (``settle_and_fetch.lua``).
WANTED, GROUPS = 8, 14


# How many turns of the loop the simulated Redis takes for a step.
TURNS = 5


class EndlessQueue:
    """Stands for the engine's connection: runs one step after the other."""

    is_open = True

    def __init__(self) -> None:
        self.settled: list[int] = []
        self._ids = 0
        self._replies: deque[Callable[[], None]] = deque()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def call(self, *_command: Any) -> None: ...

    async def run_call(self, _call: Any) -> Any:
        return [], ""

    def send(self, command: tuple[Any, ...], callback: Callable[[Any], None]) -> None:
        self.settled.append((len(command) - GROUPS - 1 - 6 * command[GROUPS]) // 2)
        jobs: list[Any] = []
        for _ in range(command[WANTED]):
            self._ids += 1
            jobs += [str(self._ids), [["name", "x"]]]
        self._replies.append(partial(callback, [[], jobs, "", "0"]))
        if len(self._replies) == 1:
            asyncio.get_running_loop().call_soon(self._work, TURNS)

    def _work(self, turns_left: int) -> None:
        if not turns_left:
            self._replies.popleft()()
            turns_left = TURNS
        if self._replies:
            asyncio.get_running_loop().call_soon(self._work, turns_left - 1)


class NoListener:
    async def open(self) -> None: ...

    async def leave(self) -> None: ...


def new_engine(queue: EndlessQueue) -> Engine:
    address = parse_url("redis://127.0.0.1:1/0")
    engine: Any = Engine(QueueKeys("bull", "q"), address, WorkerOptions(concurrency=CONCURRENCY))
    engine.connection, engine._listener = queue, NoListener()
    return engine  # type: ignore[no-any-return]


async def rest() -> None:
    """Let the loop turn until every step has its reply, and more."""
    for _ in range(TURNS * CONCURRENCY):
        await asyncio.sleep(0)


def test_steps_grow_while_handlers_return_at_once() -> None:
    async def main() -> list[int]:
        queue = EndlessQueue()
        engine = new_engine(queue)
        loop = asyncio.get_running_loop()
        await engine.open(lambda job: loop.call_soon(engine.complete, job, "null"), lambda *_: None)
        while len(queue.settled) < 300:
            await asyncio.sleep(0)
        engine.stop_fetching()
        await rest()
        await engine.close()
        return queue.settled

    settled = asyncio.run(main())
    assert settled[1] <= MIN_JOBS
    assert settled[-100:] == [CONCURRENCY // 2] * 100


def test_steps_stay_small_while_handlers_wait() -> None:
    async def main() -> tuple[list[int], list[int]]:
        queue = EndlessQueue()
        engine = new_engine(queue)
        running: list[Job] = []

        async def end(jobs: int) -> None:
            for job in running[:jobs]:
                engine.complete(job, "null")
            del running[:jobs]
            await rest()

        await engine.open(running.append, lambda *_: None)
        await rest()
        # All jobs end together, again and again.
        for _ in range(10):
            assert len(running) == CONCURRENCY
            await end(CONCURRENCY)
            await end(1)
        convoys = queue.settled[:]
        queue.settled.clear()
        # They end a few at a time.
        for _ in range(100):
            await end(3)
        await engine.close()
        return convoys, queue.settled

    convoys, few = asyncio.run(main())
    assert max(convoys) == MIN_JOBS
    assert few == [3] * 100


def test_steps_shrink_again_after_a_backlog() -> None:
    size = StepSize(50, CONCURRENCY)
    seen = []
    while size.jobs < 50:
        size.note_all_in_flight(size.jobs, has_backlog=True)
        seen.append(size.jobs)
    # Each size holds until more jobs than the worker runs at a time were settled.
    assert {jobs: seen.count(jobs) for jobs in set(seen)} == {5: 20, 6: 17, 12: 9, 25: 5, 50: 1}
    size.note_all_in_flight(50, has_backlog=False)
    assert size.jobs == 50
    for expected in (25, 12, 6, 5, 5):
        size.note_partial_step()
        assert size.jobs == expected


def test_steps_of_a_small_worker_keep_their_size() -> None:
    size = StepSize(1, 1)
    for _ in range(5):
        size.note_all_in_flight(1, has_backlog=True)
        assert size.jobs == 1
    size.note_partial_step()
    assert size.jobs == 1
