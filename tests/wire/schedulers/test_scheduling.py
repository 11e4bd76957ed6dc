"""Job schedulers (wire format 6); compared with BullMQ itself in tests/interop."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import FailedError, RefusedError, UsageError
from qctl.wire import scripts
from qctl.wire.options import Dedup, JobOptions, Parent
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.scheduling import (
    Schedule,
    Scheduler,
    next_iteration_call,
    upsert_call,
    upserted_id,
)
from tests.labs.build import Q, events, exponents, job, put, row, scores

NOW = 1_700_000_000_000
MINUTE = 60_000
# 2023-11-14 22:13:20 UTC; the next full hour.
HOUR = 1_700_002_800_000


def upsert(
    client: Client,
    schedule: Schedule,
    *,
    sid: str = "s",
    now: int = NOW,
    name: str | None = None,
    data: Any = None,
    **options: Any,
) -> str:
    call = upsert_call(Q, sid, schedule, name, data, JobOptions(**options), now)
    return upserted_id(sid, scripts.run(client, call.name, call.keys, call.args))


def fetch(client: Client, job_id: str, now: int) -> str | None:
    """A worker takes the job into active and makes the next one; its id, None if not asked for."""
    for place in ("delayed", "prioritized"):
        client.call("ZREM", Q(place), job_id)
    client.call("LREM", Q("wait"), 0, job_id)
    client.call("LPUSH", Q("active"), job_id)
    call = next_iteration_call(Q, job_id, job(client, job_id), now)
    if call is None:
        return None
    found: str = scripts.run(client, call.name, call.keys, call.args)
    return found


def slot(client: Client, sid: str = "s") -> int:
    return int(float(client.call("ZSCORE", Q("repeat"), sid)))


def listed(client: Client) -> list[Scheduler]:
    named = client.call(*scheduling.list_command(Q))
    return scheduling.parse_schedulers(named, client.pipeline(scheduling.record_commands(Q, named)))


# Upsert


def test_every(store: Client) -> None:
    job_id = upsert(store, Schedule(every=60, limit=5), name="tick", data={"a": 1}, attempts=3)
    assert job_id == f"repeat:s:{NOW}"
    assert row(store, "wait") == [job_id]
    assert job(store, "repeat:s") == {
        "name": "tick",
        "every": "60000",
        "limit": "5",
        "offset": str(NOW % MINUTE),
        "ic": "1",
        "data": '{"a":1}',
        "opts": '{"attempts":3}',
    }
    fields = job(store, job_id)
    assert (fields["rjk"], fields["delay"], fields["data"]) == ("s", "0", '{"a":1}')
    assert json.loads(fields["opts"]) == {
        "attempts": 3,
        "repeat": {"every": 60_000, "limit": 5, "count": 1},
        "repeatJobKey": "s",
        "jobId": job_id,
        "delay": 0,
        "timestamp": NOW,
    }
    assert [event["event"] for event in events(store)] == ["added", "waiting"]
    assert store.call("GET", Q("id")) == "1"
    assert exponents(store) == []


def test_cron(store: Client) -> None:
    job_id = upsert(store, Schedule(cron="0 * * * *", tz="UTC"))
    assert job_id == f"repeat:s:{HOUR}"
    assert scores(store, "delayed") == {job_id: str(HOUR * 4096)}
    opts = json.loads(job(store, job_id)["opts"])
    assert opts["prevMillis"] == HOUR
    assert "attempts" not in opts
    assert job(store, "repeat:s")["offset"] == "0"
    assert "data" not in job(store, "repeat:s")
    assert upsert(store, Schedule(cron="0 * * * *", immediately=True), sid="t") == f"repeat:t:{NOW}"


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        (Schedule(every=60), NOW),
        (Schedule(every=timedelta(minutes=1), offset=7), 1_700_000_047_000),
        (Schedule(every=60, start=NOW + 5), NOW + 5),
        (Schedule(every=60, start=NOW - 5), NOW),
        (Schedule(cron="0 0 * * *", tz="UTC", start=datetime(2030, 1, 1, 5, tzinfo=UTC)),
         1_893_542_400_000),
    ],
)  # fmt: skip
def test_the_first_time(store: Client, schedule: Schedule, first: int) -> None:
    upsert(store, schedule)
    assert slot(store) == first


def test_a_change_replaces_the_pending_job(store: Client) -> None:
    first = upsert(store, Schedule(every=60, start=NOW + 5000))
    # The same interval keeps its time, whatever else is new.
    again = upsert(store, Schedule(every=60), now=NOW + 1000, data={"n": 2}, priority=4)
    assert again == first
    assert job(store, again)["data"] == '{"n":2}'
    assert job(store, again)["delay"] == "4000"
    assert list(scores(store, "delayed")) == [again]
    other = upsert(store, Schedule(every=30), now=NOW + 2000)
    assert other == f"repeat:s:{NOW + 2000}"
    assert row(store, "wait") == [other]
    assert store.call("EXISTS", Q(first)) == 0
    assert store.call("ZCARD", Q("delayed")) == 0


def test_the_phase_is_kept_with_a_replaced_job_and_new_without(store: Client) -> None:
    upsert(store, Schedule(every=60, start=NOW + 5000))
    upsert(store, Schedule(every=45), now=NOW + 1000)
    assert job(store, "repeat:s")["offset"] == str((NOW + 5000) % MINUTE)
    store.call("RPOPLPUSH", Q("wait"), Q("active"))
    upsert(store, Schedule(every=30), now=NOW + 2000)
    assert job(store, "repeat:s")["offset"] == str((NOW + 2000) % 30_000)


@pytest.mark.parametrize("place", ["wait", "paused"])
def test_a_paused_queue_does_not_get_a_second_one(store: Client, place: str) -> None:
    first = upsert(store, Schedule(every=60))
    store.call("HSET", Q("meta"), "paused", 1)
    if place == "paused":
        store.call("RENAME", Q("wait"), Q("paused"))
    again = upsert(store, Schedule(every=60), now=NOW + 1000)
    assert again == first
    assert row(store, "wait") + row(store, "paused") == [first]


def test_a_running_job_is_left_alone(store: Client) -> None:
    first = upsert(store, Schedule(every=60))
    store.call("RPOPLPUSH", Q("wait"), Q("active"))
    second = upsert(store, Schedule(every=60), now=NOW + 1000)
    assert second == f"repeat:s:{NOW + MINUTE}"
    assert row(store, "active") == [first]
    hourly = upsert(store, Schedule(cron="0 * * * *", tz="UTC"), sid="c")
    store.call("ZREM", Q("delayed"), hourly)
    following = upsert(store, Schedule(cron="0 * * * *", tz="UTC"), sid="c", now=NOW + 1000)
    assert int(following.split(":")[2]) == int(hourly.split(":")[2]) + 60 * MINUTE
    store.call("ZREM", Q("delayed"), following)
    with pytest.raises(RefusedError, match="not changed"):
        upsert(store, Schedule(cron="0 * * * *", tz="UTC"), sid="c", now=NOW + 1000)


def test_taken_times_are_passed_over(store: Client) -> None:
    for n in range(3):
        put(store, f"repeat:s:{NOW + n * MINUTE}", "completed")
    assert upsert(store, Schedule(every=60)) == f"repeat:s:{NOW + 3 * MINUTE}"
    for n in range(40):
        put(store, f"repeat:t:{NOW + n * MINUTE}", "completed")
    with pytest.raises(FailedError, match="not changed"):
        upsert(store, Schedule(every=60), sid="t")
    assert store.call("ZSCORE", Q("repeat"), "t") is None


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (Schedule(), {}),
        (Schedule(cron="* * * * *", every=5), {}),
        (Schedule(every=0), {}),
        (Schedule(every=5, tz="UTC"), {}),
        (Schedule(every=5, immediately=True, start=5), {}),
        (Schedule(every=5, limit=0), {}),
        (Schedule(every=5, end=NOW), {}),
        (Schedule(cron="0 0 1 1 *", end=NOW + 5), {}),
        (Schedule(cron="nonsense"), {}),
        (Schedule(cron="* * * * *", tz="Mars/Olympus"), {}),
        (Schedule(every=5), {"delay": 5}),
        (Schedule(every=5), {"job_id": "x"}),
        (Schedule(every=5), {"dedup": Dedup("x")}),
        (Schedule(every=5), {"parent": Parent("p", "q")}),
    ],
)
def test_schedules_that_cannot_be(schedule: Schedule, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        upsert_call(Q, "s", schedule, None, None, JobOptions(**options), NOW)


@pytest.mark.parametrize("sid", ["", "name::::* * * * *", "a:b::c:5000"])
def test_ids_that_cannot_be(sid: str) -> None:
    with pytest.raises(UsageError):
        upsert_call(Q, sid, Schedule(every=5), None, None, JobOptions(), NOW)


# The next iteration


def test_the_worker_that_fetches_it_makes_the_next(store: Client) -> None:
    first = upsert(store, Schedule(every=60), name="tick", data={"a": 1}, priority=2)
    second = fetch(store, first, NOW + 10)
    assert second == f"repeat:s:{NOW + MINUTE}"
    fields = job(store, second)
    assert (fields["name"], fields["data"], fields["priority"]) == ("tick", '{"a":1}', "2")
    assert fields["delay"] == str(MINUTE - 10)
    opts = json.loads(fields["opts"])
    assert opts["repeat"] == {"every": MINUTE, "count": 2}
    assert (opts["attempts"], opts["jobId"], opts["repeatJobKey"]) == (0, second, "s")
    assert job(store, "repeat:s")["ic"] == "2"
    assert slot(store) == NOW + MINUTE


def test_an_older_iteration_makes_none(store: Client) -> None:
    first = upsert(store, Schedule(every=60))
    second = fetch(store, first, NOW + 10)
    count = len(events(store))
    assert fetch(store, first, NOW + 20) == ""
    assert len(events(store)) == count
    assert list(scores(store, "delayed")) == [second]


def test_missed_runs_are_skipped(store: Client) -> None:
    first = upsert(store, Schedule(every=60))
    # Due this very moment is not missed.
    second = fetch(store, first, NOW + MINUTE)
    assert second == f"repeat:s:{NOW + MINUTE}"
    late = NOW + 10 * MINUTE + 1
    assert fetch(store, second, late) == f"repeat:s:{NOW + 11 * MINUTE}"


def test_a_pattern_goes_on_from_its_own_time(store: Client) -> None:
    first = upsert(store, Schedule(cron="0 * * * *", tz="UTC", end=HOUR + 3_600_000))
    # A clock that lags must not make the same one again.
    second = fetch(store, first, HOUR - 500)
    assert second == f"repeat:s:{HOUR + 3_600_000}"
    assert json.loads(job(store, second)["opts"])["prevMillis"] == HOUR + 3_600_000
    assert fetch(store, second, HOUR + 3_600_000) is None
    assert slot(store) == HOUR + 3_600_000


def test_the_limit_ends_it(store: Client) -> None:
    first = upsert(store, Schedule(every=60, limit=2))
    second = fetch(store, first, NOW)
    assert second
    assert fetch(store, second, NOW + MINUTE) is None
    assert job(store, "repeat:s")["ic"] == "2"


def test_what_was_changed_counts_from_the_next_on(store: Client) -> None:
    first = upsert(store, Schedule(every=60))
    store.call("HSET", Q("repeat:s"), "every", 5000, "data", '{"new":1}')
    second = fetch(store, first, NOW)
    assert second == f"repeat:s:{NOW + 5000}"
    assert job(store, second)["data"] == '{"new":1}'


def test_a_removed_scheduler_makes_none(store: Client) -> None:
    first = upsert(store, Schedule(every=60))
    store.call("ZREM", Q("repeat"), "s")
    assert fetch(store, first, NOW) == ""


def test_a_taken_time_is_told(store: Client) -> None:
    first = upsert(store, Schedule(every=60))
    put(store, f"repeat:s:{NOW + MINUTE}", "completed")
    assert fetch(store, first, NOW) == ""
    assert events(store)[-1] == {"event": "duplicated", "jobId": f"repeat:s:{NOW + MINUTE}"}
    assert slot(store) == NOW


def test_a_repeatable_of_old_versions_keeps_its_data(store: Client) -> None:
    key = "a" * 32
    store.call("HSET", Q(f"repeat:{key}"), "name", "old", "every", MINUTE)
    store.call("ZADD", Q("repeat"), NOW, key)
    opts = json.dumps({"repeat": {"every": MINUTE, "count": 4}, "backoff": 500})
    first = put(store, f"repeat:{key}:{NOW}", rjk=key, data='{"a":1}', opts=opts)
    second = fetch(store, first, NOW)
    third = fetch(store, second or "", NOW + MINUTE)
    assert third == f"repeat:{key}:{NOW + 2 * MINUTE}"
    assert job(store, third)["data"] == '{"a":1}'
    assert json.loads(job(store, third)["opts"])["backoff"] == {"type": "fixed", "delay": 500}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rjk": "s", "opts": "nonsense"},
        {"rjk": "s", "opts": "{}"},
        {"rjk": "n::::* * * * *", "opts": '{"repeat":{"pattern":"* * * * *"}}'},
    ],
)
def test_jobs_that_have_no_next(fields: dict[str, str]) -> None:
    assert next_iteration_call(Q, "x", fields, NOW) is None


# Remove and list


def test_remove(store: Client) -> None:
    job_id = upsert(store, Schedule(every=60, start=NOW + 5000))
    call = scheduling.remove_call(Q, "s")
    assert scripts.run(store, call.name, call.keys, call.args) == 1
    assert scripts.run(store, call.name, call.keys, call.args) == 0
    assert events(store)[-1] == {"event": "removed", "jobId": job_id, "prev": "delayed"}
    left = {Q("events"), Q("id"), Q("marker"), Q("meta")}
    assert set(store.call("KEYS", "*")) == left


def test_an_iteration_that_waits_already_runs(store: Client) -> None:
    job_id = upsert(store, Schedule(every=60))
    call = scheduling.remove_call(Q, "s")
    assert scripts.run(store, call.name, call.keys, call.args) == 1
    assert row(store, "wait") == [job_id]


def test_list(store: Client) -> None:
    assert listed(store) == []
    upsert(store, Schedule(every=60, start=NOW + 1_000_000_000, limit=3), sid="late", keep_logs=3)
    upsert(store, Schedule(cron="0 * * * *", tz="UTC"), data={"x": 1}, name="hourly")
    store.call("ZADD", Q("repeat"), 5, "no-record")
    first, second = listed(store)
    assert first == Scheduler(
        id="s", name="hourly", next_ms=HOUR, iterations=1, cron="0 * * * *", every_ms=None,
        tz="UTC", offset_ms=0, limit=None, start_ms=None, end_ms=None, data={"x": 1}, opts={},
    )  # fmt: skip
    assert (second.id, second.every_ms, second.limit) == ("late", MINUTE, 3)
    assert second.start_ms == NOW + 1_000_000_000
    assert second.opts == {"kl": 3}
