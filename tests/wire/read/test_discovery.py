"""Finding queues in a database full of other things (wire format 2.4)."""

from __future__ import annotations

import pytest

from qctl.config.prefixes import EVERY_PREFIX, parse_prefixes
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import discover, discover_queues, discover_within, prefixes_in_use
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


def test_queues_under_prefixes_that_match(store: Client) -> None:
    queues = [
        QueueKeys(*pair)
        for pair in (("bull", "mail"), ("bulk", "mail"), ("{mail}", "mail"), ("h:q:mail", "mail"))
    ]
    for keys in queues:
        put(store, "1", keys=keys)

    def found(*words: str) -> list[QueueKeys]:
        return discover_queues(store, parse_prefixes(words))[0]

    assert found("*") == sorted(queues)
    assert found("bul*") == [QueueKeys("bulk", "mail"), QueueKeys("bull", "mail")]
    assert found("bul?", "{*}") == sorted(queues[:3])
    assert found("{$QUEUE}", "h:q:$QUEUE") == sorted(queues[2:])
    assert found("h:?:$QUEUE") == queues[3:]
    assert found("bull", "bulk") == sorted(queues[:2])
    assert found("bul\\*") == []


def test_keys_of_other_programs_are_no_queues_under_a_pattern(store: Client) -> None:
    put(store, "1", keys=QueueKeys("bull", "mail"))
    store.call("SET", "user:17:id", "x")
    store.call("HSET", "user:17:meta", "name", "x")
    store.call("SET", "no:queue:meta", "text")
    # Left behind by BullMQ when a child whose id has colons is removed.
    store.call("HSET", "bull:mail:a:b:meta", "opts.maxLenEvents", "10000")
    # A queue of Bull 3, and a prefix that begins with the keys of a queue.
    store.call("SET", "bull:old:id", 4)
    put(store, "1", keys=QueueKeys("bull:mail", "inner"))
    store.call("SET", "bull:mail:inner:id", 1)
    expected = [
        *(QueueKeys("bull", name) for name in ("mail", "old")),
        QueueKeys("bull:mail", "inner"),
    ]
    assert discover_queues(store, EVERY_PREFIX) == (expected, True)
    # Under a prefix that is named, an id counter is enough.
    assert QueueKeys("user", "17") in discover_queues(store, parse_prefixes(["*", "user"]))[0]
