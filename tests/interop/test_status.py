"""What status says of queues that real BullMQ limits, maxes or leaves with stalled jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Client, parse_url
from qctl.ops.jobs.fate import add_fates
from qctl.ops.jobs.listing import list_jobs
from qctl.ops.jobs.model import Job
from qctl.ops.queues.find import find_queues
from qctl.ops.queues.status import QueueStatus, inspect_queues
from qctl.output.status import state_cell
from qctl.wire.read.clients import list_workers
from tests.labs.node import NodeBull, NodeError
from tests.labs.servers import wait_until

SETTINGS = Settings(pm2_home=Path("/nonexistent"), state_home=Path("/nonexistent"))


def status(client: Client, name: str = "q") -> QueueStatus:
    found = inspect_queues(client, parse_url("redis://localhost/0"), SETTINGS, [name])
    return found.report.queues[0]


def notes(client: Client) -> str:
    return "; ".join(note.text for note in status(client).notes)


def test_a_limiter_that_is_not_used_up_is_no_rate_limit(client: Client, bullmq: NodeBull) -> None:
    bullmq.start_worker("q", limiter={"max": 100, "duration": 600_000})
    bullmq.add_bulk("q", [{"name": "job", "data": {}, "opts": {}} for _ in range(3)])
    wait_until(lambda: bullmq.counts("q")["completed"] == 3, "three jobs")
    found = status(client)
    assert (found.rate_limited_s, state_cell(found).value) == (None, "running")
    assert found.rate_limit is not None
    assert (found.rate_limit.used, found.rate_limit.max) == (3, None)
    # The worker's own maximum is not in Redis.
    assert found.rate_limit.holds is None
    assert notes(client) == ""
    bullmq.queue("q", "setGlobalRateLimit", 100, 600_000)
    found = status(client)
    assert found.rate_limit is not None
    assert (found.rate_limit.max, found.rate_limit.holds) == (100, False)


def test_a_limit_of_the_queue_that_is_reached(client: Client, bullmq: NodeBull) -> None:
    bullmq.queue("q", "setGlobalRateLimit", 2, 600_000)
    bullmq.start_worker("q")
    bullmq.add_bulk("q", [{"name": "job", "data": {}, "opts": {}} for _ in range(5)])
    wait_until(lambda: bullmq.counts("q")["completed"] == 2, "two jobs")
    found = status(client)
    assert state_cell(found).value == "limited"
    assert 0 < (found.rate_limited_s or 0) <= 600
    assert "2 of 2 jobs have started in this window" in notes(client)


def test_the_limit_of_a_worker_may_hold_the_jobs(client: Client, bullmq: NodeBull) -> None:
    bullmq.start_worker("q", limiter={"max": 2, "duration": 600_000})
    bullmq.add_bulk("q", [{"name": "job", "data": {}, "opts": {}} for _ in range(5)])
    wait_until(lambda: bullmq.counts("q")["completed"] == 2, "two jobs")
    found = status(client)
    assert (state_cell(found).value, found.rate_limited_s) == ("limited?", None)
    assert "may be rate limited" in notes(client)
    assert "2 jobs are counted" in notes(client)


def test_a_limit_set_by_hand(client: Client, bullmq: NodeBull) -> None:
    bullmq.queue("q", "rateLimit", 600_000)
    found = status(client)
    assert state_cell(found).value == "limited"
    assert "rate limited by hand" in notes(client)
    assert found.rate_limit is not None
    assert (found.rate_limit.used, found.rate_limit.holds) == (None, True)
    # As BullMQ does: a worker without a limiter takes no notice, and that is said.
    assert "workers without a limiter go on" in notes(client)
    bullmq.start_worker("q")
    bullmq.add("q")
    wait_until(lambda: bullmq.counts("q")["completed"] == 1, "it to go on")


def test_a_queue_held_by_its_global_concurrency(client: Client, bullmq: NodeBull) -> None:
    bullmq.queue("q", "setGlobalConcurrency", 1)
    bullmq.start_worker("q", concurrency=5)
    bullmq.add("q", {"held": True})
    wait_until(lambda: bullmq.counts("q")["active"] == 1, "a job to start")
    assert state_cell(status(client)).value == "running"
    bullmq.add_bulk("q", [{"name": "job", "data": {}, "opts": {}} for _ in range(3)])
    found = status(client)
    assert state_cell(found).value == "maxed"
    assert (found.concurrency, found.is_maxed) == (1, True)
    assert notes(client) == ("its global concurrency of 1 is reached: 1 job is active, 3 jobs wait")
    client.call("SET", "release:q", 1)
    wait_until(lambda: bullmq.counts("q")["completed"] == 4, "the jobs to go on")


def test_a_global_concurrency_that_is_no_number(client: Client, bullmq: NodeBull) -> None:
    # As by Number(process.env.X) or a setting that is missing; BullMQ stores what it gets.
    bullmq.queue("q", "setGlobalConcurrency", None)
    with pytest.raises(NodeError, match="attempt to compare nil with number"):
        bullmq.add("q")
    found = status(client)
    assert (found.is_broken, state_cell(found).value) == (True, "broken")
    assert "fails on every add" in notes(client)
    bullmq.queue("q", "removeGlobalConcurrency")
    bullmq.add("q")
    assert state_cell(status(client)).value == "running"


@pytest.mark.parametrize("version", [5, 6])
def test_stalled_jobs_that_no_worker_looks_for(
    client: Client, node_bull: Callable[..., NodeBull], version: int
) -> None:
    dead = node_bull(version, fresh=True)
    dead.start_worker("q", name="dead", lockDuration=600_000, skipStalledCheck=True)
    job_id = dead.add("q", {"held": True})
    wait_until(lambda: dead.counts("q")["active"] == 1, "the job to start")
    dead.kill()
    wait_until(lambda: status(client).workers == 0, "its connection to be gone")
    assert "1 active job has a lock, and Redis lists no worker: it stalls within " in notes(client)
    alive = node_bull(version)
    alive.start_worker("q", name="alive", skipStalledCheck=True)
    (row,) = jobs(client, "active")
    assert row.fate is not None
    assert row.fate.outcome == "held"
    assert "1 active job belongs to a worker that is not connected: it stalls " in notes(client)
    client.call("DEL", f"bull:q:{job_id}:lock")
    assert "it is unknown whether a worker notices" in notes(client)
    (row,) = jobs(client, "stalled")
    assert row.fate is not None
    assert row.fate.outcome == "unknown"
    # One that does look makes the promise true.
    alive.start_worker("q", name="checks", stalledInterval=1000)
    client.call("SET", "release:q", 1)
    wait_until(lambda: alive.counts("q")["completed"] == 1, "it to be put back")


def jobs(client: Client, state: str) -> tuple[Job, ...]:
    (snapshot,) = find_queues(client, "bull", ["q"])
    workers = list_workers(client, "bull", ["q"], 0)
    found = list_jobs(client, snapshot, state)
    return add_fates(client, snapshot.keys, found.jobs, workers, max_stalled_count=1, paused=False)
