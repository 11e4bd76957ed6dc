"""On a replica: what is shown may be old, and who works cannot be seen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.errors import FailedError, NotFoundError
from qctl.ops.doctor.run import examine
from qctl.ops.live.view import LiveReader, View
from qctl.ops.queues.status import Inspection, inspect_queues
from qctl.ops.queues.workers import inspect_workers
from qctl.wire.read.clients import client_name
from qctl.wire.read.info import read_upstream
from tests.labs.build import put
from tests.labs.doctor import of, result
from tests.labs.servers import RedisServer, wait_until

SETTINGS = Settings(pm2_home=Path("/nonexistent"), state_home=Path("/nonexistent"))


@pytest.fixture
def pair(start_redis: Callable[..., RedisServer]) -> Iterator[tuple[RedisServer, Client, Client]]:
    """The replica, and connections to its master, which has a worker, and to it."""
    master = start_redis()
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    with contextlib.ExitStack() as stack:
        above, below, worker = (
            stack.enter_context(contextlib.closing(connect(server.url)[1]))
            for server in (master, replica, master)
        )
        worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
        yield replica, above, below


def look(client: Client, server: RedisServer) -> Inspection:
    return inspect_queues(client, parse_url(server.url), SETTINGS)


def test_a_replica_says_so_and_calls_no_worker_absent(
    pair: tuple[RedisServer, Client, Client],
) -> None:
    replica, above, below = pair
    put(above, "1")
    wait_until(lambda: below.call("EXISTS", "bull:q:1") == 1, "the job to be there")
    found = look(below, replica)
    assert found.report.redis.replica_of is not None
    assert "workers are connected to its master" in found.remarks[0]
    (queue,) = found.report.queues
    # The worker of the master cannot be seen here: unknown, not none.
    assert (queue.workers, queue.severity) == (None, "unknown")
    assert [problem.kind for problem in found.report.problems] == ["workers_unknown"]
    with pytest.raises(FailedError, match="a replica of") as caught:
        inspect_workers(below, parse_url(replica.url), SETTINGS)
    assert "may not list clients" not in str(caught.value)
    reading = LiveReader(below, parse_url(replica.url), SETTINGS).read(View(("q",)))
    assert found.remarks[0] in reading.remarks
    (row,) = reading.queues
    assert row.status is not None
    assert row.status.workers is None
    diagnosis = examine(below, parse_url(replica.url), SETTINGS, sleep=lambda _: None)
    assert of(diagnosis, "replica")[0].severity == "error"
    assert result(diagnosis, "no-workers").status == "failed"
    assert "a replica of" in result(diagnosis, "no-workers").why
    assert read_upstream(above) is None


def test_a_replica_that_has_nothing_is_not_taken_for_an_empty_redis(
    pair: tuple[RedisServer, Client, Client],
) -> None:
    replica, _, below = pair
    with pytest.raises(NotFoundError) as caught:
        look(below, replica)
    assert "a replica of" in caught.value.why
    assert "no BullMQ queue at all" not in caught.value.why
