"""What a waiting drain looks up for: the jobs in its way, not what producers add."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.ops.drain import wait
from qctl.wire.events import Event
from tests.labs.build import Q


class Stream:
    """Stands for a drain's context and tracker: one event a read."""

    def __init__(self, *events: Event) -> None:
        self.tracker = self
        self._events = list(events)
        self.read = 0

    def stop(self) -> bool:
        return False

    def follow(self, **_: bool) -> list[tuple[Any, Event]]:
        self.read += 1
        return [(Q, self._events.pop(0))]


def event(name: str, job_id: str = "") -> Event:
    return Event("1-1", name, {"jobId": job_id} if job_id else {})


NOISE = (
    event("added", "9"),
    event("waiting", "9"),
    event("progress", "1"),
    event("completed", "8"),
)


@pytest.mark.parametrize(
    "news", [event("completed", "1"), event("delayed", "1"), event("paused"), event("resumed")]
)
def test_it_looks_when_a_job_in_the_way_moves_or_the_pause_changes(news: Event) -> None:
    stream: Any = Stream(*NOISE, news, event("completed", "1"))
    wait._await_news(stream, frozenset({(Q, "1")}), is_away=False)
    assert stream.read == len(NOISE) + 1
