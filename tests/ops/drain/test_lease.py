"""The leases of a drain and its watchdog, as a real second process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from qctl.connection.address import Client
from qctl.errors import FailedError, RefusedError
from qctl.ops.drain import lease as module
from qctl.ops.drain.lease import Guard
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import parse_holder
from qctl.wire.write.pausing import hold_lease, pause
from tests.labs.build import Q, holder, is_paused, put
from tests.labs.drains import PUT_RIGHT_S, is_alive, kill
from tests.labs.servers import wait_until

ME = holder("me", "drain")
OTHER = QueueKeys("bull", "other")


@pytest.fixture
def make(client: Client, redis_url: str) -> Iterator[Callable[..., Guard]]:
    """Makes guards; all are released at the end."""
    made: list[Guard] = []

    def make(*queues: QueueKeys, me: str = "me") -> Guard:
        was_paused = dict.fromkeys(queues or (Q,), False)
        made.append(Guard(client, redis_url, holder(me, "drain"), was_paused))
        return made[-1]

    yield make
    for guard in made:
        release(guard)


def release(guard: Guard) -> None:
    guard.free()
    guard.dismiss()


def pid_of(guard: Guard) -> int:
    assert guard.watchdog_pid is not None
    return guard.watchdog_pid


def test_it_holds_the_leases_and_gives_them_back(
    make: Callable[..., Guard], client: Client
) -> None:
    guard = make(Q, OTHER)
    guard.acquire()
    assert parse_holder(client.call("GET", Q.lease)) == ME
    assert parse_holder(client.call("GET", OTHER.lease)) == ME
    watchdog = pid_of(guard)
    assert is_alive(watchdog)
    release(guard)
    assert client.call("KEYS", "qctl:*") == []
    assert not is_alive(watchdog)
    assert guard.watchdog_pid is None


def test_whether_a_queue_was_paused_stands_in_its_lease(client: Client, redis_url: str) -> None:
    guard = Guard(client, redis_url, ME, {Q: True, OTHER: False})
    guard.acquire()
    held = [parse_holder(client.call("GET", keys.lease)) for keys in (Q, OTHER)]
    assert [lease and lease.was_paused for lease in held] == [True, False]
    release(guard)


def test_the_second_is_refused_and_leaves_nothing(
    make: Callable[..., Guard], client: Client
) -> None:
    hold_lease(client, Q, holder("them", "restart"))
    guard = make(OTHER, Q)
    with pytest.raises(RefusedError, match="queue q") as caught:
        guard.acquire()
    assert "qctl restart of ada@host (pid 42)" in caught.value.why
    assert guard.watchdog_pid is None
    # Not the lease of the other queue either.
    assert client.call("KEYS", "qctl:*") == [Q.lease]


def test_a_lost_lease_is_noticed(make: Callable[..., Guard], client: Client) -> None:
    guard = make()
    guard.acquire()
    client.call("DEL", Q.lease)
    hold_lease(client, Q, holder("them", "drain"))
    with pytest.raises(RefusedError):
        guard.hold()


def test_a_lease_that_ran_out_is_taken_again(make: Callable[..., Guard], client: Client) -> None:
    guard = make()
    guard.acquire()
    client.call("DEL", Q.lease)
    guard.hold()
    assert parse_holder(client.call("GET", Q.lease)) == ME


def test_a_dead_watchdog_is_replaced(make: Callable[..., Guard]) -> None:
    guard = make()
    guard.acquire()
    first = pid_of(guard)
    kill(first)
    guard.hold()
    assert pid_of(guard) != first
    assert is_alive(pid_of(guard))


def test_an_abandoned_watchdog_undoes_the_drain(make: Callable[..., Guard], client: Client) -> None:
    put(client, "1")
    guard = make()
    guard.acquire()
    pause(client, Q, ME)
    watchdog = pid_of(guard)
    guard.abandon()
    wait_until(
        lambda: not is_paused(client) and not client.call("KEYS", "qctl:*"),
        "the watchdog to resume",
        timeout_s=PUT_RIGHT_S,
    )
    wait_until(lambda: not is_alive(watchdog), "the watchdog to end")


def test_a_drain_of_very_many_queues(make: Callable[..., Guard], client: Client) -> None:
    """More than a pipe holds, so the watchdog must read while it is told."""
    queues = [QueueKeys("bull", f"{n}-{'x' * 200}") for n in range(400)]
    guard = make(*queues)
    guard.acquire()
    assert len(client.call("KEYS", "qctl:lease:*")) == len(queues)
    release(guard)
    assert client.call("KEYS", "qctl:*") == []


def test_without_a_watchdog_nothing_begins(
    make: Callable[..., Guard], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    guard = make()
    with pytest.raises(FailedError, match="nothing was paused"):
        guard.acquire()
    assert client.call("KEYS", "qctl:*") == []
