"""BullMQ resumes and pauses a queue that qctl has paused: whose pause it is by then."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from qctl.connection.address import Client
from qctl.ops.drain.watchdog import Watchdog
from qctl.wire.notes import parse_holder
from qctl.wire.write.pausing import pause
from tests.labs.build import Q, holder, is_paused
from tests.labs.cli import qctl
from tests.labs.drain_in_process import run_drain
from tests.labs.node import NodeBull

Bulls = Callable[..., NodeBull]


def paused_by(redis_url: str) -> tuple[str | None, str]:
    (queue,) = json.loads(qctl(redis_url, "status", "q", "--json").out)["queues"]
    return queue["paused_by"], queue["notes"][0]["text"]


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("verb", ["pause", "drain"])
def test_a_pause_by_bullmq_is_not_the_one_in_the_note(
    version: int, verb: str, node_bull: Bulls, client: Client, redis_url: str
) -> None:
    bull = node_bull(version)
    bull.add("q")
    # A drain that was killed with its watchdog leaves the same behind.
    pause(client, Q, holder("gone", verb))
    bull.add("q")
    assert (paused_by(redis_url)[0] or "").startswith(f"qctl {verb} of ada")
    bull.resume("q")
    assert not is_paused(client)
    bull.pause("q")
    assert parse_holder(client.call("GET", Q.pause_note)) == holder("gone", verb)
    by, text = paused_by(redis_url)
    assert by is None
    # The queue's events show when BullMQ paused it.
    assert text.startswith("paused, and not through qctl, since 2")
    # Neither a drain nor what is left of the old one ends it.
    report = run_drain(client, client, redis_url, stop=True)
    assert report.resumed is False
    assert report.notes[0].startswith("q was paused before and stays paused")
    Watchdog(client, {Q: holder("gone", verb)}).undo()
    assert is_paused(client)


@pytest.mark.parametrize("version", [5, 6])
def test_a_pause_that_bullmq_wants_as_well_is_not_taken_over(
    version: int, node_bull: Bulls, client: Client, redis_url: str
) -> None:
    bull = node_bull(version)
    bull.add("q")
    pause(client, Q, holder("gone", "drain"))
    bull.pause("q")
    assert run_drain(client, client, redis_url, stop=True).resumed is False
    assert is_paused(client)


def test_where_events_are_missing_a_pause_is_not_taken_over_and_that_is_said(
    node_bull: Bulls, client: Client, redis_url: str
) -> None:
    node_bull(6).add("q")
    pause(client, Q, holder("gone", "drain"))
    client.call("XTRIM", Q("events"), "MAXLEN", 0)
    doubt = "or by somebody else since then (the queue's events do not show which of the two)"
    author, note = paused_by(redis_url)
    assert author is None
    assert note == f"paused by {holder('gone', 'drain')}, {doubt}; 1 job waits"
    report = run_drain(client, client, redis_url, stop=True)
    assert report.resumed is False
    assert doubt in report.notes[0]
    assert "qctl resume q" in report.notes[0]
    assert is_paused(client)
