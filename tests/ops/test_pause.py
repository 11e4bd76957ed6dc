"""Pause and resume by name."""

from __future__ import annotations

import pytest

from qctl.connect import Client
from qctl.errors import NotFoundError, RefusedError
from qctl.ops.pause import pause_queues, resume_queues
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import parse_holder
from qctl.wire.transitions import hold_lease, pause
from tests.wire.build import Q, holder, is_paused, put, row

OTHER = QueueKeys("bull", "other")


@pytest.fixture
def two(store: Client) -> Client:
    put(store, "1", "active", lock="t")
    put(store, "2", keys=OTHER)
    return store


def test_pause_and_resume(two: Client) -> None:
    first, second = pause_queues(two, "bull", ["q", "other"])
    assert (first.name, first.paused, first.changed, first.active) == ("q", True, True, 1)
    assert (second.name, second.active) == ("other", 0)
    assert is_paused(two)
    assert is_paused(two, OTHER)
    note = parse_holder(two.call("GET", Q.pause_note))
    assert note is not None
    assert note.verb == "pause"
    for result in resume_queues(two, "bull", ["q", "other"]):
        assert (result.paused, result.changed) == (False, True)
    assert not is_paused(two)
    assert two.call("KEYS", "qctl:*") == []


def test_twice_is_as_good_as_once(two: Client) -> None:
    pause_queues(two, "bull", ["q"])
    note = two.call("GET", Q.pause_note)
    (again,) = pause_queues(two, "bull", ["q", "q"])
    assert (again.paused, again.changed) == (True, False)
    assert two.call("GET", Q.pause_note) == note
    resume_queues(two, "bull", ["q"])
    (again,) = resume_queues(two, "bull", ["q"])
    assert (again.paused, again.changed) == (False, False)


def test_a_dry_run_writes_nothing(two: Client) -> None:
    before = {key: two.call("DUMP", key) for key in two.call("KEYS", "*")}
    (told,) = pause_queues(two, "bull", ["q"], dry_run=True)
    assert (told.paused, told.changed) == (True, True)
    (told,) = resume_queues(two, "bull", ["q"], dry_run=True)
    assert (told.paused, told.changed) == (False, False)
    assert {key: two.call("DUMP", key) for key in two.call("KEYS", "*")} == before


def test_one_wrong_name_and_none_is_touched(two: Client) -> None:
    for act in (pause_queues, resume_queues):
        with pytest.raises(NotFoundError, match="'nosuch'"):
            act(two, "bull", ["q", "nosuch"])
    assert not is_paused(two)


def test_one_of_bull_4_and_none_is_touched(two: Client) -> None:
    two.call("SET", "bull:old:id", "7")
    for act in (pause_queues, resume_queues):
        with pytest.raises(RefusedError, match="Bull 3 or 4"):
            act(two, "bull", ["q", "old"])
    assert not is_paused(two)


def test_a_resume_brings_back_what_bullmq_5_set_aside(two: Client) -> None:
    two.call("HSET", Q("meta"), "paused", "1")
    put(two, "8", "paused")
    (told,) = resume_queues(two, "bull", ["q"], dry_run=True)
    assert told.moved == 1
    (done,) = resume_queues(two, "bull", ["q"])
    assert done.moved == 1
    assert row(two, "wait") == ["8"]


def test_a_resume_keeps_off_a_drain_unless_forced(two: Client) -> None:
    them = holder("them", "drain")
    hold_lease(two, Q, them)
    pause(two, Q, them)
    with pytest.raises(RefusedError, match="being drained") as caught:
        resume_queues(two, "bull", ["other", "q"])
    assert "pid 42" in caught.value.why
    assert "--force" in caught.value.hint
    assert is_paused(two)
    resume_queues(two, "bull", ["q"], force=True)
    assert not is_paused(two)


def test_a_pause_takes_a_drains_pause_over(two: Client) -> None:
    pause(two, Q, holder("them", "drain"))
    (done,) = pause_queues(two, "bull", ["q"])
    assert done.paused
    note = parse_holder(two.call("GET", Q.pause_note))
    assert note is not None
    assert note.verb == "pause"


@pytest.mark.parametrize("version", ["bullmq:5.81.5", "bullmq:6.7.0", None])
def test_no_warning_where_one_line_of_bullmq_is_at_work(two: Client, version: str | None) -> None:
    two.call("HDEL", Q("meta"), "version")
    if version:
        two.call("HSET", Q("meta"), "version", version)
    put(two, "9", keys=OTHER)
    (done,) = pause_queues(two, "bull", ["q"])
    assert done.changed
    assert done.warnings == ()


def test_a_queue_of_both_lines_of_bullmq_is_refused_unless_that_is_accepted(two: Client) -> None:
    put(two, "9")
    two.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match=r"BullMQ 5 .* and BullMQ 6 ") as caught:
            pause_queues(two, "bull", ["other", "q"], dry_run=dry_run)
    assert "--mixed-versions" in caught.value.hint
    assert not is_paused(two)
    assert not is_paused(two, OTHER)
    first, second = pause_queues(two, "bull", ["other", "q"], mixed_versions=True)
    assert first.warnings == ()
    assert "qctl resume q" in second.warnings[0]
    # Where BullMQ 5 looks when it resumes the queue.
    assert (row(two, "wait"), row(two, "paused")) == ([], ["9"])
    # Pausing it once more can only bring jobs together.
    put(two, "10")
    assert not pause_queues(two, "bull", ["q"])[0].changed
    assert row(two, "paused") == ["10", "9"]


def test_bullmq_pro_counts_its_versions_itself(two: Client) -> None:
    put(two, "9")
    two.call("HSET", Q("meta"), "version", "bullmq-pro:7.1.0")
    two.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
    pause_queues(two, "bull", ["q"])
    assert row(two, "paused") == ["9"]
