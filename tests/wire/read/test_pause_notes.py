"""Whether the pause of a queue is the one that qctl's note is about."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.wire.read import pause_notes
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from qctl.wire.write.pausing import pause, resume
from tests.labs.build import Q, events, holder, is_paused, put


def snapshot(client: Client) -> QueueSnapshot:
    (found,) = read_snapshots(client, [Q])
    assert isinstance(found, QueueSnapshot)
    return found


def add_events(client: Client, *names: str) -> None:
    for name in names:
        client.call("XADD", Q("events"), "*", "event", name, "jobId", "1")


@pytest.mark.parametrize(
    ("verb", "later", "author"),
    [
        ("pause", (), True),
        ("pause", ("added", "waiting", "completed"), True),
        # It has been paused without an end since the note.
        ("pause", ("waiting", "paused"), True),
        ("pause", ("resumed",), False),
        ("pause", ("waiting", "resumed", "waiting", "paused"), False),
        ("drain", ("waiting",), True),
        # Its pause was to end with it, and this one is not.
        ("drain", ("paused", "waiting"), False),
        ("drain", ("resumed", "paused"), False),
    ],
)
def test_whose_pause_it_is(store: Client, verb: str, later: tuple[str, ...], author: bool) -> None:
    put(store, "a")
    pause(store, Q, holder("me", verb))
    add_events(store, *later)
    found = snapshot(store)
    assert found.paused
    assert found.pause_note == (holder("me", verb) if author else None)
    assert found.uncertain_note is None


@pytest.mark.parametrize("how", ["cut", "deleted", "many", "half way", "no stream"])
def test_what_its_events_do_not_tell_is_unknown(
    store: Client, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")
    pause(store, Q, holder("me"))
    add_events(store, *["waiting"] * 120)
    if how == "cut":
        store.call("XTRIM", Q("events"), "MAXLEN", 50)
    elif how == "deleted":
        store.call("DEL", Q("events"))
    elif how == "many":
        monkeypatch.setattr(pause_notes, "_WINDOW", 50)
        monkeypatch.setattr(pause_notes, "_MAX_TRIPS", 2)
    elif how == "half way":
        store.call("SET", Q.pause_note, holder("me").to_json())
    else:
        store.call("DEL", Q("events"))
        store.call("SET", Q("events"), "x")
    if how == "no stream":
        # As for a queue whose events cannot be read.
        assert pause_notes.check_notes(store, {Q: store.call("GET", Q.pause_note)}) == {
            Q: "unknown"
        }
        return
    found = snapshot(store)
    assert (found.pause_note, found.uncertain_note) == (None, holder("me"))


def test_many_events_are_read_in_parts(store: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause_notes, "_WINDOW", 50)
    put(store, "a")
    pause(store, Q, holder("me"))
    add_events(store, *["waiting"] * 120)
    assert snapshot(store).pause_note == holder("me")
    add_events(store, "resumed", "waiting")
    assert snapshot(store).pause_note is None


def test_a_queue_that_runs_has_no_author(store: Client) -> None:
    put(store, "a")
    pause(store, Q, holder("me"))
    store.call("HDEL", Q("meta"), "paused")
    found = snapshot(store)
    assert (found.pause_note, found.uncertain_note) == (None, None)


@pytest.mark.parametrize("later", [("paused",), ("waiting", "resumed", "paused", "waiting")])
def test_a_resume_by_owner_leaves_a_later_pause_alone(
    store: Client, later: tuple[str, ...]
) -> None:
    put(store, "a")
    pause(store, Q, holder("me", "drain"))
    add_events(store, *later)
    done = resume(store, Q, owner="me")
    assert (done.changed, done.owned) == (False, False)
    assert is_paused(store)
    # The note goes, as when the drain had seen it.
    assert store.call("GET", Q.pause_note) is None
    assert "resumed" not in [event["event"] for event in events(store)][1 + len(later) :]


def test_a_resume_by_owner_goes_on_where_events_are_missing(store: Client) -> None:
    """A queue that stays paused for ever is worse."""
    put(store, "a")
    pause(store, Q, holder("me", "drain"))
    store.call("DEL", Q("events"))
    assert resume(store, Q, owner="me").changed
    assert not is_paused(store)


def test_a_pause_is_taken_over_unless_it_is_somebody_elses_by_now(store: Client) -> None:
    put(store, "a")
    pause(store, Q, holder("gone", "drain"))
    add_events(store, "resumed", "paused")
    assert not pause(store, Q, holder("me", "drain"), "take over").changed
    # An operator's own pause is one in any case.
    assert pause(store, Q, holder("ada"), "claim").changed
    assert not pause(store, Q, holder("me", "drain"), "take over").changed
    assert resume(store, Q).changed
    pause(store, Q, holder("gone", "drain"))
    assert pause(store, Q, holder("me", "drain"), "take over").changed
