"""Jobs that stalled in a span of time, and whether all of its events are known."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.wire.read import interruptions
from qctl.wire.read.interruptions import Span, stalled_within
from tests.labs.build import Q


def stall(client: Client, event_id: str, job_id: str) -> None:
    client.call("XADD", Q("events"), event_id, "event", "stalled", "jobId", job_id)


def test_a_span_is_complete_when_all_of_its_events_were_read(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 5):
        stall(store, f"{number}-0", str(number))
    (found,) = stalled_within(store, [Span(Q, 1, 9)])
    assert (found.ids, found.is_complete) == (("1", "2", "3", "4"), True)
    store.call("XTRIM", Q("events"), "MAXLEN", 2)
    (found,) = stalled_within(store, [Span(Q, 1, 9)])
    assert (found.ids, found.is_complete) == (("3", "4"), False)
    # More than are read at most: there may be others.
    monkeypatch.setattr(interruptions, "_WINDOW", 1)
    monkeypatch.setattr(interruptions, "_MAX_WINDOWS", 1)
    (found,) = stalled_within(store, [Span(Q, 3, 9)])
    assert (found.ids, found.is_complete) == (("3",), False)
