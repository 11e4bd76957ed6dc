"""What a drain remembers of apps that resume their queues when they start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.drain.holding import record_starts
from qctl.wire.drain_record import Resumer, read_drain_record, read_resumers
from qctl.wire.drain_record import record_starts as write
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q
from tests.labs.servers import limited_user

OTHER = QueueKeys("bull", "other")


def drain_of(client: Client, target: str | None, strategy: str = "pause", **fields: Any) -> Any:
    """A drain's state, as far as it matters here."""
    label = None if target is None else SimpleNamespace(label=target)
    plan = SimpleNamespace(target=label, strategy=strategy)
    state: dict[str, Any] = {"resumed_at_start": {}, "resumed_by_others": set(), **fields}
    return SimpleNamespace(client=client, plan=plan, queues=(Q, OTHER), **state)


def habits(client: Client) -> list[tuple[str, str]]:
    return [(each.queue, each.target) for each in read_resumers(client, "bull")]


def test_each_app_is_remembered_for_each_queue(store: Client) -> None:
    write(store, "bull", "pm2:a", 1_000, resumed=["q", "x:y"], kept=[])
    write(store, "bull", "pm2:b", 2_000, resumed=["q"], kept=["x:y"])
    assert read_resumers(store, "bull") == [
        Resumer("q", "pm2:a", 1_000),
        Resumer("q", "pm2:b", 2_000),
        Resumer("x:y", "pm2:a", 1_000),
    ]
    assert read_resumers(store, "other") == []
    # It lies in the hash that metrics read.
    assert read_drain_record(store, "bull").last is None
    write(store, "bull", "pm2:a", 3_000, resumed=[], kept=["q", "x:y"])
    assert habits(store) == [("q", "pm2:b")]


def test_a_drain_remembers_who_resumed_and_forgets_who_no_longer_does(store: Client) -> None:
    seen = drain_of(store, "pm2:app", resumed_at_start={Q: "pm2:app"}, resumed_by_others={Q})
    record_starts(seen, complete=True)
    assert habits(store) == [("q", "pm2:app")]
    record_starts(drain_of(store, "pm2:app"), complete=True)
    assert habits(store) == []


@pytest.mark.parametrize(
    "blind",
    [
        # Not all were restarted; someone resumed it, and nobody knows who; nothing was paused.
        {"complete": False},
        {"resumed_by_others": {Q}},
        {"strategy": "roll"},
        {"target": None},
        {"target": "pm2:another"},
    ],
)
def test_a_drain_that_saw_nothing_forgets_nothing(store: Client, blind: dict[str, Any]) -> None:
    write(store, "bull", "pm2:app", 1_000, resumed=["q"], kept=[])
    options = {"target": "pm2:app", "complete": True, **blind}
    complete = bool(options.pop("complete"))
    record_starts(drain_of(store, **options), complete=complete)
    assert habits(store) == [("q", "pm2:app")]


def test_a_user_without_the_right_drains_all_the_same(client: Client, redis_url: str) -> None:
    with limited_user(client, redis_url, "~bull:*", "+@all") as (_, fewer):
        state = drain_of(fewer, "pm2:app", resumed_at_start={Q: "pm2:app"})
        record_starts(state, complete=True)
    assert habits(client) == []
