"""The leases of a drain and its watchdog, as a real second process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from qctl.connection.address import Client
from qctl.errors import FailedError, RefusedError
from qctl.manage.host import read_birth_s
from qctl.ops.drain import lease as module
from qctl.ops.drain.lease import Leases
from qctl.ops.drain.watchdog import Stopping
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import parse_holder
from qctl.wire.write.pausing import hold_lease, pause
from tests.labs.build import Q, holder, is_paused, put
from tests.labs.drains import PUT_RIGHT_S, is_alive, kill
from tests.labs.servers import wait_until

ME = holder("me", "drain")
OTHER = QueueKeys("bull", "other")


@pytest.fixture
def make(client: Client, redis_url: str) -> Iterator[Callable[..., Leases]]:
    """Makes guards; all are released at the end."""
    made: list[Leases] = []

    def make(*queues: QueueKeys, me: str = "me") -> Leases:
        was_paused = dict.fromkeys(queues or (Q,), False)
        made.append(Leases(client, redis_url, holder(me, "drain"), was_paused))
        return made[-1]

    yield make
    for leases in made:
        release(leases)


def release(leases: Leases) -> None:
    leases.release()
    leases.dismiss()


def pid_of(leases: Leases) -> int:
    assert leases.watchdog_pid is not None
    return leases.watchdog_pid


def test_it_holds_the_leases_and_gives_them_back(
    make: Callable[..., Leases], client: Client
) -> None:
    leases = make(Q, OTHER)
    leases.acquire()
    assert parse_holder(client.call("GET", Q.lease)) == ME
    assert parse_holder(client.call("GET", OTHER.lease)) == ME
    watchdog = pid_of(leases)
    assert is_alive(watchdog)
    release(leases)
    assert client.call("KEYS", "qctl:*") == []
    assert not is_alive(watchdog)
    assert leases.watchdog_pid is None


def test_whether_a_queue_was_paused_stands_in_its_lease(client: Client, redis_url: str) -> None:
    leases = Leases(client, redis_url, ME, {Q: True, OTHER: False})
    leases.acquire()
    held = [parse_holder(client.call("GET", keys.lease)) for keys in (Q, OTHER)]
    assert [lease and lease.was_paused for lease in held] == [True, False]
    release(leases)


def test_the_second_is_refused_and_leaves_nothing(
    make: Callable[..., Leases], client: Client
) -> None:
    hold_lease(client, Q, holder("them", "restart"))
    leases = make(OTHER, Q)
    with pytest.raises(RefusedError, match="queue q") as caught:
        leases.acquire()
    assert "qctl restart of ada@host (pid 42)" in caught.value.why
    assert leases.watchdog_pid is None
    # Not the lease of the other queue either.
    assert client.call("KEYS", "qctl:*") == [Q.lease]


def test_a_lost_lease_is_noticed(make: Callable[..., Leases], client: Client) -> None:
    leases = make()
    leases.acquire()
    client.call("DEL", Q.lease)
    hold_lease(client, Q, holder("them", "drain"))
    with pytest.raises(RefusedError):
        leases.renew()


def test_a_lease_that_ran_out_is_taken_again(make: Callable[..., Leases], client: Client) -> None:
    leases = make()
    leases.acquire()
    client.call("DEL", Q.lease)
    leases.renew()
    assert parse_holder(client.call("GET", Q.lease)) == ME


def test_a_dead_watchdog_is_replaced(make: Callable[..., Leases]) -> None:
    leases = make()
    leases.acquire()
    first = pid_of(leases)
    kill(first)
    leases.renew()
    assert pid_of(leases) != first
    assert is_alive(pid_of(leases))


def test_a_dead_watchdog_is_replaced_although_redis_refuses_the_lease(
    make: Callable[..., Leases], client: Client
) -> None:
    leases = make()
    leases.acquire()
    first = pid_of(leases)
    kill(first)
    hold_lease(client, OTHER, holder("them", "drain"))
    client.call("COPY", OTHER.lease, Q.lease, "REPLACE")
    with pytest.raises(RefusedError):
        leases.renew()
    assert pid_of(leases) != first
    assert is_alive(pid_of(leases))


def test_another_watchdog_waits_for_the_same_processes(
    make: Callable[..., Leases], client: Client
) -> None:
    put(client, "1")
    leases = make()
    leases.acquire()
    pause(client, Q, ME)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        leases.announce_stop([Stopping(child.pid, read_birth_s(child.pid) or 0, 60)])
        kill(pid_of(leases))
        leases.keep_watchdog()
        second = pid_of(leases)
        leases.abandon()
        time.sleep(0.5)
        assert is_alive(second)
        assert is_paused(client)
        child.kill()
    wait_until(lambda: not is_paused(client), "the watchdog to resume", timeout_s=PUT_RIGHT_S)


def test_an_abandoned_watchdog_undoes_the_drain(
    make: Callable[..., Leases], client: Client
) -> None:
    put(client, "1")
    leases = make()
    leases.acquire()
    pause(client, Q, ME)
    watchdog = pid_of(leases)
    leases.abandon()
    wait_until(
        lambda: not is_paused(client) and not client.call("KEYS", "qctl:*"),
        "the watchdog to resume",
        timeout_s=PUT_RIGHT_S,
    )
    wait_until(lambda: not is_alive(watchdog), "the watchdog to end")


def test_a_drain_of_very_many_queues(make: Callable[..., Leases], client: Client) -> None:
    """More than a pipe holds, so the watchdog must read while it is told."""
    queues = [QueueKeys("bull", f"{n}-{'x' * 200}") for n in range(400)]
    leases = make(*queues)
    leases.acquire()
    assert len(client.call("KEYS", "qctl:lease:*")) == len(queues)
    release(leases)
    assert client.call("KEYS", "qctl:*") == []


def test_without_a_watchdog_nothing_begins(
    make: Callable[..., Leases], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    leases = make()
    with pytest.raises(FailedError, match="watchdog process did not start"):
        leases.acquire()
    assert client.call("KEYS", "qctl:*") == []


def test_a_message_to_the_watchdog_is_one_line() -> None:
    message: dict[str, object] = {"url": "redis://:a\nb@h", "leases": {"q\n": "{}"}}
    line = module._line(message)
    assert line.count(b"\n") == 1
    assert json.loads(line) == message
