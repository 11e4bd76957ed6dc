"""One scheduler in the hands of BullMQ's workers and producers, and of qctl's."""

from __future__ import annotations

from collections.abc import Callable

from qctl.connect import Client
from tests.interop import py_worker as py
from tests.interop.node import NodeBull, ids_of, runs
from tests.servers import wait_until
from tests.wire.build import Q

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
