"""What the event stream tells about the jobs of a drain."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from qctl.ops.drain.ledger import Ledger
from qctl.wire.events import Event
from qctl.wire.read.active import ActiveJob
from tests.labs.build import Q
from tests.labs.drain_in_process import results

RESULTS = {
    *("completed", "failed", "retried", "waiting-children", "removed", "recovered"),
    *("interrupted", "running", "orphaned", "unknown", "lost"),
}


def active(job_id: str, *, lock: str | None = "t", ttl_ms: int = 30_000) -> ActiveJob:
    return ActiveJob(Q, job_id, "job", 0, None, 0, None, lock, ttl_ms if lock else None)


def event(at_ms: int, name: str, job_id: str, **fields: str) -> tuple[object, Event]:
    return Q, Event(f"{at_ms}-0", name, {"jobId": job_id, **fields})


def ledger(*jobs: ActiveJob, backlog: int = 0, at_ms: int = 1000) -> Ledger:
    begun = Ledger()
    begun.begin(jobs, backlog=backlog, at_ms=at_ms)
    return begun


def test_each_end_of_a_run_has_its_name() -> None:
    told = ledger(*map(active, "abcdefg"))
    told.follow(
        [
            event(1001, "completed", "a", prev="active", returnvalue="null"),
            event(1002, "failed", "b", prev="active", failedReason="x"),
            event(1003, "delayed", "c", delay="99"),
            event(1004, "waiting", "d", prev="active"),
            event(1005, "waiting-children", "e", prev="active"),
            event(1006, "removed", "f", prev="active"),
        ]
    )
    assert results(told) == {
        "a": "completed", "b": "failed", "c": "retried", "d": "retried",
        "e": "waiting-children", "f": "removed", "g": "lost",
    }  # fmt: skip
    assert told.unsettled == [(Q, "g")]
    assert told.active_at_start == 7


def test_only_the_first_end_counts() -> None:
    told = ledger(active("a"))
    told.follow([event(1001, "failed", "a", prev="active"), event(1002, "waiting", "a")])
    told.follow([event(1003, "active", "a", prev="waiting"), event(1004, "completed", "a")])
    assert results(told) == {"a": "failed"}


def test_a_job_that_left_active_before_it_was_listed() -> None:
    told = ledger()
    told.follow([event(1001, "completed", "a", prev="active")])
    assert results(told) == {"a": "completed"}


def test_jobs_that_start_after_the_resume_are_not_this_drains() -> None:
    told = ledger(active("a"))
    told.follow([event(1001, "completed", "a", prev="active")])
    told.note_resumed()
    told.follow([event(2000, "active", "b", prev="waiting")])
    told.follow([event(2001, "completed", "b", prev="active")])
    assert results(told) == {"a": "completed"}


def test_jobs_of_a_later_pause_are_followed_and_were_not_there_at_the_start() -> None:
    told = ledger(active("a"))
    told.follow(
        [
            event(1100, "completed", "a", prev="active", returnvalue="null"),
            # Somebody resumed the queue: b is over before the next pause, c is not.
            event(1200, "active", "b", prev="waiting"),
            event(1250, "completed", "b", prev="active", returnvalue="null"),
            event(1300, "active", "c", prev="waiting"),
        ]
    )
    told.add_jobs([(Q, "c"), (Q, "d")])
    told.begin([active("c"), active("d")], backlog=0, at_ms=1400)
    told.follow([event(1500, "completed", "c", prev="active", returnvalue="null")])
    assert told.active_at_start == 1
    assert results(told) == {"a": "completed", "c": "completed", "d": "lost"}


def test_a_stalled_check_of_a_worker_is_a_recovery() -> None:
    told = ledger(active("a", lock=None))
    told.follow([event(1001, "waiting", "a", prev="active"), event(1001, "stalled", "a")])
    assert results(told) == {"a": "recovered"}
    assert told.recovered == 1


def test_an_interrupted_job_is_counted_as_such_and_as_recovered() -> None:
    told = ledger(active("a"), active("b", lock=None))
    told.note_recovered([(Q, "a"), (Q, "b")])
    told.note_interrupted([(Q, "a")])
    assert results(told) == {"a": "interrupted", "b": "recovered"}
    assert (told.interrupted, told.recovered) == (1, 2)


def test_a_job_that_had_a_lock_and_is_put_back_was_interrupted() -> None:
    told = ledger(active("a"), active("b"), active("c", lock=None))
    told.follow(
        [
            event(1500, "waiting", "b", prev="active"),
            event(1500, "stalled", "b"),
            # Another run of it: its end is not this drain's.
            event(1600, "active", "b"),
        ]
    )
    told.note_recovered([(Q, "a"), (Q, "b"), (Q, "c")])
    assert results(told) == {"a": "interrupted", "b": "interrupted", "c": "recovered"}
    assert (told.interrupted, told.recovered) == (2, 3)


def test_a_run_without_a_lock_ended_when_it_was_last_known_to_go_on() -> None:
    told = ledger(active("a"), active("b"), backlog=1)
    told.note_locks([active("a", ttl_ms=29_000), active("b", ttl_ms=29_000)], 2000)
    # One is renewed between two looks; then both lose their locks, one after the other.
    told.note_locks([active("a", ttl_ms=30_000), active("b", ttl_ms=28_000)], 3000)
    told.note_locks([active("a", ttl_ms=1000), active("b", lock=None)], 31_000)
    assert told.idle_s(31_000) == 0
    told.note_locks([active("a", lock=None), active("b", lock=None)], 33_000)
    assert told.idle_s(34_000) == 32


def test_a_stalled_check_says_too_late_that_a_run_has_ended() -> None:
    told = ledger(active("a"), backlog=1)
    told.follow([event(31_000, "waiting", "a", prev="active"), event(31_000, "stalled", "a")])
    assert told.idle_s(32_000) == 31


def test_a_job_that_is_killed_ran_until_then() -> None:
    told = ledger(active("a"), backlog=1)
    told.note_running([(Q, "a")], 4000)
    told.note_recovered([(Q, "a")])
    assert told.idle_s(5500) == 1.5


def test_when_a_run_ended_that_was_found_dead_after_the_resume_is_unknown() -> None:
    told = ledger(active("a"), backlog=1)
    told.note_resumed()
    told.note_recovered([(Q, "a")])
    assert (told.interrupted, told.idle_s(5500)) == (1, None)


def test_what_the_stream_does_not_say_is_settled_by_the_state() -> None:
    told = ledger(active("a"))
    told.settle((Q, "a"), "running")
    assert results(told) == {"a": "running"}
    assert told.unsettled == []


def test_a_lost_job_is_lost_whatever_came_before() -> None:
    told = ledger(active("a"), active("b"))
    told.note_recovered([(Q, "a")])
    told.note_lost((Q, "a"), "waiting")
    told.note_lost((Q, "c"), "delayed")
    told.follow([event(1001, "completed", "b", prev="active")])
    assert results(told) == {"a": "lost", "b": "completed", "c": "lost"}
    assert [job.was for job in told.outcomes()] == ["waiting", "active", "delayed"]
    assert told.active_at_start == 2
    assert told.lost_of(Q) == 2


def test_jobs_that_start_after_a_resume_by_others_were_not_active_at_the_pause() -> None:
    told = ledger(active("a"))
    told.follow([event(1001, "active", "b"), event(1002, "completed", "b", prev="active")])
    told.follow([event(1003, "completed", "c", prev="active")])
    assert results(told) == {"a": "lost", "c": "completed"}


def test_what_events_do_not_say_is_not_measured() -> None:
    told = ledger(backlog=1)
    told.note_missed_events()
    assert told.idle_s(2500) is None


def test_idle_is_the_time_without_a_run_while_jobs_wait() -> None:
    told = ledger(active("a"), backlog=2)
    told.follow([event(3000, "completed", "a", prev="active")])
    told.note_resumed()
    told.follow([event(3700, "active", "b")])
    assert told.idle_s(9000) == 0.7


def test_nothing_waits_so_nothing_is_idle() -> None:
    told = ledger(active("a"))
    told.follow([event(3000, "completed", "a", prev="active")])
    assert told.idle_s(9000) == 0
    told.follow([event(8000, "waiting", "b")])
    assert told.idle_s(9000) == 1


def test_idle_from_the_pause_on_when_nothing_runs() -> None:
    told = ledger(active("orphan", lock=None), backlog=1)
    assert told.idle_s(2500) == 1.5


def test_the_longest_of_several_spans() -> None:
    told = ledger(active("a"), backlog=3)
    told.follow([event(2000, "completed", "a", prev="active"), event(2900, "active", "b")])
    told.follow([event(3000, "completed", "b", prev="active"), event(3100, "active", "c")])
    assert told.idle_s(3200) == 0.9


IDS = st.sampled_from("abcd")
HAPPENINGS = st.tuples(
    st.sampled_from(
        [
            *("active", "waiting", "delayed", "completed", "failed", "removed", "stalled"),
            *("waiting-children", "resumed", "interrupt", "recover", "settle", "progress"),
        ]
    ),
    IDS,
    st.booleans(),
    st.integers(0, 500),
)


@given(
    st.dictionaries(IDS, st.booleans(), max_size=4),
    st.integers(0, 2),
    st.lists(HAPPENINGS, max_size=30),
)
def test_the_counts_agree_whatever_happens(
    jobs: dict[str, bool], backlog: int, happenings: list[tuple[str, str, bool, int]]
) -> None:
    told = ledger(*(active(i, lock="t" if has else None) for i, has in jobs.items()),
                  backlog=backlog)  # fmt: skip
    now = 1000
    for name, job_id, left_active, later in happenings:
        now += later
        if name == "resumed":
            told.note_resumed()
        elif name == "interrupt":
            told.note_interrupted(job for job in [(Q, job_id)] if job in told.unsettled)
        elif name == "recover":
            told.note_recovered(job for job in [(Q, job_id)] if job in told.unsettled)
        elif name == "settle":
            for job in told.unsettled:
                told.settle(job, "running")
        else:
            told.follow([event(now, name, job_id, **({"prev": "active"} if left_active else {}))])
    rows = told.outcomes()
    counts = Counter(row.result for row in rows)
    assert set(counts) <= RESULTS
    # Each job once, and no job of the start has dropped out.
    assert len({(row.queue, row.id) for row in rows}) == len(rows) == told.active_at_start
    assert set(jobs) <= {row.id for row in rows}
    assert counts["interrupted"] == told.interrupted
    assert counts["recovered"] <= told.recovered <= len(rows)
    assert counts["lost"] == len([j for j in told.unsettled if results(told)[j[1]] == "lost"])
    assert 0 <= (told.idle_s(now) or 0) <= (now - 1000) / 1000


def test_a_job_of_any_queue_means_that_there_is_work() -> None:
    told = ledger(backlog=3, at_ms=1000)
    told.begin([active("1")], backlog=0, at_ms=1010)
    told.follow([event(3000, "completed", "1", prev="active")])
    assert told.idle_s(3500) == 0.5


def test_the_backlog_of_the_first_queue_counts_from_there() -> None:
    told = ledger(backlog=1, at_ms=1000)
    told.begin([], backlog=1, at_ms=1500)
    assert told.idle_s(2000) == 1.0


def test_nothing_is_idle_after_the_resume() -> None:
    told = ledger(backlog=1, at_ms=1000)
    told.note_resumed()
    told.follow([event(1400, "active", "2"), event(1500, "completed", "2", prev="active")])
    assert told.idle_s(9000) == 0.4
