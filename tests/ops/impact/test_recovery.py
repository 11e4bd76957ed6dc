"""When interrupted jobs run again: the range against a simulation of the stalled check."""

from __future__ import annotations

import random

import pytest

from qctl.ops.impact.recovery import DELAY_S, Recovery, recovery_of
from qctl.wire.read.active import ActiveJob
from qctl.wire.read.stalled_check import StalledClock
from tests.labs.build import Q

NOW = 1_700_000_000_000


def active(ttl_ms: int | None, ran_ms: int = 60_000) -> ActiveJob:
    return ActiveJob(Q, "1", "job", NOW - ran_ms, None, 0, None, "t", ttl_ms)


def clock(next_in_ms: int, interval_ms: int | None = 30_000, *marked: str) -> StalledClock:
    checked = None if interval_ms is None else NOW - interval_ms + next_in_ms
    return StalledClock(Q, checked, next_in_ms, frozenset(marked))


def ask(job: ActiveJob, of: StalledClock, by: str = "restarted", lone: bool = True) -> Recovery:
    return recovery_of(
        [job],
        of,
        by=by,
        is_lone=lone,
        exits_within_s=1.6,
        boot_s=(0.3, 2.0),
        now_ms=NOW,
        prefix="bull",
    )


# What was measured under PM2 with BullMQ's defaults.
@pytest.mark.parametrize("next_in_ms", [6_000, 12_000, 20_000, 29_000])
def test_the_usual_minute_and_the_lost_check(next_in_ms: int) -> None:
    told = ask(active(25_000), clock(next_in_ms))
    assert told.min_s <= 60.5
    assert told.max_s >= 92.0
    # It is no empty promise either.
    assert told.min_s >= 30.0
    assert told.max_s <= 95.0


def test_half_a_minute_takes_a_check_that_is_about_to_be_due() -> None:
    assert ask(active(20_000), clock(0, None)).min_s <= 30.5
    assert ask(active(20_000), clock(400, 30_000)).min_s <= 30.5


def test_a_job_that_is_marked_already_may_be_back_one_check_sooner() -> None:
    unmarked, marked = (ask(active(20_000), clock(20_000, 30_000, *m)) for m in ((), ("1",)))
    assert (marked.min_s, unmarked.min_s) == (30.3, 60.3)


def test_the_locks_tell_how_long_they_last() -> None:
    # Renewed when half is over: 20 s left of a lock may be of one of 30 s.
    assert ask(active(20_000), clock(9000)).lock_ms == 30_000
    # Of one that has run for 0.2 s, all but that is left.
    assert ask(active(1800, ran_ms=200), clock(9000)).lock_ms == 2000
    assert ask(active(1500), clock(9000)).lock_ms == 3000
    assert ask(active(50_000), clock(9000)).lock_ms == 100_000
    # A key without an expiry, or none at all.
    assert ask(active(None), clock(9000)).lock_ms == 30_000


def test_the_clock_tells_how_far_apart_the_checks_are() -> None:
    def told(of: StalledClock) -> tuple[int, bool]:
        answer = ask(active(20_000), of)
        return answer.interval_ms, answer.interval_assumed

    assert told(clock(9000, 30_400)) == (30_000, False)
    assert told(clock(900, 5000)) == (5000, False)
    assert told(clock(0, None)) == (30_000, True)
    # The clock of whoever checked is ahead by an hour.
    assert told(StalledClock(Q, NOW + 3_600_000, 40_000, frozenset())) == (40_000, True)


class World:
    """BullMQ's workers, their stalled checks and one job, as wire format 5.13 and 7.4 have it."""

    def __init__(self, chance: random.Random) -> None:
        self.interval = chance.choice([1000, 5000, 30_000])
        self.lock = chance.choice([2000, 30_000])
        self.others = chance.randrange(3)
        self.key_until = 0
        self.marked = False
        self.lock_until = 0
        self.chance = chance
        # When each living worker checks next.
        self.ticks = [chance.randrange(self.interval) for _ in range(self.others)]
        self.own_tick: int | None = chance.randrange(self.interval)
        self.renew_at = chance.randrange(self.lock // 4)
        # From then on its event loop is too busy to renew a lock, or to check.
        self.busy_at = 1 << 40
        self.is_held = True
        self.is_back = False

    def check(self, at: int) -> bool:
        """Whether it puts the job back."""
        if at < self.key_until:
            return False
        self.key_until = at + self.interval
        if self.marked and at >= self.lock_until:
            return True
        self.marked = True
        return False

    def run(self, begin: int, end: int) -> int | None:
        """Let the time pass; when the job was put back."""
        for at in range(begin, end):
            if self.is_held and self.renew_at <= at < self.busy_at:
                # Those renewed longer than a quarter ago are renewed, every quarter.
                self.renew_at += self.lock // 4
                if at - (self.lock_until - self.lock) >= self.lock // 4:
                    self.lock_until, self.marked = at + self.lock, False
            due = [i for i, tick in enumerate(self.ticks) if tick == at]
            for index in due:
                # Timers are late by a moment, or not.
                self.ticks[index] = at + self.interval + self.chance.randrange(4)
            if self.own_tick == at and not (self.is_held and at >= self.busy_at):
                self.own_tick = at + self.interval + self.chance.randrange(4)
                due.append(-1)
            for _ in due:
                if self.check(at):
                    self.is_back = True
                    return at
        return None


@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_the_range_holds_in_a_simulation(seed: int, is_busy: bool) -> None:
    chance = random.Random(seed)
    world = World(chance)
    world.lock_until = world.lock
    asked = chance.randrange(2 * world.interval, 4 * world.interval)
    if is_busy:
        # It has the lock still, though it may be about to lose it.
        world.busy_at = asked - chance.randrange(world.lock // 2)
    assert world.run(0, asked) is None
    job = ActiveJob(Q, "1", "job", NOW - asked, None, 0, None, "t", world.lock_until - asked)
    left = max(world.key_until - asked, 0)
    checked = NOW - world.interval + left if left else None
    exits_within_s = chance.choice([0, 1.6, 30])
    told = recovery_of(
        [job],
        StalledClock(Q, checked, left, frozenset({"1"} if world.marked else ())),
        by="others" if world.others else "restarted",
        is_lone=not world.others,
        exits_within_s=exits_within_s,
        boot_s=(0.3, 2.0),
        now_ms=NOW,
        prefix="bull",
    )
    killed = told_to = asked + chance.randrange(int(DELAY_S * 1000))
    assert world.run(asked, told_to) is None or is_busy
    if exits_within_s:
        # It goes on with its jobs, and with its checks or not.
        killed += chance.randrange(int(exits_within_s * 1000))
        world.own_tick = world.own_tick if chance.random() < 0.5 else None
        assert world.run(told_to, killed) is None or is_busy
    if world.is_back or (is_busy and told.interval_assumed and world.interval != 30_000):
        # Its lock ran out before: then the restart interrupts nothing. Or none checked for so long
        # that their interval is unknown, as it says.
        return
    # Its process ends; a new one checks when it has started.
    world.is_held, world.own_tick = False, killed + chance.randrange(300, 2000)
    back = world.run(killed, killed + 400_000)
    assert back is not None
    assert told.min_s * 1000 - 100 <= back - killed <= told.max_s * 1000 + 100, told
