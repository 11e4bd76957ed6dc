"""What a drain remembers of apps that resume their queues when they start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.drain.ownership import Pauses
from qctl.ops.drain.record import record_starts
from qctl.wire.drain_record import Resumer, read_drain_records, read_resumers
from qctl.wire.drain_record import record_starts as write
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q
from tests.labs.servers import limited_user

OTHER = QueueKeys("bull", "other")


def record(
    client: Client,
    target: str | None,
    strategy: str = "pause",
    *,
    complete: bool = True,
    **pauses: Any,
) -> None:
    """Record the starts that a drain of these two queues has seen."""
    label = None if target is None else SimpleNamespace(label=target)
    plan: Any = SimpleNamespace(target=label, strategy=strategy, queues=(Q, OTHER))
    record_starts(client, plan, Pauses(**pauses), complete=complete)


def habits(client: Client) -> list[tuple[str, str]]:
    return [(each.queue, each.target) for each in read_resumers(client, "bull")]


def test_each_app_is_remembered_for_each_queue(client: Client) -> None:
    write(client, "bull", "pm2:a", 1_000, resumed=["q", "x:y"], kept=[])
    write(client, "bull", "pm2:b", 2_000, resumed=["q"], kept=["x:y"])
    assert read_resumers(client, "bull") == [
        Resumer("q", "pm2:a", 1_000),
        Resumer("q", "pm2:b", 2_000),
        Resumer("x:y", "pm2:a", 1_000),
    ]
    assert read_resumers(client, "other") == []
    # It lies in the hash that metrics read.
    assert read_drain_records(client, ["bull"])[0].last is None
    write(client, "bull", "pm2:a", 3_000, resumed=[], kept=["q", "x:y"])
    assert habits(client) == [("q", "pm2:b")]


def test_a_drain_remembers_who_resumed_and_forgets_who_no_longer_does(client: Client) -> None:
    record(client, "pm2:app", resumed_at_start={Q: "pm2:app"}, resumed_by_others={Q})
    assert habits(client) == [("q", "pm2:app")]
    record(client, "pm2:app")
    assert habits(client) == []


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
def test_a_drain_that_saw_nothing_forgets_nothing(client: Client, blind: dict[str, Any]) -> None:
    write(client, "bull", "pm2:app", 1_000, resumed=["q"], kept=[])
    record(client, **{"target": "pm2:app", **blind})
    assert habits(client) == [("q", "pm2:app")]


def test_a_user_without_the_right_drains_all_the_same(client: Client, redis_url: str) -> None:
    with limited_user(client, redis_url, "~bull:*", "+@all") as (_, fewer):
        record(fewer, "pm2:app", resumed_at_start={Q: "pm2:app"})
    assert habits(client) == []
