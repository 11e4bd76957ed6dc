"""The lease that keeps two drains of one queue apart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from qctl.connection.address import Client
from qctl.wire.notes import LEASE_TTL_MS, parse_holder, this_process
from qctl.wire.write.pausing import disown_pause, free_lease, hold_lease, pause, resume
from tests.labs.build import Q, holder, is_paused, put


def test_the_first_takes_it_and_the_second_is_told_who_has_it(store: Client) -> None:
    assert hold_lease(store, Q, holder("first", "drain")) is None
    assert hold_lease(store, Q, holder("second", "drain")) == holder("first", "drain")
    assert parse_holder(store.call("GET", Q.lease)) == holder("first", "drain")


def test_it_expires_by_itself_and_renewing_starts_again(store: Client) -> None:
    hold_lease(store, Q, holder("first"))
    assert 0 < store.call("PTTL", Q.lease) <= LEASE_TTL_MS
    store.call("PEXPIRE", Q.lease, 500)
    assert hold_lease(store, Q, holder("first")) is None
    assert store.call("PTTL", Q.lease) > 500


def test_renewing_keeps_what_the_holder_learned(store: Client) -> None:
    hold_lease(store, Q, holder("first"))
    hold_lease(store, Q, replace(holder("first"), was_paused=True))
    found = hold_lease(store, Q, holder("second"))
    assert found is not None
    assert found.was_paused


def test_only_its_owner_gives_it_back(store: Client) -> None:
    hold_lease(store, Q, holder("first"))
    free_lease(store, Q, "second")
    assert store.call("EXISTS", Q.lease) == 1
    free_lease(store, Q, "first")
    assert store.call("EXISTS", Q.lease) == 0
    free_lease(store, Q, "first")
    assert hold_lease(store, Q, holder("second")) is None


def test_leases_of_two_queues_are_independent(store: Client) -> None:
    other = type(Q)("bull", "other")
    assert hold_lease(store, Q, holder("first")) is None
    assert hold_lease(store, other, holder("second")) is None


def test_a_lease_of_a_newer_qctl_is_respected(store: Client) -> None:
    text = json.dumps({**json.loads(holder("first").to_json()), "colour": "blue"})
    store.call("SET", Q.lease, text, "PX", 5000)
    assert hold_lease(store, Q, holder("second")) == holder("first")
    free_lease(store, Q, "second")
    assert store.call("GET", Q.lease) == text


@pytest.mark.parametrize("text", ["", "text", "[1]", "7", "null", '{"owner":7}', "[" * 2000])
def test_a_lease_that_nobody_can_have_is_taken(store: Client, text: str) -> None:
    store.call("SET", Q.lease, text)
    free_lease(store, Q, "me")
    assert store.call("GET", Q.lease) == text
    assert hold_lease(store, Q, holder("me")) is None
    assert parse_holder(store.call("GET", Q.lease)) == holder("me")


def test_a_pause_that_somebody_else_wants_too(store: Client) -> None:
    put(store, "a")
    pause(store, Q, holder("first"))
    disown_pause(store, Q, "second")
    assert parse_holder(store.call("GET", Q.pause_note)) == holder("first")
    disown_pause(store, Q, "first")
    assert not resume(store, Q, owner="first").owned
    assert is_paused(store)
    assert resume(store, Q).changed


def test_every_run_is_an_owner_of_its_own() -> None:
    assert this_process("drain").owner != this_process("drain").owner


def test_a_foreign_note_is_no_holder() -> None:
    for text in (None, "", "text", "[]", "{}", '{"owner": 1}', 7):
        assert parse_holder(text) is None
    assert parse_holder(holder("me").to_json()) == holder("me")
