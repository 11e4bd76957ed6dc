"""A client that sits outages out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import QctlError, ReplyError, UnreachableError
from qctl.ops.patience import PatientClient
from tests.labs.servers import RedisServer

AWAY = UnreachableError("away")


class Shaky:
    """Fails as told, then answers ``done``."""

    def __init__(self, *errors: QctlError) -> None:
        self._errors = list(errors)

    def call(self, *_: Any, timeout_s: float = 0.0) -> str:  # noqa: ARG002 - as in Client
        if self._errors:
            raise self._errors.pop(0)
        return "done"

    def pipeline(self, commands: Sequence[Any]) -> list[Any]:
        return [self._errors.pop(0) if self._errors else "done" for _ in commands]

    def masters(self) -> Sequence[Client]:
        return [self]

    def close(self) -> None: ...


def patient(*errors: QctlError, stop: Callable[[], bool] = lambda: False) -> PatientClient:
    client = PatientClient(Shaky(*errors), stop)
    client.patience_s = 30.0
    return client


def test_it_repeats_while_redis_is_away_or_fails_over() -> None:
    errors = (AWAY, ReplyError("LOADING x"), ReplyError("READONLY x"), ReplyError("UNBLOCKED x"))
    client = patient(*errors)
    assert client.call("GET", "x") == "done"
    assert client.outages == len(errors)
    assert client.away_s > 0
    assert client.masters() == [client]


def test_a_pipeline_that_met_an_outage_is_repeated_as_a_whole() -> None:
    assert patient(ReplyError("LOADING x")).pipeline([("GET", "a"), ("GET", "b")]) == ["done"] * 2


def test_other_errors_are_no_outage() -> None:
    client = patient(ReplyError("NOPERM x"))
    with pytest.raises(ReplyError, match="may not"):
        client.call("GET", "x")
    refused, done = patient(ReplyError("WRONGTYPE x")).pipeline([("GET", "a"), ("GET", "b")])
    assert isinstance(refused, ReplyError)
    assert done == "done"


def test_without_patience_it_raises_at_once() -> None:
    client = patient(AWAY)
    with client.at_most(0.0), pytest.raises(UnreachableError):
        client.call("GET", "x")
    assert client.patience_s > 0


def test_when_the_operator_wants_to_stop_it_tries_little_longer() -> None:
    assert patient(AWAY, stop=lambda: True).call("GET", "x") == "done"
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        patient(*[AWAY] * 1000, stop=lambda: True).call("GET", "x")
    assert time.monotonic() - began < 30


def test_after_a_long_attempt_at_the_end_no_other_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """If packets are dropped, each attempt takes seconds, and the end of a drain makes many."""
    monkeypatch.setattr("qctl.ops.patience.STOPPING_S", 0.0)
    is_over = False
    client = patient(AWAY, AWAY, stop=lambda: is_over)
    assert client.call("GET", "x") == "done"
    is_over = True
    client = patient(AWAY, stop=lambda: is_over)
    for _ in range(2):
        with pytest.raises(UnreachableError):
            client.call("GET", "x")
    assert (client.outages, client.has_given_up) == (1, True)


def test_who_gives_up_during_an_outage_does_not_try_again() -> None:
    client = patient()
    client.give_up()
    # Redis was not away.
    assert client.call("GET", "x") == "done"
    client = patient(AWAY)
    with client.at_most(0.0), pytest.raises(UnreachableError):
        client.call("GET", "x")
    client.give_up()
    with pytest.raises(UnreachableError):
        client.call("GET", "x")
    assert client.outages == 1


def test_a_master_of_a_cluster_is_asked_for_anew(start_redis: Callable[..., RedisServer]) -> None:
    """Another may have taken over its slots."""
    old, new = connect(start_redis().url)[1], connect(start_redis().url)[1]
    new.call("SET", "who", "new")

    class Cluster(Shaky):
        nodes: Sequence[Client] = (old,)

        def masters(self) -> Sequence[Client]:
            return self.nodes

    client = PatientClient(Cluster())
    client.patience_s = 30.0
    (master,) = client.masters()
    assert master.call("GET", "who") is None
    Cluster.nodes = (new,)
    assert master.pipeline([("GET", "who")]) == ["new"]
    for node in (old, new):
        node.close()
