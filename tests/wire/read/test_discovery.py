"""Finding queues in a database full of other things (wire format 2.4)."""

from __future__ import annotations

import pytest

from qctl.config.prefixes import EVERY_PREFIX, only, parse_prefixes
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import Survey, survey
from tests.labs.build import put
from tests.labs.clients import Spy
from tests.labs.jobs import discovered
from tests.labs.servers import limited_user


@pytest.mark.parametrize("prefix", ["bull", "{bull}", "a:b", "x*?[y]^-\\z", "ünï"])
def test_names_under_any_prefix(store: Client, prefix: str) -> None:
    for name in ("mail", "über", "with space", "{tag}q", "meta", "id", "a*b"):
        put(store, "1", keys=QueueKeys(prefix, name))
    put(store, "1", keys=QueueKeys("another", "elsewhere"))
    assert discovered(store, prefix) == sorted(
        ["mail", "über", "with space", "{tag}q", "meta", "id", "a*b"]
    )


def test_a_prefix_is_no_pattern(store: Client) -> None:
    put(store, "1", keys=QueueKeys("bull", "mail"))
    assert discovered(store, "b*") == []
    assert discovered(store, "bul?") == []


def test_what_only_looks_like_a_queue_is_left_out(store: Client) -> None:
    put(store, "1", keys=QueueKeys("bull", "mail"))
    # Left behind by BullMQ when a child whose id has colons is removed.
    store.call("HSET", "bull:mail:a:b:meta", "opts.maxLenEvents", "10000")
    store.call("HSET", "bull::meta", "x", "1")
    store.call("SET", "bull:mail:medium", "x")
    assert discovered(store, "bull") == ["mail"]


def test_bull_queues_and_queues_without_meta(store: Client) -> None:
    store.call("SET", "bull:old:id", 4)
    assert discovered(store, "bull") == ["old"]


def test_many_other_keys(store: Client) -> None:
    for start in range(0, 25_000, 1000):
        store.pipeline([("SET", f"bull:q:{n}", "x") for n in range(start, start + 1000)])
    put(store, "a", keys=QueueKeys("bull", "q"))
    put(store, "a", keys=QueueKeys("bull", "r"))
    assert discovered(store, "bull") == ["q", "r"]


def test_prefixes_for_a_message(store: Client) -> None:
    assert survey(store, EVERY_PREFIX) == Survey((), (), True)
    put(store, "1", keys=QueueKeys("bull", "mail"))
    put(store, "1", keys=QueueKeys("{jobs}", "a"))
    put(store, "1", keys=QueueKeys("{jobs}", "b"))
    store.call("SET", "no:queue:meta", "text")
    seen = survey(store, only("bull"), look_beyond=True)
    assert seen == Survey((QueueKeys("bull", "mail"),), ("{jobs}",), True)
    assert survey(store, only("bull")).other_prefixes == ()


def test_a_scan_that_finds_much_does_not_look_beyond_its_prefixes(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qctl.wire.read.discovery._MAX_BEYOND", 10)
    store.pipeline([("SET", f"user:{number}:id", "x") for number in range(5000)])
    for name in ("a", "b"):
        put(store, "1", keys=QueueKeys("bull", name))
    client = Spy(store)
    assert [queue.name for queue in survey(client, only("bull"), look_beyond=True).queues] == [
        "a",
        "b",
    ]
    patterns = [command[3] for command in client.sent if command[0] == "SCAN"]
    assert patterns[-1] == "bull:*:[mi][ed]*" != patterns[0]


def test_a_pass_for_a_message_ends_in_time(fake: Client) -> None:
    fake.pipeline([("SET", f"other:{number}", "x") for number in range(5000)])
    put(fake, "1", keys=QueueKeys("bull", "mail"))
    assert not survey(fake, only("bull"), -1.0).is_complete
    assert survey(fake, only("bull"), 60.0) == Survey((QueueKeys("bull", "mail"),), (), True)


def test_queues_under_prefixes_that_match(store: Client) -> None:
    queues = [
        QueueKeys(*pair)
        for pair in (("bull", "mail"), ("bulk", "mail"), ("{mail}", "mail"), ("h:q:mail", "mail"))
    ]
    for keys in queues:
        put(store, "1", keys=keys)

    def found(*words: str) -> list[QueueKeys]:
        return list(survey(store, parse_prefixes(words)).queues)

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
    assert survey(store, EVERY_PREFIX) == Survey(tuple(expected), (), True)
    # Under a prefix that is named, an id counter is enough.
    assert QueueKeys("user", "17") in survey(store, parse_prefixes(["*", "user"])).queues


def test_a_user_of_one_prefix_sees_its_queues_and_is_denied_once(
    client: Client, redis_url: str
) -> None:
    for keys in (QueueKeys("host:queue:mail", "mail"), QueueKeys("a", "q"), QueueKeys("b", "q")):
        put(client, "1", keys=keys)
    with limited_user(client, redis_url, "~host:queue:mail:*", "+@all") as (_, lowly):
        client.call("ACL", "LOG", "RESET")
        seen = survey(lowly, only("host:queue:mail"), look_beyond=True)
        assert seen == Survey((QueueKeys("host:queue:mail", "mail"),), (), True)
        assert len(client.call("ACL", "LOG")) == 1
        assert survey(lowly, parse_prefixes(["host:*"])).queues == seen.queues
        # What was asked for and cannot be read is not left out.
        assert len(survey(lowly, EVERY_PREFIX).queues) == 3
