"""A worker dies with jobs in hand; qctl puts them back and another worker runs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from qctl.connection.address import Client
from qctl.wire.jobs import STALLED_TOO_OFTEN, read_jobs
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from qctl.wire.write.transitions import retry_finished, retry_stalled
from tests.labs.node import NodeBull, NodeError, ids_of, runs
from tests.labs.servers import wait_until

Q = QueueKeys("bull", "q")
# As `jobs retry-stalled --failed` does it.
retry_failed = partial(retry_finished, source="failed", run_next=True, forget="stalls")
LOCK_MS = 400
# Longer than any test: nothing here is recovered by BullMQ's own stalled check.
NEVER_MS = 600_000


def snapshot(client: Client) -> QueueSnapshot:
    (found,) = read_snapshots(client, [Q])
    assert isinstance(found, QueueSnapshot)
    return found


def die_with(doomed: NodeBull, client: Client, count: int) -> None:
    """Kill a Node process that has so many jobs in hand, and wait until their locks are gone."""
    doomed.start_worker(
        "q", concurrency=count, lockDuration=LOCK_MS, stalledInterval=NEVER_MS, name="doomed"
    )
    wait_until(lambda: len(ids_of(runs(client, "q"), "start")) == count, f"{count} running jobs")
    assert snapshot(client).counts.stalled == 0
    doomed.kill()
    wait_until(lambda: snapshot(client).counts.stalled == count, "the dead worker's locks to go")
    client.call("DEL", "runs:q")


@pytest.mark.parametrize("version", [5, 6], ids=["v5", "v6"])
@pytest.mark.parametrize("heir", [5, 6], ids=["heir-v5", "heir-v6"])
def test_jobs_of_a_dead_worker_run_again(
    version: int, heir: int, node_bull: Callable[..., NodeBull], client: Client
) -> None:
    bull = node_bull(heir)
    ids = [bull.add("q", {"ms": 60_000}, attempts=3) for _ in range(2)]
    ids.append(bull.add("q", {"ms": 60_000}, priority=5))
    die_with(node_bull(version, fresh=True), client, 3)
    # Let the second run be short.
    for job_id in ids:
        bull.job("q", job_id, "updateData", {"returns": f"again {job_id}"})
    later, urgent = bull.add("q"), bull.add("q", priority=4)
    bull.listen("q")

    stalled = snapshot(client).stalled_ids
    assert sorted(stalled) == sorted(ids)
    assert retry_stalled(client, Q, dict.fromkeys(stalled, "")) == dict.fromkeys(ids, "retried")
    found = snapshot(client)
    assert (found.counts.active, found.counts.waiting, found.counts.prioritized) == (0, 3, 2)
    wait_until(
        lambda: (
            [(name, args.get("jobId"), args.get("prev")) for name, args in bull.events("q")]
            == [
                event
                for job_id in reversed(stalled)
                for event in (("waiting", job_id, "active"), ("stalled", job_id, None))
            ]
        ),
        "QueueEvents to see both events of each job",
    )

    bull.start_worker("q", name="heir")
    for job_id in ids:
        assert bull.wait_finished("q", job_id) == f"again {job_id}"
    wait_until(lambda: len(ids_of(runs(client, "q"))) == 5, "all five jobs to end")
    ran = ids_of(runs(client, "q"))
    # The recovered ones first, as they were named, each in its class: plain before prioritised,
    # 4 before 5.
    assert ran[:2] == [job_id for job_id in stalled if job_id != ids[2]]
    assert ran[2:] == [later, urgent, ids[2]]
    for job in read_jobs(client, Q, ids):
        assert job is not None
        record = job.record
        assert (record.stalled_count, record.attempts_made, record.attempts_started) == (0, 1, 2)
        assert record.worker == "heir"
        assert job.lock_token is None
    assert client.call("SMEMBERS", Q("stalled")) == []


def test_an_idle_worker_wakes_up(node_bull: Callable[..., NodeBull], client: Client) -> None:
    bull = node_bull(6)
    ids = [bull.add("q", {"ms": 60_000}), bull.add("q", {"ms": 60_000}, priority=3)]
    die_with(node_bull(5, fresh=True), client, 2)
    for job_id in ids:
        bull.job("q", job_id, "updateData", {})
    client.call("DEL", Q("marker"))
    bull.start_worker("q", drainDelay=120, stalledInterval=NEVER_MS)
    wait_until(lambda: client.call("INFO", "clients").count("blocked_clients:1"), "an idle worker")
    retry_stalled(client, Q, dict.fromkeys(ids, ""))
    wait_until(lambda: ids_of(runs(client, "q")) == ids, "the idle worker to run both")


def test_a_live_workers_jobs_are_left_alone(bullmq: NodeBull, client: Client) -> None:
    job_id = bullmq.add("q", {"ms": 900})
    bullmq.start_worker("q", lockDuration=LOCK_MS, stalledInterval=NEVER_MS)
    wait_until(lambda: ids_of(runs(client, "q"), "start") == [job_id], "the job to run")
    assert retry_stalled(client, Q, {job_id: ""}) == {job_id: "locked"}
    bullmq.wait_finished("q", job_id)
    assert retry_stalled(client, Q, {job_id: ""}) == {job_id: "inactive"}
    assert [row["ev"] for row in runs(client, "q")] == ["start", "end"]


@pytest.mark.parametrize("forget", [True, False], ids=["forgotten", "counted"])
def test_a_second_interruption(
    forget: bool, node_bull: Callable[..., NodeBull], client: Client
) -> None:
    bull = node_bull(6)
    job_id = bull.add("q", {"ms": 60_000}, attempts=3)
    for _ in range(2):
        die_with(node_bull(6, fresh=True), client, 1)
        count = None if forget else 1
        assert retry_stalled(client, Q, {job_id: ""}, max_stalled=count) == {job_id: "retried"}
    bull.job("q", job_id, "updateData", {"returns": "survived"})
    bull.listen("q")
    bull.start_worker("q")
    if forget:
        assert bull.wait_finished("q", job_id) == "survived"
        return
    # Counted as BullMQ counts, the second stall is one too many, whatever the attempts.
    with pytest.raises(NodeError, match=STALLED_TOO_OFTEN):
        bull.wait_finished("q", job_id)
    assert retry_failed(client, Q, [job_id], only_reason=STALLED_TOO_OFTEN) == {job_id: "retried"}
    wait_until(lambda: bull.state("q", job_id) == "completed", "the job to complete after all")


def test_a_failed_job_and_its_flow(bullmq: NodeBull, client: Client) -> None:
    child = {
        "name": "child",
        "queueName": "q",
        "data": {"fail_times": 1},
        "opts": {"failParentOnFailure": True},
    }
    tree = bullmq.add_flow({"name": "parent", "queueName": "parents", "children": [child]})
    child_id = tree["children"][0]["job"]["id"]
    bullmq.start_worker("q")
    wait_until(lambda: bullmq.state("q", child_id) == "failed", "the child to fail")
    assert retry_failed(client, Q, [child_id]) == {child_id: "retried"}
    wait_until(lambda: bullmq.state("q", child_id) == "completed", "the child to complete")
    assert read_jobs(client, Q, [child_id])[0] is not None
