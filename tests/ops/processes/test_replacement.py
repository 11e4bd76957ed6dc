"""Workers are replaced or not, by their connections alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import FailedError
from qctl.ops.processes import replacement as module
from qctl.ops.processes.replacement import QueueWorkers, Replacement
from qctl.ops.processes.restart import Interrupted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import client_name
from tests.labs.servers import RedisServer, wait_until

Connect = Callable[[str], Client]


@pytest.fixture
def connected(redis_url: str) -> Iterator[Connect]:
    made: list[Client] = []

    def start(queue: str) -> Client:
        worker = connect(redis_url)[1]
        worker.call("CLIENT", "SETNAME", client_name("bull", queue))
        made.append(worker)
        return worker

    yield start
    for worker in made:
        worker.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.2)


def watch(
    client: Client,
    *queues: str,
    expected: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    rest: Callable[[], object] = lambda: None,
) -> Replacement:
    meant = [QueueKeys("bull", name) for name in queues or ("q",)]
    return Replacement(client, 0, meant, expected, watch_s=0.4, stop=stop, rest=rest)


class Steps:
    """Acts between two readings, one action a reading."""

    def __init__(self, *actions: Callable[[], object]) -> None:
        self._actions = list(actions)

    def add(self, action: Callable[[], object]) -> None:
        self._actions.append(action)

    def __call__(self) -> None:
        if self._actions:
            self._actions.pop(0)()


def test_old_ones_gone_and_as_many_new_ones(client: Client, connected: Connect) -> None:
    old = [connected("q"), connected("q")]
    steps = Steps(lambda: connected("q"), old[0].close, lambda: connected("q"), old[1].close)
    replacement = watch(client, rest=steps)
    assert replacement.wait(20) == (QueueWorkers("q", 2, 0, 2, 2),)


def test_one_old_worker_is_left(client: Client, connected: Connect) -> None:
    connected("q")
    replacement = watch(client)
    connected("q")
    with pytest.raises(FailedError) as raised:
        replacement.wait(0.5)
    assert "1 old worker is still connected" in raised.value.why


def test_a_queue_lacks_its_new_worker(client: Client, connected: Connect) -> None:
    old = [connected("q"), connected("r")]
    replacement = watch(client, "q", "r")
    for worker in old:
        worker.close()
    connected("q")
    with pytest.raises(FailedError, match="not in place") as raised:
        replacement.wait(0.5)
    assert "r: 0 of 1 new workers" in raised.value.why


def test_fewer_or_more_workers_when_they_are_expected(client: Client, connected: Connect) -> None:
    old = [connected("q"), connected("q")]
    replacement = watch(client, expected=1)
    for worker in old:
        worker.close()
    connected("q")
    assert replacement.wait(20) == (QueueWorkers("q", 2, 0, 1, 1),)


def test_a_queue_without_workers_needs_none(client: Client, connected: Connect) -> None:
    assert watch(client).wait(20) == (QueueWorkers("q", 0, 0, 0, 0),)


def test_new_workers_that_keep_going_away(client: Client, connected: Connect) -> None:
    connected("q").close()
    connected("q").close()
    old = connected("q")

    def crash() -> None:
        worker = connected("q")
        replacement.read()
        worker.close()

    replacement = watch(client, rest=crash)
    old.close()
    with pytest.raises(FailedError, match="keep going away"):
        replacement.wait(20)


def test_they_must_stay_up_when_the_queue_runs_again(client: Client, connected: Connect) -> None:
    old = connected("q")
    steps = Steps()
    replacement = watch(client, rest=steps)
    old.close()
    new = connected("q")
    replacement.wait(20)
    steps.add(new.close)
    with pytest.raises(FailedError, match="did not stay up"):
        replacement.confirm()


def test_they_have_stayed_up(client: Client, connected: Connect) -> None:
    old = connected("q")
    replacement = watch(client)
    old.close()
    connected("q")
    replacement.wait(20)
    replacement.confirm()


def test_the_wait_begins_anew_when_one_has_left(client: Client, connected: Connect) -> None:
    old = connected("q")
    replacement = watch(client)
    old.close()
    first = connected("q")
    replacement.read()
    first.close()
    second = connected("q")
    (found,) = replacement.wait(20)
    assert found.new == 1
    second.close()


def test_an_operator_who_wants_to_stop(client: Client, connected: Connect) -> None:
    connected("q")
    with pytest.raises(Interrupted):
        watch(client, stop=lambda: True).wait(20)


def test_other_queues_whose_workers_went_too(client: Client, connected: Connect) -> None:
    connected("q")
    other = connected("other")
    replacement = watch(client)
    assert replacement.stopped_beside() == ()
    other.close()
    wait_until(replacement.stopped_beside, "Redis to notice the end of the connection")
    assert replacement.stopped_beside() == ("other",)


def test_workers_of_another_prefix_that_went_too(client: Client, redis_url: str) -> None:
    with contextlib.closing(connect(redis_url)[1]) as other:
        other.call("CLIENT", "SETNAME", client_name("staging", "mails"))
        replacement = watch(client)
    wait_until(replacement.stopped_beside, "Redis to notice the end of the connection")
    assert replacement.stopped_beside() == ("mails@staging",)


def test_a_restart_of_redis_makes_it_unknown(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    client = connect(server.url)[1]
    worker = connect(server.url)[1]
    worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
    replacement = watch(client)
    server.stop()
    server.start()
    with pytest.raises(FailedError, match="unknown"):
        replacement.read()
    client.close()
    worker.close()
