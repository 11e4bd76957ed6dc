"""A queue of a cluster whose slot moves: BullMQ's producers and workers, and qctl's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qctl import NewJob, Queue
from qctl.connection import slot_moves as moving
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pausing import pause, resume
from tests.labs.build import holder, put, row
from tests.labs.clusters import Cluster, Move
from tests.labs.events import followed
from tests.labs.node import HERE, node, node_env
from tests.labs.servers import wait_until

# Adds one job and prints its id, or why it was not added.
PRODUCER = """
const [modules, bullmq, port, prefix] = process.argv.slice(1);
const { Queue } = require(`${modules}/${bullmq}`);
const { Cluster } = require(`${modules}/ioredis`);
const connection = new Cluster([{ host: "127.0.0.1", port: Number(port) }]);
new Queue("q", { connection, prefix }).add("x", {})
  .then((job) => console.log(job.id), (error) => console.log(error.message))
  .finally(() => process.exit());
"""


@pytest.mark.parametrize("bullmq", ["bullmq5", "bullmq6"])
def test_nobody_adds_to_a_part_of_a_queue(
    cluster: Cluster, node_modules: str, monkeypatch: pytest.MonkeyPatch, bullmq: str
) -> None:
    keys = QueueKeys(f"{{{bullmq}}}", "q")

    def node_adds() -> str:
        words = (node_modules, bullmq, cluster.nodes[0].port, keys.prefix)
        command = [*node(), "-e", PRODUCER, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with Queue("q", redis_url=cluster.url, prefix=keys.prefix) as queue:
        assert [node_adds(), queue.add("x"), node_adds()] == ["1", "2", "3"]
        with Move(cluster, bullmq) as move, monkeypatch.context() as patch:
            patch.setattr(moving, "PATIENCE_S", 0.0)
            move.carry(move.left()[::2])
            assert "Too many Cluster redirections" in node_adds()
            with pytest.raises(ReplyError):
                queue.add("x")
        assert [queue.add("x"), node_adds()] == ["4", "5"]
    assert sorted(row(cluster.client, "wait", keys)) == ["1", "2", "3", "4", "5"]


def test_a_paused_queue_without_active_jobs_moves_without_a_loss(
    cluster: Cluster, node_modules: str, tmp_path: Path
) -> None:
    client, keys = cluster.client, QueueKeys("{rested}", "q")
    log, ledger = tmp_path / "log", tmp_path / "ledger"
    nodes = ",".join(str(server.port) for server in cluster.nodes)
    env = {"REDIS_NODES": f"cluster:{nodes}", "PREFIX": keys.prefix, "LEDGER": str(ledger)}

    def has_worker_been_refused() -> bool:
        return "Too many Cluster redirections" in log.read_text()

    with Queue("q", redis_url=cluster.url, prefix=keys.prefix) as queue, log.open("wb") as output:
        queue.add_bulk([NewJob("x", {"ms": 50}) for _ in range(50)])
        worker = subprocess.Popen(
            [*node(), str(HERE / "worker.js")], env=node_env(env), stdout=output, stderr=output
        )
        try:
            wait_until(lambda: client.call("ZCARD", keys("completed")), "a job to end")
            assert pause(client, keys, holder("me")).changed
            wait_until(lambda: not client.call("EXISTS", keys("active")), "running jobs to end")
            with Move(cluster, "rested") as move:
                move.carry(move.left()[::2])
                wait_until(has_worker_been_refused, "the worker to be refused")
            assert client.call("LLEN", keys("paused")) > 0
            assert resume(client, keys).changed
            wait_until(lambda: client.call("ZCARD", keys("completed")) == 50, "all jobs to end")
        finally:
            worker.kill()
            worker.wait()
    assert client.call("ZCARD", keys("failed")) == 0
    assert ledger.read_text().count('"start"') == 50


def test_a_follower_shows_each_event_once(cluster: Cluster, tmp_path: Path) -> None:
    keys = QueueKeys("{followed}", "q")
    put(cluster.client, "1", keys=keys)
    with followed(cluster.url, keys, tmp_path) as flow:
        # There and on, so that the stream also leaves the node that has just received it.
        for _ in range(2):
            with Move(cluster, "followed") as move:
                move.carry([key for key in move.left() if key != keys("events")])
                flow.go_on()
                move.carry([keys("events")])
                flow.go_on()
            flow.go_on()
        kept, shown, remarks = flow.end()
    assert shown == kept
    assert shown == flow.written[flow.written.index(shown[0]) :]
    assert remarks == ""
