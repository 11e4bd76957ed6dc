"""Flows over Node and qctl: children and parents in several queues, every policy, both kinds of
worker for either side."""

from __future__ import annotations

from typing import Any

import pytest

from qctl import Job, Queue, UnrecoverableError, WaitForChildren
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.interop import py_worker as py
from tests.labs.build import job as fields_of
from tests.labs.node import NodeBull, NodeError, ids_of, runs
from tests.labs.servers import wait_until

py_worker = py.py_worker
PARENTS, CHILDREN = QueueKeys("bull", "parents"), QueueKeys("bull", "children")


def child(job_id: str, data: Any = None, **opts: Any) -> dict[str, Any]:
    return {
        "name": "child", "queueName": "children", "data": data or {},
        "opts": {"jobId": job_id, **opts},
    }  # fmt: skip


def add(bull: NodeBull, *children: dict[str, Any], **opts: Any) -> None:
    """A parent ``top`` in one queue with children in another."""
    bull.add_flow(
        {
            "name": "parent", "queueName": "parents", "data": {"returns": "done"},
            "opts": {"jobId": "top", **opts}, "children": list(children),
        }
    )  # fmt: skip


def start(who: str, queue: str, bull: NodeBull, py_worker: py.Starter) -> None:
    if who == "qctl":
        py_worker(queue=queue)
    else:
        bull.start_worker(queue)


@pytest.mark.parametrize(("above", "below"), [("qctl", "qctl"), ("node", "qctl"), ("qctl", "node")])
def test_a_parent_runs_after_its_children(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, above: str, below: str
) -> None:
    add(bullmq, *(child(name, {"returns": [name], "ms": 20}) for name in "abc"))
    start(above, "parents", bullmq, py_worker)
    start(below, "children", bullmq, py_worker)
    assert bullmq.wait_finished("parents", "top") == "done"
    ended = max(row["at"] for row in runs(client, "children") if row["ev"] == "end")
    assert next(row["at"] for row in runs(client, "parents")) >= ended
    values = bullmq.job("parents", "top", "getChildrenValues")
    assert values == {f"bull:children:{name}": [name] for name in "abc"}


def test_children_values_and_ignored_failures_in_a_handler(
    bullmq: NodeBull, py_worker: py.Starter
) -> None:
    async def handler(job: Job) -> Any:
        assert job.parent is None
        return [await job.children_values(), await job.ignored_failures()]

    py_worker(handler, queue="parents")
    py_worker(queue="children")
    failing = child("b", {"fail_times": 1, "message": "no"}, ignoreDependencyOnFailure=True)
    add(bullmq, child("a", {"returns": 1}), failing)
    assert bullmq.wait_finished("parents", "top") == [
        {"bull:children:a": 1},
        {"bull:children:b": "no"},
    ]


POLICIES = {
    "failParentOnFailure": "failed",
    "continueParentOnFailure": "completed",
    "ignoreDependencyOnFailure": "completed",
    "removeDependencyOnFailure": "completed",
    "": "waiting-children",
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("where", [{}, {"priority": 2}, {"delay": 50}], ids=str)
def test_what_a_failed_child_does_to_its_parent(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, policy: str, where: dict[str, int]
) -> None:
    flag = {policy: True} if policy else {}
    add(bullmq, child("bad", {"fail_times": 9, "message": "bad luck"}, attempts=2, **flag), **where)
    py_worker(queue="parents")
    py_worker(queue="children")
    with pytest.raises(NodeError, match="bad luck"):
        bullmq.wait_finished("children", "bad")
    state = POLICIES[policy]
    wait_until(lambda: bullmq.state("parents", "top") == state, f"the parent to be {state}")
    if policy == "failParentOnFailure":
        with pytest.raises(NodeError, match=r"^child bull:children:bad failed$"):
            bullmq.wait_finished("parents", "top")
        assert runs(client, "parents") == []
        unsuccessful = client.call("ZRANGE", PARENTS("top:unsuccessful"), 0, -1)
        assert unsuccessful == ["bull:children:bad"]
    elif policy in {"continueParentOnFailure", "ignoreDependencyOnFailure"}:
        failures = client.call("HGETALL", PARENTS("top:failed"))
        assert failures == ["bull:children:bad", "bad luck"]
    elif not policy:
        # Its retry lets the parent go on.
        client.call("HSET", CHILDREN("bad"), "data", "{}")
        bullmq.job("children", "bad", "retry")
        assert bullmq.wait_finished("parents", "top") == "done"


def test_a_failure_goes_up_through_three_levels(bullmq: NodeBull, py_worker: py.Starter) -> None:
    fpof = {"failParentOnFailure": True}
    middle = {**child("middle", **fpof), "queueName": "middles"}
    middle["children"] = [child("low", {"fail_times": 1}, **fpof)]
    add(bullmq, middle)
    for queue in ("parents", "middles", "children"):
        py_worker(queue=queue)
    with pytest.raises(NodeError, match="child bull:middles:middle failed"):
        bullmq.wait_finished("parents", "top")
    assert bullmq.state("middles", "middle") == "failed"


def test_a_parent_that_continues_early_cannot_complete_before_the_rest(
    bullmq: NodeBull, py_worker: py.Starter
) -> None:
    bad = child("bad", {"fail_times": 1}, continueParentOnFailure=True)
    add(bullmq, bad, child("slow", {}, delay=600_000))
    py_worker(queue="parents")
    py_worker(queue="children")
    with pytest.raises(NodeError, match="cannot complete: it has pending children"):
        bullmq.wait_finished("parents", "top")


def test_removed_children_delay_no_parent(bullmq: NodeBull, py_worker: py.Starter) -> None:
    add(
        bullmq,
        child("a", {"returns": 1}, removeOnComplete=True),
        child("b", {"fail_times": 1}, removeOnFail=True, ignoreDependencyOnFailure=True),
    )
    py_worker(queue="children")
    py_worker(queue="parents")
    assert bullmq.wait_finished("parents", "top") == "done"
    assert bullmq.job("parents", "top", "getChildrenValues") == {"bull:children:a": 1}
    assert bullmq.queue("children", "getJob", "a") is None


# Children that a running job adds


@pytest.mark.parametrize("worker", ["qctl", "node"])
def test_a_job_waits_for_children_that_it_adds(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, redis_url: str, worker: str
) -> None:
    with Queue("children", redis_url=redis_url) as queue:

        async def handler(job: Job) -> Any:
            values = await job.children_values()
            if values:
                return sum(values.values())
            for number in (1, 2):
                # Long enough for the parent to be waiting before they end.
                queue.add("child", {"returns": number, "ms": 200}, parent=job.as_parent)
            raise WaitForChildren

        py_worker(handler, queue="parents")
        start(worker, "children", bullmq, py_worker)
        bullmq.listen("parents")
        job_id = bullmq.add("parents")
        assert bullmq.wait_finished("parents", job_id) == 3
    job = bullmq.get_job("parents", job_id)
    assert (job["attemptsMade"], job["attemptsStarted"]) == (1, 2)
    events = [name for name, _ in bullmq.events("parents")]
    assert events[:6] == [
        "added", "waiting", "active", "waiting-children", "waiting", "active",
    ]  # fmt: skip


def test_children_that_node_adds_to_a_running_job(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    async def handler(job: Job) -> Any:
        if await job.children_values():
            return "after"
        while not await job.link.command("SCARD", PARENTS(f"{job.id}:dependencies")):
            pass
        raise WaitForChildren

    py_worker(handler, queue="parents")
    py_worker(queue="children")
    job_id = bullmq.add("parents")
    parent = {"id": job_id, "queue": "bull:parents"}
    wait_until(lambda: client.call("LLEN", PARENTS("active")), "the parent to run")
    bullmq.add("children", {"ms": 200, "returns": 5}, parent=parent)
    assert bullmq.wait_finished("parents", job_id) == "after"


def test_a_job_that_waits_for_nothing_runs_again(bullmq: NodeBull, py_worker: py.Starter) -> None:
    async def handler(job: Job) -> int:
        if job.attempts_started == 1:
            raise WaitForChildren
        return job.attempts_started

    py_worker(handler)
    assert bullmq.wait_finished("q", bullmq.add("q")) == 2


def test_waiting_for_a_child_that_has_failed_fails(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    async def handler(job: Job) -> None:
        key = PARENTS(f"{job.id}:unsuccessful")
        while not await job.link.command("ZCARD", key):
            pass
        raise WaitForChildren

    async def bad(_: Job) -> None:
        raise UnrecoverableError("bad")

    py_worker(handler, queue="parents")
    py_worker(bad, queue="children")
    job_id = bullmq.add("parents", attempts=3)
    wait_until(lambda: client.call("LLEN", PARENTS("active")), "the parent to run")
    parent = {"id": job_id, "queue": "bull:parents"}
    bullmq.add("children", parent=parent, failParentOnFailure=True)
    with pytest.raises(NodeError, match="failed children"):
        bullmq.wait_finished("parents", job_id)


def test_a_single_worker_that_is_refused_takes_its_next_job(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    """The only place of a worker is the refused job's, until it is known when that runs again."""
    bad = child("bad", {"fail_times": 1}, continueParentOnFailure=True)
    add(bullmq, bad, child("slow", delay=200), attempts=2, backoff=400)
    py_worker(queue="parents", drain_delay_s=120)
    py_worker(queue="children")
    assert bullmq.wait_finished("parents", "top", timeout_s=5) == "done"
    assert fields_of(client, "top", PARENTS)["atm"] == "2"
    assert ids_of(runs(client, "children")) == ["slow"]
