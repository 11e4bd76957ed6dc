"""What becomes of stalled jobs."""

from __future__ import annotations

import time

import pytest

from qctl.connection.address import Client
from qctl.ops.jobs.fate import add_fates, stalled_fate
from qctl.ops.jobs.listing import list_jobs, show_job
from qctl.ops.jobs.model import Job
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import WorkerClient
from qctl.wire.read.stalled_check import StalledClock
from tests.labs.jobs import KEYS, add, snapshot

WORKER = WorkerClient(QueueKeys("bull", "q"), "w1", 7, "10.0.0.1:5", 60, 1)
# None has run within an interval: perhaps none ever does.
SILENT = StalledClock(KEYS, None, 0, frozenset())


def checked(keys: QueueKeys = KEYS, interval_ms: int = 30_000) -> StalledClock:
    """Of a queue in which a check ran just now."""
    return StalledClock(keys, round(time.time() * 1000), interval_ms, frozenset())


def stalled(count: int = 0, **fields: object) -> Job:
    return Job(id="1", name="n", state="stalled", stalled_count=count, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "allowed", "workers", "has_scheduler", "expected"),
    [
        (0, 1, [WORKER], False, ("recovered", "1 worker is connected")),
        (0, 1, [WORKER, WORKER], False, ("recovered", "2 workers are connected")),
        (1, 1, [WORKER], False, ("fails", "stall 2, and the limit is 1")),
        (0, 0, [WORKER], False, ("fails", "stall 1, and the limit is 0")),
        (1, 2, [WORKER], False, ("recovered", "put back")),
        (5, 1, [WORKER], True, ("recovered", "put back")),
        (0, 1, [], False, ("none", "no worker is connected")),
        (1, 1, [], False, ("none", "would fail it for good")),
        (0, 1, None, False, ("unknown", "qctl workers")),
        (1, 1, None, False, ("unknown", "stall 2, and the limit is 1")),
    ],
)
def test_fates(
    count: int,
    allowed: int,
    workers: list[WorkerClient] | None,
    has_scheduler: bool,
    expected: tuple[str, str],
) -> None:
    result = stalled_fate(
        stalled(count),
        workers,
        clock=checked(),
        max_stalled_count=allowed,
        has_scheduler=has_scheduler,
    )
    outcome, says = expected
    assert result.outcome == outcome
    assert says in result.text


def test_a_paused_queue_recovers_but_does_not_run() -> None:
    result = stalled_fate(stalled(), [WORKER], clock=checked(), max_stalled_count=1, paused=True)
    assert result.outcome == "recovered"
    assert "when the queue is resumed" in result.text


def test_the_command_to_type_is_safe_to_paste() -> None:
    clock = checked(QueueKeys("bull", "a $(reboot)"))
    result = stalled_fate(stalled(), [], clock=clock, max_stalled_count=1)
    assert "`qctl jobs retry-stalled 'a $(reboot)'`" in result.text


@pytest.mark.parametrize("stalls", [0, 1])
def test_without_a_stalled_check_nothing_is_promised(stalls: int) -> None:
    result = stalled_fate(stalled(stalls), [WORKER], clock=SILENT, max_stalled_count=1)
    assert result.outcome == "unknown"
    assert "no stalled check has run lately" in result.text
    assert "`qctl jobs retry-stalled q`" in result.text
    assert ("fail for good" in result.text) == bool(stalls)


def test_the_interval_is_the_workers_own() -> None:
    result = stalled_fate(
        stalled(), [WORKER], clock=checked(interval_ms=600_000), max_stalled_count=1
    )
    assert "20 min" in result.text


def test_jobs_of_workers_that_are_gone_wait_for_their_locks(client: Client) -> None:
    for job_id, worker in (("1", "gone"), ("2", "gone"), ("3", "w1"), ("4", "no ascii ü")):
        add(client, job_id, "active", pb=worker)
        client.call("SET", KEYS.lock(job_id), "t", "PX", 600_000)
    jobs = list_jobs(client, snapshot(client), "active")
    told = add_fates(client, KEYS, jobs.jobs, [WORKER], max_stalled_count=1, paused=False)
    fates = {job.id: job.fate for job in told if job.fate}
    assert fates.keys() == {"1", "2"}
    assert fates["1"] == fates["2"]
    assert fates["1"].outcome == "held"
    assert "expires within 10 min" in fates["1"].text
    client.call("PERSIST", KEYS.lock("1"))
    one = show_job(client, KEYS, "1")
    (one,) = add_fates(client, KEYS, [one], [WORKER], max_stalled_count=1, paused=False)
    assert one.fate is not None
    assert one.fate.outcome == "held"
    assert "never expires" in one.fate.text


def test_nothing_is_left_of_a_job_without_a_record() -> None:
    result = stalled_fate(stalled(missing=True), [WORKER], clock=checked(), max_stalled_count=1)
    assert result.outcome == "none"
    assert "record is gone" in result.text


def test_lists_and_single_jobs_get_their_fate(client: Client) -> None:
    add(client, "plain", "active")
    add(client, "twice", "active", stc=1)
    add(client, "record", "active", stc=1, rjk="daily")
    add(client, "legacy", "active", stc=1, rjk="old::::* * * * *")
    add(client, "ended", "active", stc=1, rjk="gone")
    client.call("HSET", KEYS.scheduler("daily"), "ic", 1)
    client.call("SET", KEYS("stalled-check"), round(time.time() * 1000), "PX", 30_000)
    client.call("ZADD", KEYS("repeat"), 1, "old::::* * * * *")
    jobs = list_jobs(client, snapshot(client), "stalled")
    options = {"max_stalled_count": 1, "paused": False}
    told = add_fates(client, KEYS, jobs.jobs, [WORKER], **options)  # type: ignore[arg-type]
    assert {job.id: job.fate.outcome for job in told if job.fate} == {
        "plain": "recovered",
        "twice": "fails",
        "record": "recovered",
        "legacy": "recovered",
        "ended": "fails",
    }
    alone = add_fates(client, KEYS, jobs.jobs, [], **options)  # type: ignore[arg-type]
    assert {job.fate.outcome for job in alone if job.fate} == {"none"}
    one = show_job(client, KEYS, "twice")
    (one,) = add_fates(client, KEYS, [one], None, **options)  # type: ignore[arg-type]
    assert one.fate is not None
    assert one.fate.outcome == "unknown"


def test_only_stalled_jobs_have_a_fate(client: Client) -> None:
    add(client, "1", "wait")
    jobs = list_jobs(client, snapshot(client), "waiting")
    assert add_fates(client, KEYS, jobs.jobs, [], max_stalled_count=1, paused=False) == jobs.jobs
    one = show_job(client, KEYS, "1")
    assert add_fates(client, KEYS, [one], [], max_stalled_count=1, paused=False) == (one,)
