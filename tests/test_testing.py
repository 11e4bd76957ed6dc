"""qctl.testing: workers in a user's own tests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from qctl import (
    AsyncQueue,
    Job,
    JobFailedError,
    Queue,
    RateLimited,
    RetryLater,
    SyncJob,
    UnrecoverableError,
    Worker,
)
from qctl.errors import TimedOutError, UsageError
from qctl.testing import FakeQueues, Outcome, run_until_idle
from qctl.wire.notes import this_process
from qctl.wire.write.adding import FlowJob, NewJob
from qctl.wire.write.pausing import pause
from tests.labs.forks import add_own, exit_code, forked

emails = Worker("emails", concurrency=5, redis_url="redis://nowhere.invalid:1")


@emails.task("welcome")
async def welcome(job: Job) -> dict[str, Any]:
    await job.update_progress(100)
    await job.log(f"to {job.data['user']}")
    return {"sent": job.data["user"]}


@emails.task("flaky")
def flaky(job: SyncJob) -> str:
    if job.attempts_made < job.data:
        raise ConnectionError(f"attempt {job.attempts_made + 1}")
    return "at last"


@emails.task("broken")
async def broken(_: Job) -> None:
    raise UnrecoverableError("no such address")


@emails.task("patient")
async def patient(job: Job) -> int:
    if job.attempts_started < 3:
        raise RetryLater(3600)
    return job.attempts_started


def test_one_line() -> None:
    (outcome,) = run_until_idle(emails, [("welcome", {"user": 7})])
    assert isinstance(outcome, Outcome)
    assert (outcome.state, outcome.returnvalue, outcome.failed_reason) == (
        "completed", {"sent": 7}, None,
    )  # fmt: skip
    assert (outcome.attempts, outcome.starts, outcome.progress) == (1, 1, 100)
    assert (outcome.name, outcome.data, outcome.logs) == ("welcome", {"user": 7}, ("to 7",))


def test_the_same_worker_again_and_outcomes_in_the_order_of_the_jobs() -> None:
    jobs = [("welcome", {"user": 1}), ("broken", None), ("welcome", {"user": 3}), ("other", 1)]
    outcomes = run_until_idle(emails, jobs)
    assert [outcome.state for outcome in outcomes] == ["completed", "failed", "completed", "failed"]
    assert outcomes[1].failed_reason == "no such address"
    assert "no task is named 'other'" in str(outcomes[3].failed_reason)


def test_delays_and_backoffs_are_not_waited_for() -> None:
    began = time.monotonic()
    outcomes = run_until_idle(
        emails,
        [
            NewJob("flaky", 2, attempts=3, backoff="exponential:2h"),
            NewJob("flaky", 9, attempts=2, backoff="fixed:24h"),
            NewJob("welcome", {"user": 2}, delay=86_400, priority=3),
            NewJob("patient", attempts=1),
            NewJob("welcome", {"user": 5}, remove_on_complete=True),
        ],
    )
    assert [(each.state, each.attempts, each.starts) for each in outcomes] == [
        ("completed", 3, 3), ("failed", 2, 2), ("completed", 1, 1), ("completed", 1, 3),
        ("removed", 0, 0),
    ]  # fmt: skip
    assert outcomes[0].failed_reason == "attempt 2"
    assert time.monotonic() - began < 60


def test_delayed_jobs_keep_their_order() -> None:
    order: list[Any] = []
    worker = Worker("q")

    @worker.task()
    async def take(job: Job) -> None:
        order.append(job.data)

    run_until_idle(worker, [NewJob("x", n, delay=n * 60) for n in (3, 1, 2)])
    assert order == [1, 2, 3]


def test_flows_over_several_workers() -> None:
    parents, children = Worker("parents"), Worker("children", concurrency=3)

    @parents.task()
    async def add_up(job: Job) -> int:
        return sum((await job.children_values()).values())

    @children.task()
    async def square(job: Job) -> int:
        return int(job.data) ** 2

    with FakeQueues() as fake:
        queue = fake.queue("parents")
        flow = FlowJob("sum", "parents", children=[FlowJob("n", "children", n) for n in (2, 3)])
        added = queue.add_flow(flow)
        fake.run(parents, children)
        assert fake.outcome(queue, added.id).returnvalue == 13
        ended = fake.outcomes(fake.queue("children"))
        assert sorted(each.returnvalue for each in ended) == [4, 9]


def test_a_job_may_add_others() -> None:
    worker = Worker("q")
    with FakeQueues() as fake:
        queue = fake.queue("q")

        @worker.task("first")
        def first(_: SyncJob) -> str:
            return queue.add("second", delay=60)

        @worker.task("second")
        async def second(_: Job) -> str:
            return "done"

        first_id = queue.add("first")
        fake.run(worker)
        second_id = fake.outcome(queue, first_id).returnvalue
        assert fake.outcome(queue, second_id).returnvalue == "done"


def test_schedulers_run_what_is_due_and_no_more() -> None:
    with FakeQueues() as fake:
        queue = fake.queue("emails")
        first = queue.upsert_scheduler("daily", every=86_400, name="welcome", data={"user": 1})
        fake.run(emails)
        assert fake.outcome(queue, first).state == "completed"
        (scheduler,) = queue.schedulers()
        assert scheduler.id == "daily"
        assert len(fake.outcomes(queue)) == 1


def test_a_paused_queue_is_left_alone() -> None:
    with FakeQueues() as fake:
        queue = fake.queue("emails")
        job_id = queue.add("welcome", {"user": 1})
        pause(fake.client, queue.keys, this_process("pause"))
        later_id = queue.add("welcome", {"user": 2})
        fake.run(emails)
        assert [fake.outcome(queue, each).state for each in (job_id, later_id)] == ["waiting"] * 2


def test_rate_limits_are_waited_for() -> None:
    worker = Worker("q")

    @worker.task()
    async def once_limited(job: Job) -> int:
        if job.attempts_started == 1:
            raise RateLimited(0.1)
        return job.attempts_started

    (outcome,) = run_until_idle(worker, [("x", None)])
    assert outcome.returnvalue == 2


def test_a_job_that_does_not_end_is_said_so() -> None:
    worker = Worker("slow")

    @worker.task()
    async def sleep(_: Job) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimedOutError) as caught:
        run_until_idle(worker, [("x", None), ("x", None)], timeout_s=0.2)
    assert caught.value.why == "slow: waiting 1, active 1, delayed 0"


def test_on_a_running_loop() -> None:
    async def main() -> Any:
        with FakeQueues() as fake:
            queue = fake.queue("emails")
            job_id = queue.add("welcome", {"user": 1})
            await fake.arun(emails)
            return fake.outcome(queue, job_id).returnvalue

    assert asyncio.run(main()) == {"sent": 1}


def test_run_refuses_a_running_loop() -> None:
    async def run() -> None:
        with FakeQueues() as fake:
            fake.run(emails)

    with pytest.raises(UsageError, match="event loop"):
        asyncio.run(run())


def test_two_fakes_know_nothing_of_each_other() -> None:
    with FakeQueues() as one, FakeQueues() as other:
        one.queue("q").add("x")
        assert other.client.call("KEYS", "*") == []
        with Queue("q", redis_url=one.url) as queue:
            assert queue.add("y") == "2"


def test_a_fork_uses_the_queues_and_leaves_them_to_its_parent() -> None:
    with FakeQueues() as fake:
        queue = fake.queue("q")
        queue.add("first")

        def leave() -> int:
            wrong = add_own(queue, "child", 20)
            fake.__exit__()
            return wrong

        pid = forked(leave)
        assert add_own(queue, "parent", 20) == 0
        assert exit_code(pid) == 0
        assert queue.add("last", job_id="last") == "last"


def test_handles_on_the_fake() -> None:
    """An app that asks for results can be tested, too."""

    async def use(fake: FakeQueues) -> None:
        async with AsyncQueue("emails", redis_url=fake.url, prefix="bull") as queue:
            sent = await queue.add("welcome", {"user": 7}, remove_on_complete=True)
            broken = await queue.add("broken")
            waiting = asyncio.gather(sent.result(10), broken.result(10), return_exceptions=True)
            events = queue.events(after="0-0")

            async def first_completed() -> str | None:
                ids = (event.job_id async for event in events if event.name == "completed")
                return await anext(ids)

            completed = asyncio.create_task(first_completed())
            await fake.arun(emails)
            result, error = await waiting
            assert result == {"sent": 7}
            assert isinstance(error, JobFailedError)
            assert error.reason == "no such address"
            assert await completed == sent
            await events.aclose()
            assert (await queue.counts()).failed == 1
            assert await broken.cancel() is False
            unsent = await queue.add("welcome", delay=3600)
            assert await unsent.cancel()

    with FakeQueues() as fake:
        asyncio.run(use(fake))
