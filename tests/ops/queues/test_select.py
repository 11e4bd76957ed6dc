"""Which queues the words of a command line name, with several prefixes."""

from __future__ import annotations

import pytest

from qctl.config.prefixes import parse_prefixes
from qctl.connection.address import Client
from qctl.errors import NotFoundError, UsageError
from qctl.ops.queues.select import select_one, select_queues
from qctl.wire.keys import QueueKeys
from tests.labs.build import put
from tests.labs.clients import Counting


def build(client: Client, *queues: tuple[str, str]) -> None:
    for name, prefix in queues:
        put(client, "1", keys=QueueKeys(prefix, name))


def select(client: Client, patterns: str, *words: str) -> list[str]:
    found = select_queues(client, parse_prefixes(patterns.split()), words)
    return [f"{keys.name}|{keys.prefix}" for keys in found]


def test_names_under_several_prefixes(store: Client) -> None:
    build(store, ("mail", "a"), ("mail", "b"), ("video", "b"), ("video", "{video}"))
    assert select(store, "a b", "mail") == ["mail|a", "mail|b"]
    assert select(store, "a b", "video", "mail", "video") == ["video|b", "mail|a", "mail|b"]
    assert select(store, "{$QUEUE}", "video") == ["video|{video}"]
    assert select(store, "*", "video") == ["video|b", "video|{video}"]
    assert select(store, "a", "video@{video}", "mail") == ["video|{video}", "mail|a"]
    assert select_one(store, parse_prefixes(["{*}"]), "video") == QueueKeys("{video}", "video")


def test_a_name_with_an_at_sign(store: Client) -> None:
    build(store, ("mail@b", "a"), ("mail", "b"), ("x", "y@z"), ("x@y", "z"), ("last", "p@q"))
    # Of the readings of a word, the one with the longest name that exists counts.
    assert select(store, "a", "mail@b") == ["mail@b|a"]
    assert select(store, "other", "mail@b") == ["mail|b"]
    assert select(store, "other", "mail@b@a") == ["mail@b|a"]
    assert select(store, "other", "x@y@z") == ["x@y|z"]
    assert select(store, "other", "last@p@q") == ["last|p@q"]
    # The prefix after @ is a name, not a pattern.
    for word in ("mail@*", "mail@", "@b", "nothing@b"):
        with pytest.raises(NotFoundError):
            select(store, "a b", word)


def test_a_name_that_is_not_unique_lists_the_candidates(store: Client) -> None:
    build(store, ("mail", "a"), ("mail", "b"))
    for patterns in ("a b", "*"):
        with pytest.raises(UsageError) as caught:
            select_one(store, parse_prefixes(patterns.split()), "mail")
        assert caught.value.exit_status == 2
        assert caught.value.why == "mail@a, mail@b"
    assert select_one(store, parse_prefixes(["*"]), "mail@b") == QueueKeys("b", "mail")


def test_a_missing_name_is_found_elsewhere(store: Client) -> None:
    build(store, ("mail", "staging"), ("video", "prod"))
    with pytest.raises(NotFoundError) as caught:
        select(store, "prod live", "mail")
    assert caught.value.hint == "qctl status mail --prefix staging"
    with pytest.raises(NotFoundError) as caught:
        select(store, "{$QUEUE}", "mail")
    assert "'staging'" in caught.value.why


def test_a_new_queue_needs_one_prefix(store: Client) -> None:
    build(store, ("mail", "a"))

    def new(pattern: str, word: str) -> QueueKeys:
        return select_one(store, parse_prefixes(pattern.split()), word, may_create=True)

    assert new("{$QUEUE}", "video") == QueueKeys("{video}", "video")
    assert new("a b", "video@c") == QueueKeys("c", "video")
    assert new("a", "video@c") == QueueKeys("a", "video@c")
    assert new("a b", "mail") == QueueKeys("a", "mail")
    for pattern in ("a b", "*"):
        with pytest.raises(UsageError):
            new(pattern, "video")


def test_only_a_glob_needs_a_scan(store: Client) -> None:
    build(store, ("mail", "a"), ("mail", "{mail}"))
    client = Counting(store)
    select(client, "a b {$QUEUE}", "mail", "mail@a")
    assert "SCAN" not in client.trips
    select(client, "a", "mail")
    select(client, "*", "mail", "mail@a", "mail@{mail}")
    assert client.trips.count("SCAN") == 1
