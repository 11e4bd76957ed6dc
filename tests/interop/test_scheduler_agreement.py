"""One scheduler in the hands of BullMQ's workers and producers, and of qctl's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from qctl import Queue
from qctl.connection.address import Client
from qctl.runtime.api import schedules
from qctl.runtime.api.schedules import CodeSchedule
from qctl.wire.keys import QueueKeys
from qctl.wire.options import JobOptions
from qctl.wire.replies import to_dict
from qctl.wire.schedulers.scheduling import Schedule as Rule
from tests.interop import py_worker as py
from tests.labs.build import Q
from tests.labs.node import NodeBull, ids_of, runs
from tests.labs.servers import wait_until

py_worker = py.py_worker


def test_a_scheduler_that_cannot_be_read_stays_for_workers_that_can(
    node_bull: Callable[..., NodeBull], py_worker: py.Starter, client: Client
) -> None:
    bull = node_bull(6)
    # A random minute of each hour, which BullMQ 6 alone knows.
    repeat = {"pattern": "H * * * *", "immediately": True}
    job_id = bull.queue("q", "upsertJobScheduler", "s", repeat)["id"]
    due = client.call("ZSCORE", Q("repeat"), "s")
    worker = py_worker()
    wait_until(
        lambda: client.call("ZSCORE", Q("delayed"), job_id) is not None, "the job to be put back"
    )
    worker.stop()
    assert runs(client, "q") == []
    assert client.call("ZSCORE", Q("repeat"), "s") == due
    assert client.call("HMGET", Q(job_id), "atm", "failedReason") == [None, None]
    client.call("ZADD", Q("delayed"), 0, job_id)
    bull.start_worker("q")
    wait_until(lambda: client.call("ZSCORE", Q("repeat"), "s") != due, "the next job")
    wait_until(lambda: ids_of(runs(client, "q")) == [job_id], "the run")
    (follower,) = client.call("ZRANGE", Q("delayed"), 0, -1)
    assert follower == f"repeat:s:{client.call('ZSCORE', Q('repeat'), 's')}"


def test_a_job_of_a_scheduler_that_is_gone_runs_whatever_its_pattern(
    node_bull: Callable[..., NodeBull], py_worker: py.Starter, client: Client
) -> None:
    bull = node_bull(6)
    repeat = {"pattern": "H * * * *", "immediately": True}
    job_id = bull.queue("q", "upsertJobScheduler", "s", repeat)["id"]
    wait_until(lambda: bool(client.call("EXISTS", Q("delayed"), Q("wait"))), "it to be there")
    if client.call("ZREM", Q("delayed"), job_id):
        client.call("LPUSH", Q("wait"), job_id)
    bull.queue("q", "removeJobScheduler", "s")
    py_worker()
    wait_until(lambda: ids_of(runs(client, "q")) == [job_id], "the run")


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_upsert_after_a_promoted_iteration_has_run(
    bullmq: NodeBull, client: Client, redis_url: str, outcome: str
) -> None:
    """An app makes its schedulers at every start: that must work then, too."""
    repeat = {"pattern": "0 0 1 1 *", "tz": "UTC"}
    template = {"data": {"fail_times": 1 if outcome == "failed" else 0}}
    for name in ("q", "n"):
        job_id = bullmq.queue(name, "upsertJobScheduler", "s", repeat, template)["id"]
        bullmq.job(name, job_id, "promote")
        handle = bullmq.start_worker(name)
        in_state = QueueKeys("bull", name)(outcome)
        wait_until(lambda key=in_state: client.call("ZCARD", key) == 1, "the run")
        bullmq.close_worker(handle)
    bullmq.queue("n", "upsertJobScheduler", "s", repeat, {"data": {"x": 1}})
    with Queue("q", redis_url=redis_url) as queue:
        assert queue.upsert_scheduler("s", cron="0 0 1 1 *", tz="UTC", data={"x": 1}) == job_id
    theirs, ours = dump(client, QueueKeys("bull", "n"), job_id), dump(client, Q, job_id)
    # BullMQ writes over the job that has ended, and leaves it among them.
    assert theirs.pop("ended") == [job_id]
    assert ours.pop("ended") == []
    old = {"ats", "atm", "processedOn", "finishedOn", "returnvalue", "failedReason", "stacktrace"}
    for field in old:
        theirs["job"].pop(field, None)
    assert ours == theirs
    assert bullmq.state("q", job_id) == "delayed"


def test_a_schedule_in_code_lives_with_node_workers_and_producers(
    bullmq: NodeBull, client: Client, redis_url: str
) -> None:
    hourly = CodeSchedule("s", "myapp", Rule(every=3600), "tick", {"n": 1}, JobOptions(attempts=2))
    empty = CodeSchedule("e", "myapp", Rule(cron="0 0 1 1 *"), "e", None, JobOptions())
    schedules.apply(client, Q, [hourly, empty], packages={"myapp"}, prune=False)
    pending = str(client.call("ZRANGE", Q("delayed"), 0, 0)[0])
    bullmq.job("q", pending, "promote")
    bullmq.start_worker("q")
    wait_until(lambda: client.call("ZCARD", Q("completed")) == 2, "the first jobs of both")
    wait_until(lambda: client.call("ZCARD", Q("delayed")) == 2, "the next jobs")
    before = client.call("ZRANGE", Q("delayed"), 0, -1, "WITHSCORES")
    events = client.call("XLEN", Q("events"))
    schedules.apply(client, Q, [hourly, empty], packages={"myapp"}, prune=True)
    assert client.call("ZRANGE", Q("delayed"), 0, -1, "WITHSCORES") == before
    assert client.call("XLEN", Q("events")) == events
    listed = bullmq.queue("q", "getJobSchedulers", 0, -1, True)
    assert {each["key"] for each in listed} == {"s", "e"}
    # A producer of Node takes the scheduler over: no prune of ours removes it.
    bullmq.queue("q", "upsertJobScheduler", "s", {"every": 3_600_000}, {"name": "tick"})
    schedules.apply(client, Q, [], packages={"myapp"}, prune=True)
    assert client.call("ZRANGE", Q("repeat"), 0, -1) == ["s"]
    assert bullmq.send("problems") == []


def dump(client: Client, keys: QueueKeys, job_id: str) -> dict[str, Any]:
    job = to_dict(client.call("HGETALL", keys(job_id)))
    opts = json.loads(job.pop("opts"))
    record = to_dict(client.call("HGETALL", keys("repeat:s")))
    # When it was done.
    for fields, names in ((job, ("timestamp", "delay", "nrjid")), (opts, ("timestamp", "delay"))):
        for name in names:
            fields.pop(name, None)
    if opts["repeat"].get("offset") in {None, 0}:
        opts["repeat"].pop("offset", None)
    return {
        "job": job,
        "opts": opts,
        "record": record,
        "repeat": client.call("ZRANGE", keys("repeat"), 0, -1, "WITHSCORES"),
        "delayed": client.call("ZRANGE", keys("delayed"), 0, -1),
        "wait": client.call("LRANGE", keys("wait"), 0, -1),
        "ended": [
            job_id
            for state in ("completed", "failed")
            for job_id in client.call("ZRANGE", keys(state), 0, -1)
        ],
    }


def test_upsert_while_a_promoted_iteration_runs(
    bullmq: NodeBull, client: Client, redis_url: str
) -> None:
    with Queue("q", redis_url=redis_url) as queue:
        first = queue.upsert_scheduler("s", cron="0 0 1 1 *", tz="UTC", data={"held": True})
        bullmq.job("q", first, "promote")
        bullmq.start_worker("q")
        wait_until(lambda: client.call("ZCARD", Q("delayed")) == 1, "the next job")
        second = client.call("ZRANGE", Q("delayed"), 0, -1)
        assert [queue.upsert_scheduler("s", cron="0 0 1 1 *", tz="UTC")] == second
    client.call("SET", "release:q", 1)
    wait_until(lambda: client.call("ZRANGE", Q("completed"), 0, -1) == [first], "its end")
    assert client.call("ZRANGE", Q("delayed"), 0, -1) == second
