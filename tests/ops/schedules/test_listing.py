"""Schedulers: whether they live, and what removing or running one touches."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.errors import FailedError, NotFoundError, RefusedError
from qctl.ops.schedules.changes import remove_schedule, run_schedule
from qctl.ops.schedules.listing import (
    MAX_SKIPPED,
    Schedule,
    ScheduleDetail,
    list_schedules,
    show_schedule,
)
from qctl.output.schedules import run_line
from qctl.wire import scripts
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.scheduling import Schedule as Rule
from tests.labs.build import Q, events, job, put, row, scores
from tests.labs.clients import Spy
from tests.labs.schedules import MD5_KEY, at, legacy, make, now_ms


def listed(client: Client) -> dict[str, Schedule]:
    return {schedule.id: schedule for schedule in list_schedules(client, Prefixes())[0].schedules}


def one(client: Client, scheduler_id: str = "s") -> ScheduleDetail:
    return show_schedule(client, "bull", "q", scheduler_id)


CRON = Rule(cron="0 3 * * *", tz="Europe/Berlin")
HOURLY = Rule(every=3600, limit=10)


def test_what_a_scheduler_is(client: Client) -> None:
    pending = make(client, "s", CRON, name="report", data={"a": 1}, attempts=3, priority=5)
    found = one(client)
    assert (found.kind, found.name, found.pattern, found.every_ms, found.tz) == (
        *("scheduler", "report", "0 3 * * *"),
        *(None, "Europe/Berlin"),
    )
    assert (found.data, found.opts) == ({"a": 1}, {"attempts": 3, "priority": 5})
    assert (found.state, found.pending_id, found.pending_state) == ("ok", pending, "delayed")
    assert (found.iterations, found.limit, found.last_run_at, found.skipped) == (1, None, None, 0)
    assert found.next_at is not None
    assert found.upcoming_at[0] == found.next_at
    assert len(found.upcoming_at) == 5
    assert {moment.minute for moment in found.upcoming_at} == {0}
    assert all(
        82_000 < (b - a).total_seconds() < 91_000
        for a, b in zip(found.upcoming_at, found.upcoming_at[1:], strict=False)
    )


def test_a_score_that_is_not_a_time_is_not_1970(client: Client) -> None:
    for scheduler_id in ("s", "t"):
        make(client, scheduler_id, HOURLY)
    client.call("ZADD", Q("repeat"), "inf", "s")
    found = one(client)
    assert (found.state, found.next_at, found.skipped, found.upcoming_at) == (
        *("unknown", None, None),
        (),
    )
    assert [*listed(client)] == ["t", "s"]


def test_due_times_end_with_the_limit_or_the_end(client: Client) -> None:
    make(client, "s", Rule(every=60, limit=3))
    at(client, "s", now_ms() + 1000)
    assert len(one(client).upcoming_at) == 3
    end = now_ms() + 150_000
    make(client, "t", Rule(every=60, end=end))
    at(client, "t", now_ms() + 1000)
    assert len(one(client, "t").upcoming_at) == 3


def test_when_it_ran_last(client: Client) -> None:
    first = make(client, "s", HOURLY)
    assert one(client).last_run_at is None
    now = now_ms()
    call = scheduling.next_iteration_call(Q, first, job(client, first), now)
    assert call is not None
    scripts.run(client, call.name, call.keys, call.args)
    found = one(client)
    assert found.iterations == 2
    assert found.last_run_at is not None
    assert round(found.last_run_at.timestamp() * 1000) == now


@pytest.mark.parametrize(
    ("place", "state"),
    [
        ("delayed", "ok"),
        ("wait", "ok"),
        ("paused", "ok"),
        ("prioritized", "ok"),
        ("active", "running"),
        ("completed", "dead"),
        ("failed", "dead"),
        ("", "dead"),
    ],
)
def test_it_lives_in_its_pending_job(client: Client, place: str, state: str) -> None:
    due = now_ms() + 60_000
    client.call("ZADD", Q("repeat"), due, "s")
    client.call("HSET", Q.scheduler("s"), "name", "n", "every", 60_000, "ic", 4)
    pending = put(client, f"repeat:s:{due}", place, opts='{"repeat":{"every":60000,"count":4}}')
    found = one(client)
    assert (found.state, found.pending_id) == (state, pending)
    assert found.pending_state == (
        {"wait": "waiting", "paused": "waiting"}.get(place, place) or None
    )
    assert bool(found.upcoming_at) == (state != "dead")


@pytest.mark.parametrize("hidden", ["hash", "both"])
def test_without_a_pending_job_it_is_dead_unless_it_has_ended(client: Client, hidden: str) -> None:
    minute = (now_ms() // 60_000 + 5) * 60_000
    for name, rule in (
        ("dead", Rule(every=3600)),
        ("limited", Rule(every=3600, limit=1)),
        ("until", Rule(every=3600, end=now_ms() + 5000)),
        ("cron", Rule(cron="0 0 1 1 *", end=now_ms() + 2 * 366 * 86_400_000)),
        ("cron-until", Rule(cron="* * * * *", start=minute - 1, end=minute + 30_000)),
    ):
        pending = make(client, name, rule)
        client.call("DEL", Q(pending))
        if hidden == "both":
            # Not even its id is left.
            client.call("DEL", Q("wait"), Q("delayed"))
    assert {name: found.state for name, found in listed(client).items()} == {
        "dead": "dead", "limited": "ended", "until": "ended", "cron": "dead",
        "cron-until": "ended",
    }  # fmt: skip
    assert {name: found.skipped for name, found in listed(client).items()} == {
        "dead": None, "limited": 0, "until": 0, "cron": None, "cron-until": 0,
    }  # fmt: skip


def test_what_has_passed_meanwhile_is_counted(client: Client) -> None:
    make(client, "every", Rule(every=60))
    make(client, "cron", Rule(cron="* * * * *", tz="UTC"))
    make(client, "often", Rule(every=1))
    due = (now_ms() // 60_000 - 20) * 60_000
    for name in ("every", "cron", "often"):
        at(client, name, due)
    found = listed(client)
    assert {schedule.state for schedule in found.values()} == {"overdue"}
    assert found["every"].skipped in {20, 21}
    assert found["cron"].skipped in {20, 21}
    assert found["often"].skipped == MAX_SKIPPED
    # One that is late by a moment is not yet said to be.
    at(client, "every", now_ms() - 500)
    assert one(client, "every").state == "ok"


def test_a_pattern_that_is_not_understood_here(client: Client) -> None:
    pending = make(client, "s", CRON)
    client.call("HSET", Q.scheduler("s"), "pattern", "0 0 ? * 5#2", "tz", "Mars/Base")
    assert one(client).state == "ok"
    at(client, "s", now_ms() - 60_000)
    found = one(client)
    assert (found.state, found.skipped, len(found.upcoming_at)) == ("overdue", None, 1)
    assert pending != found.pending_id


def test_many_are_read_in_windows(client: Client) -> None:
    for number in range(510):
        make(client, f"s{number}", Rule(every=3600 + number))
    spy = Spy(client)
    found = list_schedules(spy, Prefixes(), ["q"])[0].schedules
    assert {schedule.id for schedule in found} == {f"s{number}" for number in range(510)}
    assert [sent[2:4] for sent in spy.sent if sent[:2] == ("ZRANGE", Q("repeat"))] == [
        (0, 499),
        (500, 999),
    ]


def test_an_entry_without_a_record_and_hostile_ones(client: Client) -> None:
    put(client, "1")
    for member in ("plain", "a:b:c:d", "", "\x1b[2J"):
        client.call("ZADD", Q("repeat"), 5, member)
    client.call(
        "HSET", Q.scheduler("broken"), "ic", "x", "every", "never", "data", "{", "opts", "["
    )
    client.call("ZADD", Q("repeat"), 7, "broken")
    client.call("SET", Q.scheduler("wrong"), "text")
    client.call("ZADD", Q("repeat"), 8, "wrong")
    found = listed(client)
    assert set(found) == {"plain", "a:b:c:d", "", "\x1b[2J", "broken", "wrong"}
    assert {schedule.state for schedule in found.values()} == {"dead"}
    assert (found["plain"].kind, found["broken"].kind) == ("legacy", "scheduler")


# Legacy repeatables


def test_a_repeatable_of_bullmq_5(client: Client) -> None:
    pending = legacy(client, MD5_KEY, name="old", every=7000)
    found = one(client, MD5_KEY)
    assert (found.kind, found.name, found.every_ms, found.iterations) == (
        "legacy",
        "old",
        7000,
        None,
    )
    assert (found.state, found.pending_id) == ("ok", pending)
    assert (found.data, found.opts) == ({"x": 1}, {"attempts": 2})
    removal = remove_schedule(client, "bull", "q", MD5_KEY)
    assert removal.removed
    assert client.call("KEYS", "*repeat*") == []
    assert scores(client, "delayed") == {}


def test_a_repeatable_of_very_old_versions(client: Client) -> None:
    key = "old:::Europe/Berlin:0 3 * * *"
    inner = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    hashed = hashlib.md5(f"old{inner}".encode(), usedforsecurity=False).hexdigest()
    pending = legacy(client, key, iteration=hashed)
    found = one(client, key)
    assert (found.kind, found.name, found.pending_id, found.state) == (
        "legacy",
        "old",
        pending,
        "ok",
    )
    assert found.tz == "Europe/Berlin"
    run = run_schedule(client, "bull", "q", key)
    assert run.id is not None
    assert (job(client, run.id)["data"], job(client, run.id)["name"]) == ('{"x":1}', "old")
    assert remove_schedule(client, "bull", "q", key).removed
    assert scores(client, "delayed") == {}
    # Its jobs' ids can only be guessed, so that none was found does not mean that there is none.
    client.call("ZADD", Q("repeat"), now_ms(), key)
    assert one(client, key).state == "unknown"


def test_a_repeatable_without_its_job_has_nothing_to_run(client: Client) -> None:
    client.call("DEL", Q(legacy(client, MD5_KEY, name="old", every=7000)))
    with pytest.raises(FailedError) as caught:
        run_schedule(client, "bull", "q", MD5_KEY)
    assert caught.value.hint == f"qctl schedules remove q {MD5_KEY}"


# Changes


def test_a_scheduler_is_removed_with_its_delayed_job(client: Client) -> None:
    pending = make(client, "s", CRON)
    dry = remove_schedule(client, "bull", "q", "s", dry_run=True)
    assert (dry.removed, dry.dry_run, dry.schedule.pending_id) == (False, True, pending)
    assert one(client).state == "ok"
    done = remove_schedule(client, "bull", "q", "s")
    assert (done.removed, done.job_left) == (True, None)
    assert events(client)[-1] == {"event": "removed", "jobId": pending, "prev": "delayed"}
    with pytest.raises(NotFoundError):
        remove_schedule(client, "bull", "q", "s")


def test_a_job_that_waits_already_is_left_and_named(client: Client) -> None:
    pending = make(client, "s", HOURLY)
    assert row(client, "wait") == [pending]
    assert remove_schedule(client, "bull", "q", "s").job_left == pending
    assert row(client, "wait") == [pending]


def test_a_job_that_a_worker_takes_meanwhile_is_named(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = make(client, "s", CRON)

    really = scripts.run

    def taken_first(client: Client, *call: Any) -> Any:
        client.call("ZREM", Q("delayed"), pending)
        client.call("LPUSH", Q("active"), pending)
        return really(client, *call)

    monkeypatch.setattr(scripts, "run", taken_first)
    assert remove_schedule(client, "bull", "q", "s").job_left == pending


def test_an_id_that_does_not_exist_names_the_nearest(client: Client) -> None:
    make(client, "nightly", CRON)
    with pytest.raises(NotFoundError) as caught:
        one(client, "nigthly")
    assert "'nightly'" in caught.value.why
    with pytest.raises(NotFoundError):
        show_schedule(client, "bull", "nope", "nightly")


def test_a_run_now_touches_nothing_of_the_schedule(client: Client) -> None:
    options: dict[str, Any] = {
        "attempts": 3, "backoff": "exponential:1s", "priority": 5, "remove_on_complete": 10,
    }  # fmt: skip
    pending = make(client, "s", CRON, name="report", data={"a": [1, "ä"]}, **options)
    before = {
        name: client.call(*command)
        for name, command in {
            "repeat": ("ZRANGE", Q("repeat"), 0, -1, "WITHSCORES"),
            "record": ("HGETALL", Q.scheduler("s")),
            "pending": ("HGETALL", Q(pending)),
            "delayed": ("ZRANGE", Q("delayed"), 0, -1, "WITHSCORES"),
        }.items()
    }
    dry = run_schedule(client, "bull", "q", "s", dry_run=True)
    assert (dry.id, dry.dry_run, dry.name, dry.data) == (None, True, "report", {"a": [1, "ä"]})
    assert scores(client, "prioritized") == {}
    run = run_schedule(client, "bull", "q", "s")
    assert run.id is not None
    assert list(scores(client, "prioritized")) == [run.id]
    added = job(client, run.id)
    assert (added["name"], added["data"], added["delay"]) == ("report", '{"a":[1,"ä"]}', "0")
    assert "rjk" not in added
    assert json.loads(added["opts"]) == {
        "attempts": 3, "backoff": {"type": "exponential", "delay": 1000}, "priority": 5,
        "removeOnComplete": 10,
    }  # fmt: skip
    assert before == {
        "repeat": client.call("ZRANGE", Q("repeat"), 0, -1, "WITHSCORES"),
        "record": client.call("HGETALL", Q.scheduler("s")),
        "pending": client.call("HGETALL", Q(pending)),
        "delayed": client.call("ZRANGE", Q("delayed"), 0, -1, "WITHSCORES"),
    }


def test_a_dead_scheduler_can_still_be_run(client: Client) -> None:
    client.call("DEL", Q(make(client, "s", CRON, data=[1], attempts=2)))
    run = run_schedule(client, "bull", "q", "s")
    assert (run.name, run.data, run.opts) == ("s", [1], {"attempts": 2})
    assert run_line(run).endswith("scheduler s stays dead")


def test_queues_of_bull_are_shown_and_not_changed(client: Client) -> None:
    client.call("SET", Q("id"), 1)
    client.call("ZADD", Q("repeat"), now_ms(), "old::::5000")
    assert [schedule.every_ms for schedule in listed(client).values()] == [5000]
    for change in (remove_schedule, run_schedule):
        with pytest.raises(RefusedError):
            change(client, "bull", "q", "old::::5000")
