"""A qctl worker under what Node sets (pause, concurrency, limits), and what is its own: handlers of
all kinds, timeouts, locks, stops."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from qctl import Job, RateLimit, RateLimited, SyncJob, Worker
from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.runtime.logs import TextFormatter
from qctl.wire.keys import QueueKeys
from tests.interop import py_worker as py
from tests.labs.build import Q
from tests.labs.build import job as fields_of
from tests.labs.node import NodeBull, NodeError, ids_of, runs, wait_ended
from tests.labs.servers import wait_until

py_worker = py.py_worker


def started(client: Client) -> list[dict[str, Any]]:
    return [row for row in runs(client, "q") if row["ev"] == "start"]


def fetched_at(client: Client) -> list[int]:
    """When jobs became active, by Redis' own clock, in ms."""
    rows = client.call("XRANGE", Q("events"), "-", "+")
    return [int(at.split("-")[0]) for at, flat in rows if flat[1] == "active"]


def blocked(client: Client) -> None:
    """Wait until some worker waits for a marker."""
    wait_until(lambda: "blocked_clients:1" in client.call("INFO", "clients"), "an idle worker")


def lines(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(map(TextFormatter().format, caplog.records))


# Pause, limits


def test_a_resume_wakes_an_idle_worker_at_once(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    # It would look by itself only after this time, later than the wait below gives up.
    py_worker(drain_delay_s=120)
    blocked(client)
    bullmq.pause("q")
    ids = [bullmq.add("q"), bullmq.add("q", priority=1)]
    bullmq.resume("q")
    wait_ended(client, 2)
    assert ids_of(runs(client, "q")) == ids


def test_a_paused_queue_starts_nothing_and_finishes_what_runs(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    py_worker(concurrency=2)
    running = [bullmq.add("q", {"ms": 150}) for _ in range(2)]
    wait_until(lambda: len(started(client)) == 2, "two running jobs")
    waiting = [bullmq.add("q") for _ in range(2)]
    bullmq.pause("q")
    # The settling step of each is a fetch attempt too.
    wait_until(lambda: client.call("ZCARD", Q("completed")) == 2, "the running jobs to end")
    assert sorted(ids_of(runs(client, "q"), "start")) == sorted(running)
    bullmq.resume("q")
    wait_ended(client, 4)
    assert set(ids_of(runs(client, "q"))) == {*running, *waiting}


def test_global_concurrency(bullmq: NodeBull, py_worker: py.Starter, client: Client) -> None:
    bullmq.queue("q", "setGlobalConcurrency", 2)
    bullmq.add_bulk("q", [{"name": "j", "data": {"ms": 15}} for _ in range(12)])
    py_worker(concurrency=10)
    py_worker(concurrency=10)
    bullmq.start_worker("q", concurrency=10)
    wait_ended(client, 12)
    running, most = 0, 0
    for row in sorted(runs(client, "q"), key=lambda row: (row["at"], row["ev"] == "start")):
        running += 1 if row["ev"] == "start" else -1
        most = max(most, running)
    assert most == 2


def test_global_rate_limit(bullmq: NodeBull, py_worker: py.Starter, client: Client) -> None:
    bullmq.queue("q", "setGlobalRateLimit", 3, 150)
    bullmq.add_bulk("q", [{"name": "j", "data": {}} for _ in range(7)])
    py_worker(concurrency=5)
    py_worker(concurrency=5)
    wait_ended(client, 7)
    at = fetched_at(client)
    # Three windows: the fourth start after the first has expired, the seventh after the second.
    assert at[3] - at[0] >= 149
    assert at[6] - at[3] >= 149


def test_a_worker_rate_limit_is_shared_with_node(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    bullmq.add_bulk("q", [{"name": "j", "data": {}} for _ in range(8)])
    py_worker(concurrency=5, rate_limit=RateLimit(4, 0.2))
    bullmq.start_worker("q", limiter={"max": 4, "duration": 200}, concurrency=5)
    wait_ended(client, 8)
    at = fetched_at(client)
    assert at[4] - at[0] >= 199


def test_a_job_may_stop_its_queue_for_a_time(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    at: dict[str, list[float]] = {}

    async def handler(job: Job) -> None:
        at.setdefault(job.id, []).append(time.monotonic())
        if len(at) == 1 and len(at[job.id]) == 1:
            raise RateLimited(0.2)

    first, second = bullmq.add("q"), bullmq.add("q")
    py_worker(handler)
    wait_ended(client, 2)
    # It went back uncounted, to run next.
    assert list(at) == [first, second]
    assert at[first][1] - at[first][0] >= 0.19
    job = bullmq.get_job("q", first)
    assert (job["attemptsMade"], job["attemptsStarted"]) == (1, 2)


def test_node_may_stop_a_limited_queue(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    bullmq.queue("q", "rateLimit", 200)
    bullmq.add("q")
    began = time.monotonic()
    py_worker(rate_limit=RateLimit(100, 1))
    wait_ended(client, 1)
    assert time.monotonic() - began >= 0.15


# Handlers


def test_an_unknown_name_says_which_there_are(bullmq: NodeBull, py_worker: py.Starter) -> None:
    async def handler(_: Job) -> None:
        return None

    py_worker(handler, task={"name": "known"})
    job_id = bullmq.add("q", job="unknown", attempts=3)
    with pytest.raises(NodeError, match="no task is named 'unknown'; this worker has: known"):
        bullmq.wait_finished("q", job_id)
    assert bullmq.wait_finished("q", bullmq.add("q", job="known")) is None


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, float("nan"), b"bytes"], ids=["object", "set", "nan", "bytes"]
)
def test_a_result_that_is_no_json_fails_the_job(
    node_bull: Any, py_worker: py.Starter, value: Any
) -> None:
    bull = node_bull(6)

    async def handler(_: Job) -> Any:
        return value

    py_worker(handler)
    with pytest.raises(NodeError, match=r"what the task returned is not JSON: .+JSON"):
        bull.wait_finished("q", bull.add("q"))


def test_plain_functions_run_side_by_side(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    together = threading.Barrier(3, timeout=10)

    def handler(job: SyncJob) -> Any:
        together.wait()
        job.update_progress(50)
        job.update_data({"seen": True})
        return {"rows": job.log("a row"), "thread": threading.current_thread().name}

    py_worker(handler, concurrency=3)
    ids = [bullmq.add("q") for _ in range(3)]
    results = [bullmq.wait_finished("q", job_id) for job_id in ids]
    assert {result["rows"] for result in results} == {1}
    assert len({result["thread"] for result in results}) == 3
    job = bullmq.get_job("q", ids[0])
    assert (job["progress"], job["data"]) == (50, {"seen": True})


def test_middleware_is_around_every_job(bullmq: NodeBull, py_worker: py.Starter) -> None:
    seen: list[str] = []

    async def outer(job: Job, call_next: Any) -> Any:
        seen.append(f"outer {job.id}")
        try:
            return {"wrapped": await call_next(job)}
        finally:
            seen.append("outer end")

    async def inner(job: Job, call_next: Any) -> Any:
        seen.append("inner")
        return await call_next(job)

    py_worker(middleware=[outer, inner])
    job_id = bullmq.add("q", {"returns": 1})
    assert bullmq.wait_finished("q", job_id) == {"wrapped": 1}
    assert seen == [f"outer {job_id}", "inner", "outer end"]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_job_that_takes_too_long_fails(
    bullmq: NodeBull, py_worker: py.Starter, kind: str
) -> None:
    ended = threading.Event()

    async def slow(_: Job) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    def slow_plain(_: SyncJob) -> None:
        ended.wait(10)

    py_worker(slow if kind == "async" else slow_plain, task={"timeout_s": 0.05})
    job_id = bullmq.add("q")
    with pytest.raises(NodeError, match=r"timed out after 0\.05 s"):
        bullmq.wait_finished("q", job_id)
    ended.set()


# Locks


def test_a_blocked_loop_keeps_its_locks_and_is_reported(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qctl")
    py_worker(lock_ttl_s=0.4, stalled_interval_s=0.1, blocked_after_s=0.5, name="py")
    held = bullmq.add("q", {"block_ms": 1500})
    wait_until(lambda: held in ids_of(runs(client, "q"), "start"), "the job to start")
    # Idle, it would take the job over as soon as its lock was gone.
    bullmq.start_worker("q", stalledInterval=100)
    bullmq.wait_finished("q", held)
    assert [row["worker"] for row in started(client)] == ["py"]
    assert "stc" not in fields_of(client, held)
    report = next(line for line in lines(caplog).splitlines() if "loop is blocked" in line)
    assert f"job={held} name=job" in report


def test_a_lost_lock_is_noticed_and_the_result_is_not_stored(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    jobs: list[Job] = []

    async def handler(job: Job) -> str:
        jobs.append(job)
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        return "late"

    py_worker(handler, lock_ttl_s=0.4)
    job_id = bullmq.add("q")
    wait_until(lambda: jobs, "the job to start")
    client.call("SET", Q.lock(job_id), "another's")
    wait_until(lambda: jobs[0].lost_lock, "the loss to be noticed")
    go_on.set()
    wait_until(lambda: "result not stored" in lines(caplog), "the refusal")
    assert "another worker has it now" in lines(caplog)
    assert fields_of(client, job_id).get("returnvalue") is None
    assert client.call("LRANGE", Q("active"), 0, -1) == [job_id]


# Stalled jobs, both ways


def test_qctl_brings_back_the_job_of_a_killed_node_worker(
    node_bull: Any, bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    victim = node_bull(bullmq.version, fresh=True)
    victim.start_worker("q", lockDuration=300, stalledInterval=100)
    bullmq.listen("q")
    job_id = bullmq.add("q", {"ms": 500})
    wait_until(lambda: started(client), "the job to start")
    victim.kill()
    py_worker(stalled_interval_s=0.1)
    bullmq.wait_finished("q", job_id)
    assert [row["worker"] for row in started(client)] == ["w1", "qctl"]
    assert ("stalled", {"jobId": job_id}) in bullmq.events("q")
    job = bullmq.get_job("q", job_id)
    assert (job["stalledCounter"], job["attemptsMade"], job["attemptsStarted"]) == (1, 1, 2)


def test_node_brings_back_the_job_of_an_abandoned_qctl_worker(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    victim = py_worker(lock_ttl_s=0.3, stalled_interval_s=0.1)
    job_id = bullmq.add("q", {"ms": 500})
    wait_until(lambda: started(client), "the job to start")
    victim.abandon()
    bullmq.start_worker("q", stalledInterval=100, name="node")
    bullmq.wait_finished("q", job_id)
    assert [row["worker"] for row in started(client)] == ["qctl", "node"]


def test_a_job_that_stalls_too_often_fails(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    job_id = bullmq.add("q", {"ms": 60_000}, attempts=3)
    for turn in range(2):
        victim = py_worker(lock_ttl_s=0.1, stalled_interval_s=0.05)
        wait_until(lambda turn=turn: len(started(client)) == turn + 1, "the job to start")
        victim.abandon()
    py_worker(lock_ttl_s=0.1, stalled_interval_s=0.05)
    with pytest.raises(NodeError, match="job stalled more than allowable limit"):
        bullmq.wait_finished("q", job_id)
    assert len(started(client)) == 2
    assert bullmq.get_job("q", job_id)["stalledCounter"] == 2


# Stops


def test_a_stop_lets_jobs_finish(bullmq: NodeBull, py_worker: py.Starter, client: Client) -> None:
    worker = py_worker(concurrency=2)
    running = [bullmq.add("q", {"ms": 200}) for _ in range(2)]
    wait_until(lambda: len(started(client)) == 2, "two running jobs")
    waiting = bullmq.add("q")
    worker.stop(10)
    assert sorted(ids_of(runs(client, "q"))) == sorted(running)
    assert client.call("LRANGE", Q("wait"), 0, -1) == [waiting]
    assert client.call("LLEN", Q("active")) == 0
    assert client.call("ZCARD", Q("completed")) == 2
    assert wait_until(lambda: not bullmq.workers("q"), "it to be gone from the list")


def test_the_end_of_the_grace_gives_jobs_back(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    cancelled: list[str] = []

    async def handler(job: Job) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(job.id)
            raise

    worker = py_worker(handler, concurrency=3)
    urgent = bullmq.add("q", priority=4)
    running = [urgent, bullmq.add("q"), bullmq.add("q")]
    wait_until(lambda: client.call("LLEN", Q("active")) == 3, "three running jobs")
    after, less_urgent = bullmq.add("q"), bullmq.add("q", priority=4)
    worker.stop(0.05)
    assert sorted(cancelled) == sorted(running)
    assert client.call("LLEN", Q("active")) == 0
    assert client.call("EXISTS", *map(Q.lock, running)) == 0
    for job_id in running:
        assert "atm" not in fields_of(client, job_id)
    bullmq.start_worker("q")
    wait_ended(client, 5)
    order = ids_of(runs(client, "q"))
    assert set(order[:2]) == set(running[1:])
    assert order[2:] == [after, urgent, less_urgent]


def test_a_thread_that_cannot_be_cancelled_does_not_keep_its_job(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    go_on = threading.Event()
    worker = py_worker(lambda _: go_on.wait(20))
    job_id = bullmq.add("q")
    wait_until(lambda: client.call("LLEN", Q("active")) == 1, "the job to run")
    worker.stop(0.05)
    assert client.call("LRANGE", Q("wait"), 0, -1) == [job_id]
    go_on.set()


def test_a_name_that_redis_refuses_is_refused_at_once() -> None:
    for name in ("two words", "ü", "line\n"):
        with pytest.raises(UsageError, match="printable ASCII"):
            Worker("q", name=name)


def test_a_worker_without_tasks_does_not_start(redis_url: str) -> None:
    with pytest.raises(UsageError, match="no task"):
        asyncio.run(Worker("q", redis_url=redis_url).start())


def test_two_queues_in_one_process(bullmq: NodeBull, py_worker: py.Starter, client: Client) -> None:
    py_worker()
    py_worker(queue="other", prefix="theirs")
    first, second = bullmq.add("q"), bullmq.add("other", prefix="theirs")
    bullmq.wait_finished("q", first)
    bullmq.wait_finished("other", second, prefix="theirs")
    assert client.call("ZCARD", QueueKeys("theirs", "other")("completed")) == 1


# What lasts


def test_the_event_stream_is_kept_short(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    client.call("HSET", Q("meta"), "opts.maxLenEvents", 100)
    ids = bullmq.add_bulk("q", [{"name": "j", "data": {}} for _ in range(500)])
    # BullMQ has written down its own wish.
    client.call("HSET", Q("meta"), "opts.maxLenEvents", 100)
    py_worker(concurrency=10)
    wait_ended(client, len(ids))
    bullmq.wait_finished("q", bullmq.add("q"))
    # Redis cuts whole nodes of 100 entries, and a step may write for ten jobs before the next cut.
    assert client.call("XLEN", Q("events")) < 400


@pytest.mark.parametrize(
    "schedule", [{"every": 40}, {"pattern": "* * * * * *", "tz": "Europe/Berlin"}], ids=str
)
def test_a_scheduler_goes_from_hand_to_hand(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, schedule: dict[str, Any]
) -> None:
    bullmq.queue("q", "upsertJobScheduler", "s", schedule, {"name": "tick", "data": {"n": 1}})
    count = 9 if "every" in schedule else 2
    worker = py_worker(name="qctl")
    handle = bullmq.start_worker("q", name="node")
    wait_until(lambda: len(ids_of(runs(client, "q"))) >= count, f"{count} iterations")
    worker.stop()
    bullmq.close_worker(handle)
    rows = [row for row in runs(client, "q") if row["ev"] == "end"]
    slots = [int(row["id"].split(":")[2]) for row in rows]
    # Each slot once, in order, and exactly one that is pending.
    assert slots == sorted(set(slots))
    assert {row["name"] for row in rows} == {"tick"}
    (pending,) = client.call("ZRANGE", Q("delayed"), 0, -1)
    assert client.call("ZSCORE", Q("repeat"), "s") == pending.split(":")[2]
    assert fields_of(client, pending)["data"] == '{"n":1}'
    assert client.call("HGET", Q("repeat:s"), "ic") == str(len(rows) + 1)
