"""The watchdog's loop, in this process, on a pipe of ours."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import ReplyError, UnreachableError
from qctl.manage.host import read_birth_s
from qctl.ops.drain import watchdog
from qctl.ops.drain.watchdog import Watchdog
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pausing import hold_lease, pause
from tests.labs.build import Q, events, holder, is_paused, put
from tests.labs.servers import wait_until

ME = holder("me", "drain")


class Pipe:
    """The pipe that qctl holds to its watchdog."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def tell(self, **message: Any) -> None:
        os.write(self.writer, json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """As when qctl dies."""
        with contextlib.suppress(OSError):
            os.close(self.writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()
    os.close(pipe.reader)


@pytest.fixture
def drained(store: Client) -> Client:
    """A queue that ``ME`` has paused and holds the lease of."""
    put(store, "1")
    hold_lease(store, Q, ME)
    pause(store, Q, ME)
    return store


def test_a_goodbye_leaves_all_as_it_is(drained: Client, pipe: Pipe) -> None:
    pipe.tell(goodbye=True)
    Watchdog(drained, {Q: ME}).run(pipe.reader)
    assert is_paused(drained)
    assert drained.call("EXISTS", Q.lease) == 1


def test_a_closed_pipe_undoes_the_drain(drained: Client, pipe: Pipe) -> None:
    pipe.close()
    Watchdog(drained, {Q: ME}).run(pipe.reader)
    assert not is_paused(drained)
    assert drained.call("KEYS", "qctl:*") == []
    assert [event["event"] for event in events(drained)] == ["paused", "resumed"]


def test_a_pause_of_ours_that_comes_back_after_the_goodbye(
    client: Client, redis_url: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a failover may bring it back, or a Redis that was killed."""
    monkeypatch.setattr(watchdog, "WATCH_EVERY_S", 0.01)
    put(client, "1")
    pipe.tell(goodbye=True, watch_s=1.0)
    with contextlib.closing(connect(redis_url)[1]) as own:
        loop = threading.Thread(target=Watchdog(own, {Q: ME}).run, args=(pipe.reader,))
        loop.start()
        hold_lease(client, Q, ME)
        pause(client, Q, ME)
        wait_until(lambda: not is_paused(client), "it to be resumed again")
        wait_until(lambda: client.call("KEYS", "qctl:*") == [], "the lease to go")
        # Somebody else's is left alone.
        pause(client, Q, holder("them"))
        loop.join(30)
        assert not loop.is_alive()
    assert is_paused(client)


@pytest.mark.parametrize("error", [UnreachableError("away"), ReplyError("NOPERM x")], ids=str)
def test_a_failure_begins_the_watch_anew(
    drained: Client, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "WATCH_EVERY_S", 0.01)
    Watchdog(Shaky(drained, *[error] * 3), {Q: ME}).watch(0.1)  # type: ignore[arg-type]
    assert not is_paused(drained)


def test_a_signal_shortens_its_patience(drained: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "HURRY_S", 0.3)
    away = Shaky(drained, *[UnreachableError("away")] * 1000)
    dog = Watchdog(away, {Q: ME})  # type: ignore[arg-type]
    dog.hurry()
    began = time.monotonic()
    dog.undo()
    assert 0.3 <= time.monotonic() - began < 10
    assert is_paused(drained)


def test_half_a_goodbye_is_none(drained: Client, pipe: Pipe) -> None:
    os.write(pipe.writer, b'{"goodbye": tr')
    pipe.close()
    Watchdog(drained, {Q: ME}).run(pipe.reader)
    assert not is_paused(drained)


def test_a_goodbye_in_pieces_is_one(drained: Client, pipe: Pipe) -> None:
    os.write(pipe.writer, b'{"stopping": []}\n{"goodb')
    loop = threading.Thread(target=Watchdog(drained, {Q: ME}).run, args=(pipe.reader,))
    loop.start()
    os.write(pipe.writer, b'ye": true}\n')
    loop.join(10)
    assert not loop.is_alive()
    assert is_paused(drained)


def test_somebody_elses_pause_is_not_touched(store: Client, pipe: Pipe) -> None:
    put(store, "1")
    hold_lease(store, Q, ME)
    pause(store, Q, holder("them"))
    pipe.close()
    Watchdog(store, {Q: ME}).run(pipe.reader)
    assert is_paused(store)
    assert store.call("EXISTS", Q.lease) == 0


def test_another_drains_lease_is_not_touched(store: Client, pipe: Pipe) -> None:
    put(store, "1")
    hold_lease(store, Q, holder("them", "drain"))
    pause(store, Q, holder("them", "drain"))
    pipe.close()
    Watchdog(store, {Q: ME}).run(pipe.reader)
    assert is_paused(store)
    assert store.call("EXISTS", Q.lease) == 1


def test_leases_are_renewed_while_the_pipe_is_open(
    client: Client, redis_url: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "RENEW_S", 0.02)
    hold_lease(client, Q, ME)
    client.call("PEXPIRE", Q.lease, 3000)
    with contextlib.closing(connect(redis_url)[1]) as own:
        loop = threading.Thread(target=Watchdog(own, {Q: ME}).run, args=(pipe.reader,))
        loop.start()
        wait_until(lambda: client.call("PTTL", Q.lease) > 3000, "the lease to be renewed")
        pipe.tell(goodbye=True)
        loop.join(10)
        assert not loop.is_alive()


class Shaky(ForwardingClient):
    """A Redis that fails a few times before it answers."""

    def __init__(self, client: Client, *errors: Exception) -> None:
        super().__init__(client)
        self._errors = list(errors)

    def call(self, *command: Any, timeout_s: float = 0.0) -> Any:
        if self._errors:
            raise self._errors.pop(0)
        return super().call(*command, timeout_s=timeout_s)


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("away"),
        ReplyError("LOADING x"),
        ReplyError("READONLY x"),
        ReplyError("UNBLOCKED x"),
        ReplyError("NOREPLICAS x"),
        ReplyError("OOM x"),
        ReplyError("MISCONF x"),
        # A right that was taken away may be given back.
        ReplyError("NOPERM x"),
    ],
    ids=str,
)
def test_it_tries_again_what_failed(drained: Client, error: Exception) -> None:
    Watchdog(Shaky(drained, error, error), {Q: ME}).undo()  # type: ignore[arg-type]
    assert not is_paused(drained)
    assert drained.call("KEYS", "qctl:*") == []


def test_a_queue_that_cannot_be_reached_stands_in_no_other_ones_way(drained: Client) -> None:
    """An attempt may take seconds, so there is one a round; a queue on a dead node comes last."""
    other = QueueKeys("bull", "other")
    tried: list[str] = []

    class HalfAway(ForwardingClient):
        def call(self, *command: Any, timeout_s: float = 0.0) -> Any:
            tried.append("other" if other.lease in command else "q")
            if tried[-1] == "other":
                raise UnreachableError("away")
            return super().call(*command, timeout_s=timeout_s)

    watchdog = Watchdog(HalfAway(drained), {other: ME, Q: ME})
    drained.call("PEXPIRE", Q.lease, 1000)
    for _ in "12":
        watchdog._renew()
    assert tried == ["other", "q", "other"]
    assert drained.call("PTTL", Q.lease) > 1000


@pytest.mark.parametrize("first", [0, 1])
def test_processes_that_are_being_stopped_end_first(
    drained: Client, pipe: Pipe, first: int
) -> None:
    command = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE) as two,
    ):
        pids = (one.pid, two.pid)
        pipe.tell(stopping=[{"pid": p, "birth_s": read_birth_s(p), "within_s": 30} for p in pids])
        pipe.close()
        loop = threading.Thread(target=Watchdog(drained, {Q: ME}).run, args=(pipe.reader,))
        loop.start()
        # Whichever ends first, the other is still waited for.
        for child in (one, two) if first == 0 else (two, one):
            loop.join(0.3)
            assert loop.is_alive()
            assert is_paused(drained)
            child.kill()
            child.wait(10)
        loop.join(10)
    assert not is_paused(drained)


def test_a_process_that_does_not_end_is_not_waited_for_for_ever(
    drained: Client, pipe: Pipe
) -> None:
    pipe.tell(
        stopping=[{"pid": os.getpid(), "birth_s": read_birth_s(os.getpid()), "within_s": 0.05}]
    )
    pipe.close()
    Watchdog(drained, {Q: ME}).run(pipe.reader)
    assert not is_paused(drained)
