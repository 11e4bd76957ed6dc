"""Node's BullMQ takes what qctl adds for its own, and the other way round."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import RefusedError
from qctl.runtime.api.queue import Queue
from qctl.runtime.api.results import JobFailedError
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.options import Dedup, Keep, Parent
from qctl.wire.schedulers.scheduling import next_iteration_call
from qctl.wire.write import cancelling
from qctl.wire.write.adding import FlowJob, NewJob
from tests.labs.build import Q, job, row, scores
from tests.labs.node import NodeBull, NodeError, runs
from tests.labs.servers import wait_until

FAR_MS = 4_000_000_000_000


@pytest.fixture
def queue(redis_url: str) -> Iterator[Queue]:
    with Queue("q", redis_url=redis_url, prefix="bull") as queue:
        yield queue


def test_node_reads_a_job_as_its_own(bullmq: NodeBull, queue: Queue) -> None:
    options: dict[str, Any] = {
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": 60_000},
        "delay": 5000,
        "priority": 7,
        "keepLogs": 4,
        "stackTraceLimit": 2,
        "removeOnComplete": True,
        "removeOnFail": {"count": 3, "age": 60},
        "timestamp": FAR_MS,
    }
    theirs = bullmq.add("q", {"a": [1, "ä/"]}, **options)
    ours = queue.add(
        "job", {"a": [1, "ä/"]}, attempts=3, backoff="exponential:60s", delay=5, priority=7,
        keep_logs=4, stack_trace_limit=2, remove_on_complete=True,
        remove_on_fail=Keep(count=3, age_s=60), timestamp_ms=FAR_MS,
    )  # fmt: skip
    found = [bullmq.get_job("q", job_id) for job_id in (theirs, ours)]
    assert found[0] | {"id": ""} == found[1] | {"id": ""}
    assert bullmq.state("q", ours) == "delayed"


def test_states_and_counts(bullmq: NodeBull, queue: Queue) -> None:
    queue.add_bulk([NewJob("a") for _ in range(3)])
    queue.add("a", delay=3600)
    queue.add("a", priority=1, job_id="urgent")
    added = queue.add_flow(FlowJob("p", "q", children=[FlowJob("c", "q")]))
    counts = bullmq.counts("q")
    assert {name: count for name, count in counts.items() if count} == {
        "waiting": 4, "delayed": 1, "prioritized": 1, "waiting-children": 1,
    }  # fmt: skip
    assert bullmq.state("q", "urgent") == "prioritized"
    assert bullmq.state("q", added.id) == "waiting-children"
    assert bullmq.state("q", added.children[0].id) == "waiting"


def test_a_node_worker_runs_them_in_order(bullmq: NodeBull, queue: Queue, client: Client) -> None:
    bullmq.listen("q")
    ids = queue.add_bulk(
        [NewJob("a", {"returns": {"n": n}}) for n in range(300)]
        + [NewJob("a", {"returns": "first"}, lifo=True), NewJob("a", delay=0.05)]
        + [NewJob("a", priority=2), NewJob("a", priority=1)]
    )
    bullmq.start_worker("q")
    assert bullmq.wait_finished("q", ids[42]) == {"n": 42}
    wait_until(lambda: bullmq.counts("q")["completed"] == len(ids), "all jobs to complete")
    ran = [run["id"] for run in runs(client, "q") if run["ev"] == "end"]
    in_line = [job_id for job_id in ran if job_id != ids[301]]
    assert in_line == [ids[300], *ids[:300], ids[303], ids[302]]
    seen = bullmq.events("q")
    assert [args["jobId"] for event, args in seen if event == "added"] == ids
    started = [args["jobId"] for event, args in seen if event == "active"]
    assert started == ran


def test_an_idle_node_worker_is_woken(bullmq: NodeBull, queue: Queue) -> None:
    # It looks by itself only after ten seconds.
    bullmq.start_worker("q", drainDelay=10)
    bullmq.listen("q")
    time.sleep(0.2)
    for options in ({}, {"priority": 3}, {"delay": 0.1}, {"lifo": True}):
        job_id = queue.add("a", {"returns": 1}, **options)  # type: ignore[arg-type]
        assert bullmq.wait_finished("q", job_id, timeout_s=5) == 1


def test_failures_follow_the_options(bullmq: NodeBull, queue: Queue) -> None:
    bullmq.start_worker("q")
    bullmq.listen("q")
    twice = queue.add("a", {"fail_times": 1, "returns": "ok"}, attempts=2, backoff="fixed:10ms")
    assert bullmq.wait_finished("q", twice) == "ok"
    once = queue.add("a", {"fail_times": 9, "message": "broken"}, attempts=1)
    with pytest.raises(NodeError, match="broken"):
        bullmq.wait_finished("q", once)
    gone = queue.add("a", {"returns": 1}, remove_on_complete=True)
    wait_until(lambda: bullmq.queue("q", "getJob", gone) is None, "the job to be removed")
    # Handles get the same, from the job or from the events.
    assert (twice.result(10), gone.result(10)) == ("ok", 1)
    with pytest.raises(JobFailedError) as failed:
        once.result(10)
    assert failed.value.reason == "broken"


def test_a_job_of_a_node_worker_is_not_cancelled(
    bullmq: NodeBull, queue: Queue, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "ANSWER_S", 0.5)
    bullmq.start_worker("q")
    held = queue.add("a", {"held": True, "returns": "done"})
    wait_until(lambda: held.status() == "active", "the job to run")
    waiting = queue.add("a")
    assert waiting.cancel()
    assert bullmq.queue("q", "getJob", waiting) is None
    with pytest.raises(RefusedError) as refused:
        held.cancel()
    assert "worker.cancelJob" in refused.value.why
    client.call("SET", "release:q", 1)
    assert held.result(10) == "done"


@pytest.mark.parametrize("policy", ["fail_parent", "continue_parent", "ignore_dependency"])
def test_a_flow_over_two_queues(bullmq: NodeBull, queue: Queue, policy: str) -> None:
    bullmq.start_worker("q")
    bullmq.start_worker("r")
    added = queue.add_flow(
        FlowJob(
            "p",
            "q",
            {"returns": "parent"},
            children=[
                FlowJob("good", "r", {"returns": 1}),
                FlowJob("bad", "r", {"fail_times": 9, "message": "no"}, on_failure=policy),
            ],
        )
    )
    bullmq.listen("q")
    if policy == "fail_parent":
        with pytest.raises(NodeError, match="failed"):
            bullmq.wait_finished("q", added.id)
    else:
        assert bullmq.wait_finished("q", added.id) == "parent"


def test_a_child_for_a_job_that_node_added(bullmq: NodeBull, queue: Queue) -> None:
    tree = {
        "name": "p", "queueName": "q", "opts": {"jobId": "p"},
        "children": [{"name": "c", "queueName": "r"}],
    }  # fmt: skip
    bullmq.add_flow(tree)
    child = queue.add("c", {"returns": 2}, parent=Parent("p", "q"))
    bullmq.start_worker("r")
    bullmq.start_worker("q")
    bullmq.listen("q")
    bullmq.wait_finished("q", "p")
    assert bullmq.job("q", "p", "getChildrenValues") == {
        f"bull:q:{child}": 2,
        **{key: None for key in bullmq.job("q", "p", "getChildrenValues") if ":r:" in key},
    }


def test_dedup_is_one_for_both(bullmq: NodeBull, queue: Queue) -> None:
    ours = queue.add("a", {"returns": 1}, dedup=Dedup("x"))
    assert bullmq.add("q", deduplication={"id": "x"}) == ours
    bullmq.start_worker("q")
    bullmq.listen("q")
    bullmq.wait_finished("q", ours)
    # Its owner has ended; the id is free again.
    assert queue.add("a", dedup=Dedup("x")) != ours


def test_the_kept_last_runs_after_the_first(bullmq: NodeBull, queue: Queue) -> None:
    last = Dedup("x", keep_last_if_active=True)
    first = queue.add("a", {"ms": 300}, dedup=last)
    bullmq.start_worker("q")
    wait_until(lambda: bullmq.state("q", first) == "active", "the first to run")
    assert queue.add("a", {"returns": "dropped"}, dedup=last) == first
    assert queue.add("a", {"returns": "kept"}, dedup=last, job_id="kept") == first
    wait_until(lambda: bullmq.queue("q", "getJob", "kept"), "the last to be made")
    bullmq.listen("q")
    assert bullmq.wait_finished("q", "kept") == "kept"


# Schedulers


def test_node_lists_schedulers_as_its_own(bullmq: NodeBull, queue: Queue) -> None:
    queue.upsert_scheduler("s", every=60, start=FAR_MS, limit=3, name="tick", data={"a": 1})
    queue.upsert_scheduler("t", cron="0 3 * * *", tz="Europe/Berlin", attempts=3, priority=2)
    bullmq.queue("r", "upsertJobScheduler", "s", {"every": 60_000, "startDate": FAR_MS, "limit": 3},
                 {"name": "tick", "data": {"a": 1}})  # fmt: skip
    bullmq.queue("r", "upsertJobScheduler", "t", {"pattern": "0 3 * * *", "tz": "Europe/Berlin"},
                 {"opts": {"attempts": 3, "priority": 2}})  # fmt: skip
    assert bullmq.queue("q", "getJobSchedulers") == bullmq.queue("r", "getJobSchedulers")
    for name in ("s", "t"):
        found = [bullmq.queue(where, "getJobScheduler", name) for where in ("q", "r")]
        assert found[0] == found[1]
    with Queue("r", client=queue._access._client, prefix="bull") as other:
        assert other.schedulers() == queue.schedulers()
    assert bullmq.queue("q", "removeJobScheduler", "t")
    assert [found.id for found in queue.schedulers()] == ["s"]


def test_a_node_worker_goes_on_with_a_scheduler(
    bullmq: NodeBull, queue: Queue, client: Client
) -> None:
    queue.upsert_scheduler("s", every=0.1, limit=3, data={"x": 1})
    bullmq.start_worker("q")
    wait_until(lambda: bullmq.counts("q")["completed"] == 3, "three iterations")
    ids = [run["id"] for run in runs(client, "q") if run["ev"] == "end"]
    times = [int(job_id.rpartition(":")[2]) for job_id in ids]
    assert [time - times[0] for time in times] == [0, 100, 200]
    assert job(client, ids[2])["data"] == '{"x":1}'


def test_a_node_worker_goes_on_with_a_pattern(
    bullmq: NodeBull, queue: Queue, client: Client
) -> None:
    queue.upsert_scheduler("s", cron="* * * * * *", tz="UTC", limit=2, immediately=True)
    bullmq.start_worker("q")
    wait_until(lambda: bullmq.counts("q")["completed"] == 2, "two iterations")
    assert queue.schedulers()[0].iterations == 2


def timeless(text: str, now_ms: int) -> Any:
    def near(found: re.Match[str]) -> str:
        return "7777777777777" if abs(int(found[0]) - now_ms) < 3_600_000 else found[0]

    found = re.sub(r"\d{13}", near, text)
    return json.loads(found) if found.startswith("{") else found


@pytest.mark.parametrize(
    "schedule",
    [
        {"every": 600_000},
        {"every": 600_000, "limit": 2, "offset": 5000},
        {"pattern": "0 0 1 1 *", "tz": "Asia/Tokyo", "immediately": True, "endDate": FAR_MS},
        {"every": 600_000, "limit": 1},
    ],
)
@pytest.mark.parametrize(
    "template", [{}, {"data": {"a": 1}, "opts": {"priority": 3, "backoff": 500, "keepLogs": 2}}]
)
def test_the_next_iteration_is_that_of_a_node_worker(
    node_bull: Callable[..., NodeBull],
    client: Client,
    schedule: dict[str, Any],
    template: dict[str, Any],
) -> None:
    bull, now_ms = node_bull(6), time.time_ns() // 1_000_000
    for name in ("q", "r"):
        bull.queue(name, "upsertJobScheduler", "s", schedule, template)
        if "offset" in schedule:
            # It waits for its first time; let that be now.
            (job_id,) = row_of(client, name, "delayed")
            client.call("ZADD", f"bull:{name}:delayed", 0, job_id)
    # Node on r …
    bull.start_worker("r")
    bull.listen("r")
    wait_until(lambda: bull.counts("r")["completed"] == 1, "the first iteration")
    # … and by hand on q.
    keys = QueueKeys("bull", "q")
    places = [(place, row_of(client, "q", place)) for place in ("wait", "prioritized", "delayed")]
    ((place, (first,)),) = [found for found in places if found[1]]
    client.call("DEL", keys(place))
    client.call("LPUSH", keys("active"), first)
    call = next_iteration_call(keys, first, job(client, first, keys), now_ms)
    if schedule.get("limit") == 1:
        assert call is None
    else:
        assert call is not None
        assert scripts.run(client, call.name, call.keys, call.args)

    def left(name: str) -> Any:
        base = f"bull:{name}:"
        pending = sorted(row_of(client, name, "delayed"))
        records = [job(client, "repeat:s", QueueKeys("bull", name))]
        records += [job(client, one, QueueKeys("bull", name)) for one in pending]
        for record in records:
            for time_bound in ("delay", "offset"):
                record.pop(time_bound, None)
        rows = [
            {field: timeless(value, now_ms) for field, value in record.items()}
            for record in records
        ]
        for found in rows:
            if isinstance(found.get("opts"), dict):
                found["opts"].pop("delay", None)
        return rows, [timeless(one, now_ms) for one in pending], client.call("GET", f"{base}id")

    assert left("q") == left("r")


def row_of(client: Client, name: str, place: str) -> list[str]:
    if place == "wait":
        return row(client, place, QueueKeys("bull", name))
    return list(scores(client, place, QueueKeys("bull", name)))


def test_ours_goes_on_with_a_scheduler_of_node(
    bullmq: NodeBull, queue: Queue, client: Client
) -> None:
    bullmq.queue("q", "upsertJobScheduler", "s", {"every": 100, "limit": 3}, {"data": {"x": 1}})
    (first,) = row(client, "wait")
    client.call("RPOPLPUSH", Q("wait"), Q("active"))
    now_ms = time.time_ns() // 1_000_000
    call = next_iteration_call(Q, first, job(client, first), now_ms)
    assert call is not None
    second = scripts.run(client, call.name, call.keys, call.args)
    # Asked again, as when the first had stalled, there is still only one.
    assert scripts.run(client, call.name, call.keys, call.args) == ""
    bullmq.start_worker("q")
    wait_until(lambda: bullmq.counts("q")["completed"] == 2, "the second and third iteration")
    assert runs(client, "q")[0]["id"] == second
    assert queue.schedulers()[0].iterations == 3
