"""Drain and restart under load: nothing is lost, nothing runs twice, whatever the app is like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.labs.drains import Lab, is_alive
from tests.labs.node import runs


@dataclass(frozen=True)
class Case:
    """An app and the jobs it gets."""

    version: int
    concurrency: int = 1
    instances: int = 1
    cluster: bool = False
    mix: bool = False
    scheduler: bool = False
    env: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def longest_gap_s(rows: list[dict[str, Any]]) -> float:
    """The longest time between two runs, as the workers wrote them down."""
    running, ended_at, longest = 0, None, 0
    for row in sorted(rows, key=lambda row: row["at"]):
        if row["ev"] != "start":
            running, ended_at = running - 1, row["at"]
            continue
        if not running and ended_at is not None:
            longest = max(longest, row["at"] - ended_at)
        running += 1
    return longest / 1000


GRACEFUL = {"HANDLE_SIGINT": 1}
# Both lines, both modes, 1 and 3 instances, with a handler and without: each at least twice, but
# not in every combination.
CASES = {
    "v6-fork-graceful-5-mix": Case(
        6, 5, mix=True, scheduler=True, env=GRACEFUL, options={"kill_timeout": 10_000}
    ),
    "v5-fork-5-mix": Case(5, 5, mix=True, scheduler=True, env={"WORKER_NAME": "mixer"}),
    "v6-fork-3": Case(6, 5, instances=3, mix=True),
    "v5-cluster-3-graceful-5-mix": Case(
        5, 5, instances=3, cluster=True, mix=True, env=GRACEFUL
    ),
    "v6-cluster-ready": Case(
        6, 5, cluster=True, mix=True,
        env={"READY": 1, "BOOT_MS": 300}, options={"wait_ready": True, "listen_timeout": 8000},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_drain_under_load_loses_nothing_and_repeats_nothing(lab: Lab, case: Case) -> None:
    lab.app(
        version=case.version,
        concurrency=case.concurrency,
        instances=case.instances,
        cluster=case.cluster,
        options=case.options,
        **case.env,
    )
    before = sorted(row.pid for row in lab.pm2.rows("app"))
    if case.scheduler:
        template = {"name": "tick", "data": {"ms": 30}, "opts": {}}
        lab.bull(case.version).queue("q", "upsertJobScheduler", "tick", {"every": 400}, template)
    producer = lab.producer(version=case.version, EVERY_MS=80, JOB_MS=40, MIX=int(case.mix))
    producer.wait_ids(8)
    held = lab.hold(case.concurrency * case.instances, version=case.version)

    done = lab.drain_held("drain", "q", "--then-restart", "--target", "pm2:app")
    added = [*held, *producer.stop()]

    assert done.code == 0, done.err
    report = done.report
    after = sorted(row.pid for row in lab.pm2.rows("app"))
    assert report["outcome"] == "restarted"
    assert report["queues"] == ["q"]
    assert report["target"] == "pm2:app"
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    ended = report["completed"] + report["failed"] + report["retried"]
    assert ended == report["active_at_start"] == len(report["jobs"])
    assert report["active_at_start"] > 0
    assert sorted(report["old_pids"]) == before
    assert sorted(report["new_pids"]) == after
    assert not any(map(is_alive, before))
    assert report["paused_s"] > 0
    # Jobs were held until it waited, and the new processes had to start.
    assert 0 < report["idle_s"] <= longest_gap_s(runs(lab.client, "q")) + 0.2
    assert report["resumed"] is True
    assert report["error"] is None

    lab.prove(added)
    # The workers tell the same story: the old ones took jobs, and so did the new ones.
    workers = {row["pid"] for row in runs(lab.client, "q")}
    assert workers & set(before)
    assert workers & set(after)
    if case.scheduler:
        assert any(row["name"] == "tick" for row in runs(lab.client, "q"))


def test_the_steps_come_in_their_order_and_the_report_last(lab: Lab) -> None:
    lab.app()
    (first,) = lab.hold()
    (second,) = lab.add(10)
    done = lab.drain_held("drain", "q", "--then-restart", "--target", "pm2:app")
    assert done.code == 0, done.err
    order = list(dict.fromkeys(done.step_names))
    assert order == [
        "plan", "paused", "waiting", "drained", "restarting", "ready", "resumed", "report",
    ]  # fmt: skip
    plan, paused = done.steps[:2]
    assert plan["target"] == "pm2:app"
    assert [job["id"] for job in plan["active"]] == [first]
    assert plan["backlog"] == 1
    assert (paused["queue"], paused["changed"]) == ("q", True)
    assert done.report["jobs"] == [
        {"queue": "q", "id": first, "result": "completed", "was": "active"}
    ]
    lab.prove([first, second])


def test_restart_finds_the_queues_from_the_target(lab: Lab) -> None:
    lab.app(queues="a,b")
    added = [lab.add(400, queue="a"), lab.add(400, 10, queue="b")]
    done = lab.qctl("restart", "pm2:app", "--json", "--yes")
    assert done.code == 0, done.err
    assert done.json["outcome"] == "restarted"
    assert done.json["queues"] == ["a", "b"]
    lab.prove(added[0], "a")
    lab.prove(added[1], "b")


def test_one_process_of_three_by_its_pm_id(lab: Lab) -> None:
    lab.app(instances=3)
    rows = lab.pm2.rows("app")
    added = lab.add(*[300] * 8)
    lab.wait_running(3)
    done = lab.qctl("drain", "q", "--then-restart", "--target", f"pm2:{rows[1].pm_id}", "--json")
    assert done.code == 0, done.err
    assert done.json["old_pids"] == [rows[1].pid]
    now = {row.pm_id: row.pid for row in lab.pm2.rows("app")}
    assert now[rows[0].pm_id] == rows[0].pid
    assert now[rows[2].pm_id] == rows[2].pid
    assert done.json["new_pids"] == [now[rows[1].pm_id]]
    lab.prove(added)


def test_a_failing_and_a_retrying_job_are_told_apart(lab: Lab) -> None:
    lab.app(concurrency=3)
    jobs: list[dict[str, Any]] = [
        {"name": "ok", "data": {"held": True}, "opts": {}},
        {"name": "bad", "data": {"held": True, "fail_times": 9}, "opts": {"attempts": 1}},
        {
            "name": "flaky",
            "data": {"held": True, "fail_times": 1},
            "opts": {"attempts": 3, "backoff": {"type": "fixed", "delay": 100}},
        },
    ]
    ok, bad, flaky = lab.bull().add_bulk("q", jobs)
    lab.wait_started(ok, bad, flaky)
    done = lab.drain_held("drain", "q", "--then-restart", "--target", "pm2:app")
    assert done.code == 0, done.err
    results = {job["id"]: job["result"] for job in done.report["jobs"]}
    assert results == {ok: "completed", bad: "failed", flaky: "retried"}
    lab.prove([ok, flaky])
    assert lab.places(bad) == ["failed"]


def test_a_plain_drain_leaves_the_queue_drained_and_paused(lab: Lab) -> None:
    """BullMQ 5 has a list for it; BullMQ 6: see ``test_keep_paused…`` and test_pause_matrix.py."""
    lab.app(version=5)
    added = [*lab.hold(version=5), *lab.add(10, 10, version=5)]
    done = lab.drain_held("drain", "q")
    assert done.code == 0, done.err
    report = done.report
    assert (report["outcome"], report["resumed"]) == ("drained", False)
    assert (report["old_pids"], report["new_pids"]) == ([], [])
    assert lab.is_paused()
    assert lab.client.call("LLEN", lab.keys()("active")) == 0
    assert lab.traces() == ["qctl:paused:bull:q"]
    status = lab.qctl("status", "q", "--json").json["queues"][0]
    assert status["paused"] is True
    assert "drain" in status["paused_by"]
    # What was drained stays drained, also for the clients' own eyes.
    assert lab.bull(5).queue("q", "isPaused") is True
    assert lab.rows(added[1]) == []
    assert lab.qctl("resume", "q").code == 0
    lab.prove(added)


def test_keep_paused_restarts_and_leaves_the_queue_paused(lab: Lab) -> None:
    lab.app()
    added = lab.add(300, 10)
    done = lab.qctl(
        "drain", "q", "--then-restart", "--target", "pm2:app", "--keep-paused", "--json"
    )
    assert done.code == 0, done.err
    assert (done.json["outcome"], done.json["resumed"]) == ("restarted", False)
    assert lab.is_paused()
    assert lab.qctl("resume", "q").code == 0
    lab.prove(added)


def test_a_dry_run_tells_the_plan_and_writes_nothing(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    before = lab.dump()
    pids = [row.pid for row in lab.pm2.rows("app")]
    told = lab.qctl("drain", "q", "--then-restart", "--target", "pm2:app", "--dry-run")
    data = lab.qctl("drain", "q", "--then-restart", "--target", "pm2:app", "--dry-run", "--json")
    assert lab.dump() == before
    assert (told.code, data.code) == (0, 0)
    assert all(line.endswith("(dry run)") for line in told.out.splitlines())
    assert "pm2:app" in told.out
    (process,) = data.json["processes"]
    assert process["pid"] == pids[0]
    assert process["stop_signal"] == "SIGINT"
    assert process["queues"] == ["q"]
    assert [row.pid for row in lab.pm2.rows("app")] == pids
    lab.release()
    lab.prove(added)
