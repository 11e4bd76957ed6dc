"""qctl's counts are BullMQ's own, for both versions and every state."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.wire.jobs import read_jobs
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import Counts, QueueSnapshot, read_snapshots
from tests.labs.jobs import discovered
from tests.labs.node import NodeBull, NodeError
from tests.labs.servers import wait_until

Q = QueueKeys("bull", "q")


def snapshot(client: Client, keys: QueueKeys = Q) -> QueueSnapshot:
    (found,) = read_snapshots(client, [keys])
    assert isinstance(found, QueueSnapshot), found
    return found


def comparable(counts: Counts) -> dict[str, int]:
    return {
        "waiting": counts.waiting,
        "active": counts.active,
        "delayed": counts.delayed,
        "prioritized": counts.prioritized,
        "waiting-children": counts.waiting_children,
        "completed": counts.completed,
        "failed": counts.failed,
    }


def assert_agreed(client: Client, bullmq: NodeBull, keys: QueueKeys = Q) -> QueueSnapshot:
    found = snapshot(client, keys)
    expected = bullmq.counts(keys.name, prefix=keys.prefix)
    # What version 5 counts as paused is waiting to us.
    expected["waiting"] += expected.pop("paused", 0)
    assert comparable(found.counts) == expected
    return found


def fill(bullmq: NodeBull, prefix: str = "bull") -> None:
    """Jobs in every state, different numbers of each; the active one holds its worker."""
    kw: dict[str, Any] = {"prefix": prefix}
    for _ in range(2):
        bullmq.add("q", **kw)
    bullmq.add("q", {"fail_times": 9}, **kw)
    worker = bullmq.start_worker("q", **kw)
    wait_until(lambda: bullmq.counts("q", **kw)["completed"] == 2, "two completed jobs")
    wait_until(lambda: bullmq.counts("q", **kw)["failed"] == 1, "a failed job")
    held = bullmq.add("q", {"ms": 60_000}, **kw)
    wait_until(lambda: bullmq.state("q", held, **kw) == "active", "a running job")
    bullmq.close_worker(worker, force=True)
    for n in range(4):
        bullmq.add("q", **kw)
        bullmq.add("q", priority=n + 1, **kw)
    for _ in range(3):
        bullmq.add("q", delay=3_600_000, **kw)
    # A parent that waits for a child, which waits in the same queue.
    bullmq.add_flow(
        {
            "name": "parent",
            "queueName": "q",
            "children": [
                {"name": "child", "queueName": "q"},
                {"name": "child", "queueName": "children"},
            ],
        },
        **kw,
    )
    repeat = {"every": 3_600_000}
    bullmq.queue("q", "upsertJobScheduler", "hourly", repeat, {"name": "tick"}, **kw)
    cron = {"pattern": "0 0 1 1 *"}
    bullmq.queue("q", "upsertJobScheduler", "yearly", cron, {"name": "tock"}, **kw)


def test_every_state(bullmq: NodeBull, client: Client) -> None:
    fill(bullmq)
    found = assert_agreed(client, bullmq)
    counts = found.counts
    assert (counts.completed, counts.failed, counts.active) == (2, 1, 1)
    assert (counts.waiting, counts.prioritized, counts.waiting_children) == (6, 4, 1)
    # The yearly iteration; the hourly one is waiting, since its first is due at once.
    assert counts.delayed == 3 + 1
    assert found.schedulers == 2 == bullmq.queue("q", "getJobSchedulersCount")
    assert found.client_version == {5: "5.81.5", 6: "6.7.0"}[bullmq.version]
    assert found.format == "bullmq"
    assert_agreed(client, bullmq, QueueKeys("bull", "children"))


def test_paused_and_resumed(bullmq: NodeBull, client: Client) -> None:
    fill(bullmq)
    bullmq.pause("q")
    bullmq.add("q")
    found = assert_agreed(client, bullmq)
    assert found.paused
    assert found.legacy_paused == (7 if bullmq.version == 5 else 0)
    assert found.counts.waiting == 7
    bullmq.resume("q")
    found = assert_agreed(client, bullmq)
    assert not found.paused
    assert (found.legacy_paused, found.counts.waiting) == (0, 7)


@pytest.mark.parametrize("prefix", ["{jobs}", "my:app"])
def test_other_prefixes(bullmq: NodeBull, client: Client, prefix: str) -> None:
    fill(bullmq, prefix)
    assert_agreed(client, bullmq, QueueKeys(prefix, "q"))
    assert discovered(client, prefix) == ["children", "q"]
    assert discovered(client, "bull") == []


def test_a_flow_across_queues(bullmq: NodeBull, client: Client) -> None:
    children = [{"name": "c", "queueName": f"child{n}", "data": {"ms": 1}} for n in range(3)]
    tree = bullmq.add_flow({"name": "p", "queueName": "parent", "children": children})
    names = ["child0", "child1", "child2", "parent"]
    assert discovered(client, "bull") == names
    for name in names:
        assert_agreed(client, bullmq, QueueKeys("bull", name))
    for name in names:
        bullmq.start_worker(name)
    assert bullmq.wait_finished("parent", tree["job"]["id"]) is None
    for name in names:
        found = assert_agreed(client, bullmq, QueueKeys("bull", name))
        assert found.counts.completed == 1


def test_both_versions_on_one_queue(node_bull: Any, client: Client) -> None:
    five, six = node_bull(5), node_bull(6)
    five.pause("q")
    five.add("q")
    six.add("q")
    six.add("q", priority=1)
    found = snapshot(client)
    assert (found.counts.waiting, found.counts.prioritized) == (2, 1)
    assert found.legacy_paused == 1
    # Version 6 does not see the one that version 5 put aside.
    assert six.counts("q")["waiting"] == 1


def test_job_records_agree(bullmq: NodeBull, client: Client) -> None:
    data = {"fail_times": 1, "text": "ü/\u2028", "returns": {"a": [1, 2]}}
    flaky = bullmq.add(
        "q", data, job="mail", attempts=3, priority=4, backoff={"type": "fixed", "delay": 1}
    )
    hopeless = bullmq.add("q", {"fail_times": 9, "message": "no <b>luck</b>"}, attempts=2)
    worker = bullmq.start_worker("q", name="the-worker")
    bullmq.wait_finished("q", flaky)
    with pytest.raises(NodeError, match="luck"):
        bullmq.wait_finished("q", hopeless)
    bullmq.close_worker(worker)
    waiting = bullmq.add("q", delay=3_600_000, attempts=7)
    jobs = read_jobs(client, Q, [flaky, hopeless, waiting])
    for job_id, job in zip([flaky, hopeless, waiting], jobs, strict=True):
        assert job is not None
        record, reference = job.record, bullmq.get_job("q", job_id)
        assert record.name == reference["name"]
        assert record.data == reference["data"]
        assert record.opts.get("attempts") == reference["opts"]["attempts"]
        assert record.attempts_made == reference["attemptsMade"]
        assert record.attempts_started == reference["attemptsStarted"]
        assert record.timestamp_ms == reference["timestamp"]
        assert record.processed_on_ms == reference.get("processedOn")
        assert record.finished_on_ms == reference.get("finishedOn")
        assert record.failed_reason == reference.get("failedReason")
        assert list(record.stacktrace) == (reference["stacktrace"] or [])
        assert record.worker == reference.get("processedBy")
        assert record.returnvalue == reference.get("returnvalue")
        assert record.priority == reference["priority"]
        assert record.delay_ms == reference["delay"]
