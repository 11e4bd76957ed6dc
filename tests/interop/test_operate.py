"""Adding, following, waiting and schedules against BullMQ's own workers, queues and events."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ExitStatus
from qctl.ops.follow import wait as waiting
from qctl.ops.follow.events import EventFilter, QueueEvent, follow_events
from qctl.ops.follow.wait import (
    Condition,
    JobCondition,
    QueueCondition,
    WaitReport,
    error_of,
    wait_for,
)
from qctl.ops.schedules.changes import remove_schedule, run_schedule
from qctl.ops.schedules.listing import Schedule, list_schedules, show_schedule
from qctl.wire.events import last_event_id
from tests.labs.build import Q, scores
from tests.labs.cli import run
from tests.labs.node import NodeBull, runs
from tests.labs.servers import wait_for_readers, wait_until

HOUR_MS = 3_600_000


def add(redis_url: str, *arguments: str) -> str:
    ran = run("jobs", "add", "q", *arguments, QCTL_REDIS_URL=redis_url)
    assert ran.code == 0, ran.err
    return ran.out.strip()


@pytest.fixture
def own(redis_url: str) -> Iterator[Client]:
    """A second connection, for what waits while the first one acts."""
    with contextlib.closing(connect(redis_url)[1]) as client:
        yield client


def end(target: Condition, **options: Any) -> WaitReport:
    report = [*wait_for(target, timeout_s=20, **options)][-1]
    assert isinstance(report, WaitReport)
    return report


class InBackground(threading.Thread):
    """A wait that goes on while the test does something."""

    def __init__(self, target: Condition, client: Client) -> None:
        super().__init__()
        self._target = target
        self.report: WaitReport | None = None
        self.start()
        wait_for_readers(client)

    def run(self) -> None:
        self.report = end(self._target)

    def result(self) -> WaitReport:
        self.join(30)
        assert self.report is not None
        return self.report


# jobs add


def test_node_finds_the_job_that_it_would_have_added(bullmq: NodeBull, redis_url: str) -> None:
    theirs = bullmq.add(
        "q", {"a": [1, "ä/"]}, attempts=3, backoff={"type": "exponential", "delay": 60_000},
        delay=5000, priority=7, removeOnComplete={"count": 100, "age": 86_400}, removeOnFail=True,
        deduplication={"id": "d", "ttl": 1},
    )  # fmt: skip
    ours = add(
        redis_url, "job", "--data", '{"a": [1, "ä/"]}', "--attempts", "3", "--delay", "5s",
        "--backoff", "exponential:60s", "--priority", "7", "--remove-on-complete", "100,24h",
        "--remove-on-fail", "true", "--dedup", "e:1ms",
    )  # fmt: skip
    found = [bullmq.get_job("q", job_id) for job_id in (theirs, ours)]
    for job in found:
        job["opts"]["deduplication"] = job["opts"].get("deduplication", {}) | {"id": ""}
    assert [job | {"id": "", "timestamp": 0} for job in found[:1]] == [
        job | {"id": "", "timestamp": 0} for job in found[1:]
    ]


def test_a_node_worker_runs_what_was_added_by_its_options(
    bullmq: NodeBull, redis_url: str, client: Client
) -> None:
    bullmq.pause("q")
    plain = add(redis_url, "a", "--data", '{"returns": 1}')
    first = add(redis_url, "a", "--lifo")
    gone = add(redis_url, "a", "--remove-on-complete", "true", "--id", "goner")
    urgent, later = (add(redis_url, "a", "--priority", n) for n in ("1", "2"))
    fails = ("--data", '{"fail_times": 9}', "--attempts", "2", "--backoff", "fixed:50ms")
    failing = add(redis_url, "a", *fails)
    dropped = add(redis_url, "a", "--data", '{"fail_times": 9}', "--remove-on-fail", "true")
    delayed = add(redis_url, "a", "--delay", "300ms")
    assert add(redis_url, "a", "--id", "goner") == gone
    dedup = add(redis_url, "a", "--dedup", "d")
    assert add(redis_url, "a", "--dedup", "d") == dedup
    bullmq.resume("q")
    bullmq.start_worker("q")
    assert bullmq.wait_finished("q", delayed) is None
    report = end(QueueCondition(client, Q, "empty", include_delayed=True))
    assert report.outcome == "empty"
    rows = [(row["id"], row["ev"]) for row in runs(client, "q") if row["ev"] != "start"]
    ends = [job_id for job_id, ev in rows if ev == "end"]
    assert ends.index(first) < ends.index(plain) < ends.index(urgent) < ends.index(later)
    assert sorted(ends) == sorted({plain, first, gone, urgent, later, delayed, dedup})
    assert [job_id for job_id, ev in rows if ev == "fail"].count(failing) == 2
    assert bullmq.state("q", failing) == "failed"
    kept = {job_id for job_id in (gone, dropped) if client.call("EXISTS", Q(job_id))}
    assert kept == set()
    assert bullmq.get_job("q", plain)["returnvalue"] == 1


# wait


def test_a_wait_for_a_job_of_a_real_worker(
    bullmq: NodeBull, redis_url: str, client: Client, own: Client
) -> None:
    bullmq.start_worker("q")
    job_id = bullmq.add("q", {"ms": 300, "returns": {"ok": 1}}, removeOnComplete=True)
    report = InBackground(JobCondition(own, Q, job_id), client).result()
    assert (report.outcome, report.returnvalue) == ("completed", {"ok": 1})
    # It has gone, and must not be taken for one that never was.
    assert client.call("EXISTS", Q(job_id)) == 0
    assert end(JobCondition(client, Q, job_id)).outcome == "completed"
    assert end(JobCondition(client, Q, "never")).outcome == "missing"

    job_id = bullmq.add("q", {"ms": 200, "fail_times": 9, "message": "no"}, attempts=2, backoff=50)
    report = end(JobCondition(client, Q, job_id))
    error = error_of(report, "bull")
    assert error is not None
    assert (report.outcome, error.why, error.exit_status) == ("failed", "no", ExitStatus.FAILED)
    assert bullmq.get_job("q", job_id)["attemptsMade"] == 2

    job_id = bullmq.add("q", {}, delay=HOUR_MS)
    background = InBackground(JobCondition(own, Q, job_id), client)
    bullmq.job("q", job_id, "remove")
    assert background.result().outcome == "removed"


def test_a_wait_for_a_queue_of_a_real_worker(
    bullmq: NodeBull, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How soon a lock that ran out is noticed; no event tells of it.
    monkeypatch.setattr(waiting, "POLL_S", 0.2)
    monkeypatch.setattr(waiting, "POLL_S", 0.2)
    worker = bullmq.start_worker("q", lockDuration=1000, concurrency=2)
    ids = bullmq.add_bulk("q", [{"name": "a", "data": {"ms": 100}} for _ in range(6)])
    assert end(QueueCondition(client, Q, "empty")).outcome == "empty"
    assert bullmq.counts("q")["completed"] == len(ids)
    bullmq.add("q", {"ms": 30_000})
    wait_until(lambda: bullmq.counts("q")["active"] == 1, "the job to run")
    bullmq.close_worker(worker, force=True)
    bullmq.kill()
    # Its lock runs out, and nobody is there to notice.
    report = end(QueueCondition(client, Q, "idle"), grace_s=0.1)
    assert report.outcome == "stuck"


# events


def test_what_is_followed_is_what_queue_events_tell(
    bullmq: NodeBull, client: Client, own: Client
) -> None:
    bullmq.listen("q")
    start = last_event_id(client, Q)
    bullmq.start_worker("q")
    bullmq.add("q", {"returns": 1, "steps": [["progress", 5]]})
    bullmq.add("q", {"fail_times": 9}, attempts=2, backoff=20)
    bullmq.add("q", {}, delay=HOUR_MS, jobId="later")
    wait_until(lambda: bullmq.counts("q")["failed"] == 1, "the failure")
    bullmq.job("q", "later", "remove")
    wait_until(lambda: "removed" in [name for name, _ in bullmq.events("q")], "the last event")
    theirs = bullmq.events("q")
    follower = follow_events(own, Q, EventFilter(), after=start)
    ours = [e for e in itertools.islice(follower, len(theirs)) if isinstance(e, QueueEvent)]
    assert [(event.event, event.job_id) for event in ours] == [
        (name, args.get("jobId")) for name, args in theirs
    ]
    for (name, args), event in zip(theirs, ours, strict=True):
        if name in {"progress", "completed", "delayed"}:
            assert {k: v for k, v in args.items() if k != "jobId"} == event.fields


# schedules


def listed(client: Client) -> dict[str, Schedule]:
    return {schedule.id: schedule for schedule in list_schedules(client, Prefixes())[0].schedules}


def test_schedulers_of_node_are_what_node_says(bullmq: NodeBull, client: Client) -> None:
    template = {"name": "report", "data": {"a": 1}, "opts": {"attempts": 3, "backoff": 1000}}
    cron = {"pattern": "0 3 * * *", "tz": "Europe/Berlin"}
    bullmq.queue("q", "upsertJobScheduler", "nightly", cron, template)
    every = {"every": HOUR_MS, "limit": 9, "startDate": int(time.time() * 1000) + HOUR_MS}
    bullmq.queue("q", "upsertJobScheduler", "hourly", every)
    ours = listed(client)
    theirs = {row["key"]: row for row in bullmq.queue("q", "getJobSchedulers")}
    assert set(ours) == set(theirs) == {"nightly", "hourly"}
    for name, row in theirs.items():
        found = ours[name]
        assert found.next_at is not None
        assert (found.name, round(found.next_at.timestamp() * 1000)) == (row["name"], row["next"])
        assert (found.pattern, found.tz, found.limit, found.iterations) == (
            *(row.get("pattern"), row.get("tz"), row.get("limit")),
            row["iterationCount"],
        )
        assert found.every_ms == (int(row["every"]) if row.get("every") else None)
        assert (found.state, found.pending_state, found.skipped) == ("ok", "delayed", 0)
    assert (ours["nightly"].data, ours["nightly"].opts["attempts"]) == ({"a": 1}, 3)

    assert remove_schedule(client, "bull", "q", "hourly").removed
    assert [row["key"] for row in bullmq.queue("q", "getJobSchedulers")] == ["nightly"]
    assert bullmq.counts("q")["delayed"] == 1


def test_a_run_now_is_run_and_leaves_the_schedule_alone(bullmq: NodeBull, client: Client) -> None:
    template = {"name": "report", "data": {"returns": {"n": 1}}, "opts": {"attempts": 2}}
    bullmq.queue("q", "upsertJobScheduler", "nightly", {"pattern": "0 3 1 1 *"}, template)
    bullmq.start_worker("q")
    before = bullmq.queue("q", "getJobSchedulers"), scores(client, "delayed")
    job_id = run_schedule(client, "bull", "q", "nightly").id
    assert job_id is not None
    assert bullmq.wait_finished("q", job_id) == {"n": 1}
    done = bullmq.get_job("q", job_id)
    assert (done["name"], done["opts"]["attempts"]) == ("report", 2)
    assert "repeatJobKey" not in {key for key, value in done.items() if value}
    assert (bullmq.queue("q", "getJobSchedulers"), scores(client, "delayed")) == before


@pytest.mark.parametrize("schedule", [{"every": HOUR_MS}, {"pattern": "0 3 * * *", "limit": 1}])
def test_two_runs_in_a_paused_queue_are_what_the_template_says(
    bullmq: NodeBull, client: Client, schedule: dict[str, Any]
) -> None:
    opts = {"attempts": 3, "backoff": {"type": "fixed", "delay": 500}, "removeOnComplete": 5}
    template = {"name": "report", "data": {"a": [None, "ä"]}, "opts": opts}
    # The first of an interval waits already, the first of a pattern is delayed.
    bullmq.queue("q", "upsertJobScheduler", "s", schedule, template)
    bullmq.pause("q")
    # BullMQ 5's resume looks into the one, BullMQ 6's into the other.
    queue = Q("paused" if bullmq.version == 5 else "wait")
    waiting = client.call("LRANGE", queue, 0, -1)
    before = everything_but(client, queue)
    dry = run_schedule(client, "bull", "q", "s", dry_run=True)
    assert (dry.id, everything_but(client, queue)) == (None, before)
    ids = [str(run_schedule(client, "bull", "q", "s").id) for _ in range(2)]
    assert client.call("LRANGE", queue, 0, -1) == [*reversed(ids), *waiting]
    for job_id in ids:
        done = bullmq.get_job("q", job_id)
        assert (done["name"], done["data"], done["opts"] | opts) == (
            *(template["name"], template["data"]),
            done["opts"],
        )
        assert "repeat" not in done["opts"]
    assert everything_but(client, queue, *map(Q, ids)) == before
    assert bullmq.queue("q", "removeJobScheduler", "s") is True
    assert bullmq.counts("q")["delayed"] == 0


def everything_but(client: Client, *keys: str) -> dict[str, Any]:
    """All other keys, but for the counter of ids and the events."""
    found = {}
    for key in sorted(set(client.call("KEYS", "*")) - {*keys, Q("id"), Q("events")}):
        if client.call("TYPE", key) == "hash":
            found[key] = client.call("HGETALL", key)
        elif client.call("TYPE", key) == "zset":
            found[key] = client.call("ZRANGE", key, 0, -1, "WITHSCORES")
        else:
            found[key] = client.call("LRANGE", key, 0, -1)
    return found


def test_what_a_running_scheduler_did_last(bullmq: NodeBull, client: Client) -> None:
    bullmq.queue("q", "upsertJobScheduler", "tick", {"every": 200}, {"name": "t"})
    worker = bullmq.start_worker("q")
    wait_until(lambda: len(runs(client, "q")) >= 4, "two runs")
    bullmq.close_worker(worker)
    found = show_schedule(client, "bull", "q", "tick")
    started = max(row["at"] for row in runs(client, "q") if row["ev"] == "start")
    assert found.last_run_at is not None
    assert abs(found.last_run_at.timestamp() * 1000 - started) < 150
    (row,) = bullmq.queue("q", "getJobSchedulers")
    assert found.iterations == row["iterationCount"] > 1
    # Nobody takes the next one, and its time passes.
    ids = client.call("ZRANGE", Q("delayed"), 0, -1)
    assert found.pending_id in [*ids, *client.call("LRANGE", Q("wait"), 0, -1)]
    client.call("DEL", Q(found.pending_id))
    assert show_schedule(client, "bull", "q", "tick").state == "dead"


def test_repeatables_of_bullmq_5(node_bull: Callable[..., NodeBull], client: Client) -> None:
    bull = node_bull(5)
    bull.add("q", {"x": 1}, job="old", repeat={"every": HOUR_MS})
    bull.add("q", {"x": 2}, job="cron", attempts=4, repeat={"pattern": "0 3 * * *", "tz": "UTC"})
    ours = {schedule.name: schedule for schedule in listed(client).values()}
    theirs = {row["name"]: row for row in bull.queue("q", "getRepeatableJobs")}
    assert set(ours) == set(theirs) == {"old", "cron"}
    for name, row in theirs.items():
        found = ours[name]
        assert (found.id, found.kind, found.state) == (row["key"], "legacy", "ok")
        assert found.next_at is not None
        assert round(found.next_at.timestamp() * 1000) == row["next"]
    assert (ours["cron"].data, ours["cron"].pattern, ours["cron"].tz) == (
        {"x": 2},
        "0 3 * * *",
        "UTC",
    )
    run_now = run_schedule(client, "bull", "q", ours["cron"].id)
    assert run_now.id is not None
    assert json.loads(client.call("HGET", Q(run_now.id), "opts")) == {"attempts": 4}
    for schedule in ours.values():
        assert remove_schedule(client, "bull", "q", schedule.id).removed
    assert bull.queue("q", "getRepeatableJobs") == []
    assert bull.counts("q")["delayed"] == 0
