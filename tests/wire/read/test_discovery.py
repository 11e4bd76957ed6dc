"""Finding queues in a database full of other things (wire format 2.4)."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import discover, discover_within, prefixes_in_use
from tests.labs.build import put


@pytest.mark.parametrize("prefix", ["bull", "{bull}", "a:b", "x*?[y]^-\\z", "ünï"])
def test_names_under_any_prefix(store: Client, prefix: str) -> None:
    for name in ("mail", "über", "with space", "{tag}q", "meta", "id", "a*b"):
        put(store, "1", keys=QueueKeys(prefix, name))
    put(store, "1", keys=QueueKeys("another", "elsewhere"))
    assert discover(store, prefix) == sorted(
        ["mail", "über", "with space", "{tag}q", "meta", "id", "a*b"]
    )


def test_a_prefix_is_no_pattern(store: Client) -> None:
    put(store, "1", keys=QueueKeys("bull", "mail"))
    assert discover(store, "b*") == []
    assert discover(store, "bul?") == []


def test_what_only_looks_like_a_queue_is_left_out(store: Client) -> None:
    put(store, "1", keys=QueueKeys("bull", "mail"))
    # Left behind by BullMQ when a child whose id has colons is removed.
    store.call("HSET", "bull:mail:a:b:meta", "opts.maxLenEvents", "10000")
    store.call("HSET", "bull::meta", "x", "1")
    store.call("SET", "bull:mail:medium", "x")
    assert discover(store, "bull") == ["mail"]


def test_bull_queues_and_queues_without_meta(store: Client) -> None:
    store.call("SET", "bull:old:id", 4)
    assert discover(store, "bull") == ["old"]


def test_many_other_keys(store: Client) -> None:
    for start in range(0, 25_000, 1000):
        store.pipeline([("SET", f"bull:q:{n}", "x") for n in range(start, start + 1000)])
    put(store, "a", keys=QueueKeys("bull", "q"))
    put(store, "a", keys=QueueKeys("bull", "r"))
    assert discover(store, "bull") == ["q", "r"]


def test_prefixes_for_a_message(store: Client) -> None:
    assert prefixes_in_use(store) == ([], True)
    put(store, "1", keys=QueueKeys("bull", "mail"))
    put(store, "1", keys=QueueKeys("{jobs}", "a"))
    put(store, "1", keys=QueueKeys("{jobs}", "b"))
    store.call("SET", "no:queue:meta", "text")
    assert prefixes_in_use(store) == (["bull", "{jobs}"], True)


def test_a_pass_for_a_message_ends_in_time(fake: Client) -> None:
    fake.pipeline([("SET", f"other:{number}", "x") for number in range(5000)])
    put(fake, "1", keys=QueueKeys("bull", "mail"))
    assert discover_within(fake, "bull", -1.0)[1] is False
    assert prefixes_in_use(fake, -1.0)[1] is False
    assert discover_within(fake, "bull", 60.0) == (["mail"], True)
