"""What is scheduled, and what an absence of all workers skips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.impact.best_time import MAX_SLOTS, later_slots
from qctl.ops.impact.schedules import ScheduleImpact, schedule_impacts
from qctl.wire.schedulers.iterations import Agenda, read_agendas
from qctl.wire.schedulers.scheduling import Scheduler
from qctl.wire.states import DELAY_FACTOR
from tests.labs.build import Q, put

NOW = 1_700_000_000_000
MINUTE = 60_000
EVERY = Scheduler(
    id="sync", name="sync", next_ms=NOW + 10_000, iterations=7, cron=None, every_ms=5000, tz=None,
    offset_ms=0, limit=None, start_ms=None, end_ms=None, data={}, opts={},
)  # fmt: skip
CRON = replace(EVERY, id="cron", every_ms=None, cron="*/5 * * * * *", tz="UTC")


def away(scheduler: Scheduler, seconds: float) -> ScheduleImpact:
    agenda = Agenda(Q, (scheduler,), 1, None)
    (told,) = schedule_impacts(
        [agenda], now_ms=NOW, back_ms=NOW + round(seconds * 1000), prefix="bull"
    )
    return told


@pytest.mark.parametrize("scheduler", [EVERY, CRON])
@pytest.mark.parametrize(
    ("seconds", "late_s", "skipped"),
    [(5, None, 0), (10, None, 0), (10.5, 0.5, 0), (15, 5, 0), (26, 16, 3)],
)
def test_one_runs_late_and_the_others_never(
    scheduler: Scheduler, seconds: float, late_s: float | None, skipped: int
) -> None:
    told = away(scheduler, seconds)
    assert (told.runs_late_s, told.skipped) == (late_s, skipped)


def test_as_measured() -> None:
    # Away for 26 s with cron */5 s: one queued iteration late, 4 skipped.
    assert away(replace(CRON, next_ms=NOW + 5000), 26).skipped == 4


def test_nothing_is_skipped_behind_the_end_or_the_limit() -> None:
    assert away(replace(EVERY, end_ms=NOW + 21_000), 60).skipped == 2
    assert away(replace(EVERY, limit=8), 60).skipped == 1
    assert away(replace(EVERY, limit=7), 60).skipped == 0


def test_a_pattern_that_is_not_understood_is_unknown_and_not_none() -> None:
    assert away(replace(CRON, cron="whenever"), 60).skipped is None


def test_one_that_has_ended_is_not_shown() -> None:
    over = replace(EVERY, next_ms=NOW - 1, end_ms=NOW - 1)
    agenda = Agenda(Q, (over,), 1, None)
    assert schedule_impacts([agenda], now_ms=NOW, back_ms=NOW, prefix="bull") == ()


def test_slots_are_bounded() -> None:
    assert len([*later_slots(EVERY, NOW, NOW + 10**12)]) == MAX_SLOTS
    assert [*later_slots(replace(EVERY, every_ms=None), NOW, NOW + MINUTE)] == []


def test_a_score_that_is_not_a_time_is_unknown() -> None:
    unknown = away(replace(EVERY, next_ms=None), 60)
    assert (unknown.next_at, unknown.runs_late_s, unknown.skipped) == (None, None, None)


def test_what_redis_has(client: Client) -> None:
    def scheduler(key: str, score: int, **fields: Any) -> None:
        record = [word for item in fields.items() for word in item]
        client.call("HSET", Q(f"repeat:{key}"), *record)
        client.call("ZADD", Q("repeat"), score, key)

    scheduler("later", NOW + MINUTE, ic=1, name="report", pattern="0 3 * * *", tz="Asia/Tokyo")
    scheduler("sooner", NOW, ic=4, name="sync", every=60_000)
    scheduler("legacy", NOW, name="old")
    put(client, "1", "delayed", score=(NOW + 7000) * DELAY_FACTOR + 3)
    put(client, "2", "delayed", score=(NOW + 9000) * DELAY_FACTOR)
    empty = replace(Q, name="empty")
    told, nothing = read_agendas(client, [Q, empty])
    assert [each.id for each in told.schedulers] == ["sooner", "later"]
    assert (told.total_schedulers, told.next_delayed_ms) == (3, NOW + 7000)
    assert (nothing.schedulers, nothing.next_delayed_ms) == ((), None)
    assert read_agendas(client, []) == []
