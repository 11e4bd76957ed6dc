"""Workers of BullMQ 5, BullMQ 6 and qctl on one queue: every job runs once, none is lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

from qctl import Queue
from qctl.connection.address import Client
from qctl.wire.replies import to_dict
from qctl.wire.write.adding import NewJob
from tests.interop import py_worker as py
from tests.labs.build import Q
from tests.labs.node import runs, wait_ended

py_worker = py.py_worker
JOBS = 20_000


# Most jobs are plain, as in life; some are not.
SPECIAL: dict[int, dict[str, Any]] = {
    0: {"priority": 3},
    1: {"delay": 0.3},
    2: {"lifo": True},
    3: {"data": {"fail_times": 1}, "attempts": 2},
    4: {"data": {"fail_times": 2}, "attempts": 3, "backoff": "exponential:10ms"},
    5: {"data": {"fail_times": 9}, "attempts": 2},
}


def test_mixed_workers_share_a_queue(
    node_bull: Any, py_worker: py.Starter, client: Client, redis_url: str
) -> None:
    five, six = node_bull(5), node_bull(6)
    five.start_worker("q", concurrency=20, name="five")
    six.start_worker("q", concurrency=20, name="six")
    py_worker(concurrency=20, name="a")
    py_worker(concurrency=50, name="b")
    with Queue("q", redis_url=redis_url) as queue:
        for start in range(0, JOBS // 2, 1000):
            jobs = [NewJob("j", **SPECIAL.get(n % 40, {})) for n in range(start, start + 1000)]
            queue.add_bulk(jobs)
            rows = [{"name": "j", "data": {"returns": n}} for n in range(1000)]
            six.queue("q", "addBulk", rows)
    wait_ended(client, JOBS, timeout_s=60)

    assert client.call("EXISTS", *map(Q, ("wait", "active", "delayed", "prioritized"))) == 0
    assert client.call("ZCARD", Q("failed")) == JOBS // 2 // 40
    rows = runs(client, "q")
    starts = Counter(row["id"] for row in rows if row["ev"] == "start")
    ends = Counter(row["id"] for row in rows if row["ev"] == "end")
    assert len(starts) == JOBS
    assert set(ends.values()) == {1}
    assert len(ends) == client.call("ZCARD", Q("completed"))
    # A job was started as often as it says: once, and once more after each failure.
    states = client.pipeline([("HMGET", Q(job_id), "ats", "atm", "stc") for job_id in starts])
    for job_id, (ats, atm, stc) in zip(starts, states, strict=True):
        assert (int(ats), int(atm), stc) == (starts[job_id], starts[job_id], None)
    by_worker = Counter(row["worker"] for row in rows if row["ev"] == "start")
    assert set(by_worker) == {"five", "six", "a", "b"}
    assert min(by_worker.values()) > JOBS / 100, by_worker
    assert client.call("KEYS", "bull:q:*:lock") == []
    assert to_dict(client.call("HGETALL", Q("meta"))).keys() == {"opts.maxLenEvents", "version"}
