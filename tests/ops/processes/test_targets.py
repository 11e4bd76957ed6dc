"""Which workers and queues belong to which process, if two managers use the same key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.ops.processes.attribution import holders, queues_served, serving
from qctl.ops.processes.targets import read_connections, targets_serving
from qctl.ops.queues import status
from qctl.wire.read.clients import client_name, list_all_workers
from tests.labs.build import Q, put
from tests.labs.impact import PROCESS, SETTINGS

# The manager knows the pid of the first process only; this test process stands for it.
CONTAINER = replace(PROCESS, target="docker:worker", key="worker", pid=os.getpid())
APP = replace(PROCESS, target="command:worker", key="worker", pid=None)


@pytest.fixture(autouse=True)
def _worker(client: Client, redis_url: str) -> Iterator[None]:
    """A worker of the queue, in the container."""
    put(client, "1", "wait")
    with closing(connect(redis_url)[1]) as connection:
        connection.call("CLIENT", "SETNAME", client_name("bull", "q"))
        yield


@pytest.mark.parametrize("processes", [(CONTAINER, APP), (APP, CONTAINER)])
def test_a_drain_or_an_impact_gives_the_queue_to_one_target(
    client: Client, redis_url: str, processes: tuple
) -> None:
    db = parse_url(redis_url).db
    connections = read_connections(client, SETTINGS, db, processes)
    assert connections.queues_of([CONTAINER]) == {Q}
    assert connections.queues_of([APP]) == set()
    assert targets_serving(SETTINGS, connections, processes, [Q]) == {"docker:worker"}


def test_doctor_gives_the_queue_to_one_process(client: Client) -> None:
    connected = list_all_workers(client)
    assert connected is not None
    workers, processes = connected.workers, [CONTAINER, APP]
    served = queues_served(workers, holders(client, workers, processes))
    assert list(serving(processes, served, SETTINGS, [Q])) == [CONTAINER]


def test_status_gives_the_queue_to_one_process(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "managed_processes", lambda *_: ([CONTAINER, APP], ()))
    found = status.inspect_queues(client, parse_url(redis_url), SETTINGS)
    queues = {process.target: process.queues for process in found.report.processes}
    assert queues == {"docker:worker": ("q",), "command:worker": ()}
