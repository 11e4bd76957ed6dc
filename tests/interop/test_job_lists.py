"""Lists of jobs and single jobs, next to BullMQ's own getters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.jobs.listing import list_jobs, show_job
from qctl.ops.jobs.logs import read_logs
from qctl.ops.jobs.model import Job
from qctl.ops.queues.find import find_queues
from qctl.wire.keys import QueueKeys
from tests.labs.node import NodeBull
from tests.labs.servers import wait_until

Q = QueueKeys("bull", "q")


def listed(client: Client, state: str) -> list[Job]:
    (snapshot,) = find_queues(client, "bull", ["q"])
    return list(list_jobs(client, snapshot, state).jobs)


def at(epoch_ms: int | None) -> datetime | None:
    return None if epoch_ms is None else datetime.fromtimestamp(epoch_ms / 1000, UTC)


def assert_same(job: Job, theirs: dict[str, Any]) -> None:
    assert (job.id, job.name, job.data) == (theirs["id"], theirs["name"], theirs["data"])
    assert job.attempts_made == theirs["attemptsMade"]
    assert job.attempts_started == theirs["attemptsStarted"]
    assert job.stalled_count == theirs["stalledCounter"]
    assert job.priority == theirs["priority"]
    assert job.added_at == at(theirs["timestamp"])
    assert job.started_at == at(theirs.get("processedOn"))
    assert job.finished_at == at(theirs.get("finishedOn"))
    assert job.failed_reason == theirs.get("failedReason")
    assert job.worker == theirs.get("processedBy")


GETTERS = {
    "waiting": "getWaiting",
    "active": "getActive",
    "delayed": "getDelayed",
    "prioritized": "getPrioritized",
    "waiting-children": "getWaitingChildren",
    "completed": "getCompleted",
    "failed": "getFailed",
}


def test_every_state_is_listed_as_bullmq_lists_it(bullmq: NodeBull, client: Client) -> None:
    for number in range(3):
        bullmq.add("q", {"n": number}, job="ok")
        bullmq.add("q", {"fail_times": 9, "message": f"reason {number}"}, job="bad", attempts=2)
    worker = bullmq.start_worker("q", name="mailer", concurrency=1)
    wait_until(lambda: bullmq.counts("q")["failed"] == 3, "the failures")
    running = [bullmq.add("q", {"ms": 60_000}, job="long")]
    wait_until(lambda: bullmq.counts("q")["active"] == 1, "a running job")
    for number in range(3):
        bullmq.add("q", {"n": number}, job="plain")
        bullmq.add("q", {"n": number}, job="later", delay=(3 - number) * 3_600_000)
        bullmq.add("q", {"n": number}, job="urgent", priority=3 - number)
    bullmq.add("q", job="lifo", lifo=True)
    bullmq.add_flow(
        {"name": "parent", "queueName": "q", "children": [{"name": "child", "queueName": "other"}]}
    )
    for state, getter in GETTERS.items():
        theirs = bullmq.queue("q", getter)
        ours = listed(client, state)
        assert len(ours) > 0, state
        assert [job.id for job in ours] == [job["id"] for job in theirs], state
        for job, their in zip(ours, theirs, strict=True):
            assert_same(job, their)
            detail = show_job(client, Q, job.id)
            assert_same(detail, their)
            shown = "waiting" if bullmq.state("q", job.id) == "paused" else detail.state
            assert shown == bullmq.state("q", job.id)
    (job,) = listed(client, "active")
    assert ([job.id], job.worker) == (running, "mailer")
    assert job.lock_ttl_ms
    later = {job.data["n"]: job for job in listed(client, "delayed")}
    for number, delayed in later.items():
        assert delayed.due_at is not None
        assert delayed.added_at is not None
        waits = (delayed.due_at - delayed.added_at).total_seconds()
        assert waits == pytest.approx((3 - number) * 3600, abs=1)
    bullmq.close_worker(worker, force=True)


def test_flows_name_parent_and_children(bullmq: NodeBull, client: Client) -> None:
    tree = bullmq.add_flow(
        {
            "name": "parent",
            "queueName": "q",
            "children": [{"name": "a", "queueName": "q"}, {"name": "b", "queueName": "other"}],
        }
    )
    parent = show_job(client, Q, tree["job"]["id"])
    assert parent.children is not None
    assert (parent.children.pending, parent.children.processed) == (2, 0)
    child = show_job(client, Q, tree["children"][0]["job"]["id"])
    assert child.parent is not None
    assert (child.parent.queue, child.parent.id) == ("q", parent.id)


def test_logs_are_those_that_bullmq_wrote(bullmq: NodeBull, client: Client) -> None:
    job_id = bullmq.add("q")
    for row in ("one", "two", "three"):
        bullmq.job("q", job_id, "log", row)
    assert read_logs(client, Q, job_id).logs == ("one", "two", "three")


def test_a_paused_queue_lists_its_waiting_jobs(bullmq: NodeBull, client: Client) -> None:
    ids = [bullmq.add("q") for _ in range(3)]
    bullmq.pause("q")
    ids.append(bullmq.add("q"))
    assert [job.id for job in listed(client, "waiting")] == ids
    assert show_job(client, Q, ids[0]).state == "waiting"
