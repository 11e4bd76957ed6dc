"""A queue of a cluster whose slot moves: producers of BullMQ and qctl, and followers of events."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qctl import Queue
from qctl.connection import slot_moves as moving
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from tests.labs.build import put, row
from tests.labs.clusters import Cluster, Move
from tests.labs.events import followed
from tests.labs.node import node

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
