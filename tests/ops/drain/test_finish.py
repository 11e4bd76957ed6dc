"""The end of a drain: the first job after the resume."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.ops.drain import finish
from qctl.ops.drain.finish import await_first_start
from qctl.ops.drain.tracker import Tracker
from tests.labs.build import Q, put
from tests.labs.drain_context import context_of


def test_jobs_that_are_held_back_are_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "FIRST_START_S", 0.1)
    put(client, "1", "active", lock="t")
    put(client, "2")

    def notes() -> list[str]:
        context = context_of(client, (Q,))
        monkeypatch.setattr(Tracker, "follow", lambda *_, **__: [])
        await_first_start(context)
        return context.notes

    client.call("HSET", Q("meta"), "concurrency", "1")
    assert notes() == []
    client.call("HDEL", Q("meta"), "concurrency")
    assert notes() == ["jobs wait, but none has started within 0 s"]
    # Only the worker knows its limiter's maximum: a possible reason is named, and nothing excused.
    client.call("SET", Q("limiter"), "3", "PX", 60_000)
    (note,) = notes()
    assert "; q may be rate limited for another 1 min: 3 jobs are counted" in note
    client.call("HSET", Q("meta"), "max", "3")
    assert notes() == []
