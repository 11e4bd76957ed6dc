"""Workers on several masters of a real cluster, which number their connections apart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from qctl.connection.connect import connect
from qctl.ops.drain import recover
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.steps import ProcessResult
from qctl.ops.processes.replacement import Replacement
from qctl.ops.processes.targets import Target, read_connections
from qctl.ops.queues.status import count_workers
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import client_name
from tests.labs.clusters import Cluster
from tests.labs.drain_context import context_of
from tests.labs.impact import PROCESS, SETTINGS

Q = QueueKeys("{bull}", "q")
# Holds a worker's connections, of which the first has a certain number, until its input ends.
WORKER = """
import sys
from qctl.connection.connect import connect
number, name, first, *others = sys.argv[1:]
while True:
    client = connect(first)[1]
    if client.call("CLIENT", "ID") >= int(number):
        break
    client.close()
more = [connect(url)[1] for url in others]
for each in (client, *more):
    each.call("CLIENT", "SETNAME", name)
print(client.call("CLIENT", "ID"), flush=True)
sys.stdin.read()
"""


@contextmanager
def worker(number: int, *urls: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", WORKER, str(number), client_name(Q.prefix, Q.name), *urls]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{number}\n"
        yield process


def next_number(cluster: Cluster) -> int:
    """A number that no connection to a master has had."""
    numbers = []
    for node in cluster.nodes:
        with closing(connect(node.url)[1]) as client:
            numbers.append(client.call("CLIENT", "ID"))
    return max(numbers) + 10


def test_two_workers_whose_connections_have_the_same_number(cluster: Cluster) -> None:
    number = next_number(cluster)
    first, second, _ = cluster.nodes
    with worker(number, first.url) as one, worker(number, second.url) as two:
        pids = (one.pid, two.pid)
        processes = [replace(PROCESS, key=str(pid), name=str(pid), pid=pid) for pid in pids]
        connections = read_connections(cluster.client, SETTINGS, 0, processes)
        assert [len(connections.owned[process.identity]) for process in processes] == [1, 1]

        own = {process.identity: connections.owned[process.identity] for process in processes[:1]}
        assert not replace(connections, owned=own).all_owned([Q])

        # If only one of them is restarted, the queue has another worker.
        manager: Any = None
        target = Target("pm2:app", manager, (processes[0],), ())
        context = context_of(cluster.client, (Q,), connections=connections, target=target)
        done = Restarted((ProcessResult("pm2:app", processes[0].key, new_pid=1),))
        assert recover._sole_queues(context, done) == []
        whose = {each.id for each in connections.owned[processes[0].identity]}
        replacement = Replacement(cluster.client, 0, [Q], None, whose, watch_s=0)
        assert not replacement.replaces_all(Q)
        (now,) = replacement.read()
        assert (now.before, now.left, now.new) == (1, 1, 0)


def test_a_worker_that_is_connected_to_several_masters_is_counted_once(cluster: Cluster) -> None:
    """As BullMQ's are: to the master of the queue, and to those that they ask for the slots."""
    urls = [node.url for node in cluster.nodes]
    number = next_number(cluster)
    with worker(number, *urls[:2]):
        old = Replacement(cluster.client, 0, [Q], None, watch_s=0)
        (now,) = old.read()
        assert (now.before, now.left, now.new, now.expected) == (1, 1, 0, 1)
        with worker(number + 100, *urls), worker(number + 200, urls[1]):
            (now,) = old.read()
            assert (now.left, now.new) == (1, 2)
            assert count_workers(cluster.client, Q, 0, running=0) == 3
