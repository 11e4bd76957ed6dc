"""One restart and its proof, with real processes and a manager that does as the test says.

PM2 is not needed here: what it does wrong in life is played by ``FakeManager``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import FailedError, TimedOutError
from qctl.manage import protocol
from qctl.manage.protocol import ManagedProcess
from qctl.ops.patience import Pulse
from qctl.ops.processes import restart as module
from qctl.ops.processes.restart import POLL_S, Interrupted, Ready, Restart
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import Connected, Workers, client_name
from tests.labs.drains import is_alive
from tests.labs.managers import FakeManager
from tests.labs.servers import RedisServer


@pytest.fixture
def manage(
    client: Client, redis_url: str, tmp_path: Path
) -> Iterator[Callable[[str], FakeManager]]:
    made: list[FakeManager] = []

    def start(behaviour: str) -> FakeManager:
        port = int(redis_url.rpartition(":")[2].split("/")[0])
        made.append(FakeManager(port, behaviour, tmp_path / "log"))
        return made[-1]

    yield start
    for manager in made:
        manager.end_all()


def restart(
    client: Client,
    manager: FakeManager,
    *,
    by_address: bool = True,
    queues: frozenset[str] = frozenset({"q"}),
    stop: Callable[[], bool] = lambda: False,
    timeout_s: float = 600.0,
) -> Restart:
    return Restart(
        client,
        manager,
        manager.row(),
        stop,
        queues=frozenset(QueueKeys("bull", name) for name in queues),
        by_address=by_address,
        prefix="bull",
        db=0,
        timeout_s=timeout_s,
        watch_s=0.5,
        pulse=Pulse(),
    )


def carry_out(run: Restart) -> Ready:
    """Carry out one restart alone."""
    waits = run.run()
    while True:
        try:
            next(waits)
        except StopIteration as end:
            ready: Ready = end.value
            return ready
        time.sleep(POLL_S)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BOOT_S", 0.4)


@pytest.mark.parametrize("by_address", [True, False])
def test_a_restart_is_proved(
    manage: Callable[[str], FakeManager], client: Client, by_address: bool
) -> None:
    manager = manage("good")
    old = manager.children[0].pid
    ready = carry_out(restart(client, manager, by_address=by_address))
    assert (ready.old_pid, ready.new_pid) == (old, manager.children[1].pid)
    assert (ready.target, ready.key, ready.workers) == ("fake:app", "7", ("q",))
    assert ready.took_s >= module.SETTLE_S
    assert not is_alive(old)
    assert manager.closed


def test_a_new_connection_to_another_master_of_a_cluster_has_any_number(
    manage: Callable[[str], FakeManager],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BOOT_S", 5)
    manager = manage("good")
    ask = module.list_all_workers
    # As if the first master that was asked had had more connections in its life than this Redis.
    before = ask(client)
    assert before is not None
    assert before.workers
    older = Workers(replace(worker, client_id=worker.client_id + 1000) for worker in before.workers)
    answers = [replace(before, workers=older)]

    def listed(*args: Any) -> Connected | None:
        return answers.pop() if answers else ask(*args)

    monkeypatch.setattr(module, "list_all_workers", listed)
    carry_out(restart(client, manager, by_address=False))


def test_a_process_that_serves_no_queue_only_has_to_stay_up(
    manage: Callable[[str], FakeManager], client: Client
) -> None:
    manager = manage("idle")
    ready = carry_out(restart(client, manager, queues=frozenset()))
    assert ready.new_pid == manager.children[1].pid


def test_the_managers_refusal_is_told(manage: Callable[[str], FakeManager], client: Client) -> None:
    manager = manage("refuse")
    with pytest.raises(FailedError, match="refused to restart fake:app") as caught:
        carry_out(restart(client, manager))
    assert caught.value.why == "another restart is under way"
    assert is_alive(manager.children[0].pid)
    assert manager.closed


def test_a_process_that_does_not_stop(
    manage: Callable[[str], FakeManager], client: Client, impatient: None
) -> None:
    manager = manage("stubborn")
    with pytest.raises(FailedError, match="did not stop") as caught:
        carry_out(restart(client, manager))
    assert str(manager.children[0].pid) in caught.value.why


def test_without_a_kill_timeout_the_wait_ends_all_the_same(
    manage: Callable[[str], FakeManager],
    client: Client,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "_UNKNOWN_STOP_S", 0.2)
    manager = manage("stubborn")
    manager.kill_timeout_ms = protocol.NO_LIMIT_MS
    with pytest.raises(FailedError, match="did not stop"):
        carry_out(restart(client, manager))


def test_a_worker_that_never_connects(
    manage: Callable[[str], FakeManager], client: Client, impatient: None
) -> None:
    manager = manage("silent")
    with pytest.raises(FailedError, match="not ready") as caught:
        carry_out(restart(client, manager))
    assert "no worker has connected for q" in caught.value.why
    assert "a setting is missing" in caught.value.why


def test_a_worker_of_another_process_proves_nothing(
    manage: Callable[[str], FakeManager], client: Client, redis_url: str, impatient: None
) -> None:
    manager = manage("silent")
    run = restart(client, manager)
    # Younger than the restart and of the right queue, but this process holds it.
    with contextlib.closing(connect(redis_url)[1]) as stranger:
        stranger.call("CLIENT", "SETNAME", client_name("bull", "q"))
        with pytest.raises(FailedError, match="not ready"):
            carry_out(run)


def test_an_old_worker_of_the_queue_proves_nothing(
    manage: Callable[[str], FakeManager], client: Client, redis_url: str, impatient: None
) -> None:
    manager = manage("silent")
    with contextlib.closing(connect(redis_url)[1]) as old:
        old.call("CLIENT", "SETNAME", client_name("bull", "q"))
        with pytest.raises(FailedError, match="not ready"):
            carry_out(restart(client, manager, by_address=False))


def test_a_process_that_keeps_crashing(
    manage: Callable[[str], FakeManager], client: Client
) -> None:
    manager = manage("crash")
    with pytest.raises(FailedError, match="keeps crashing") as caught:
        carry_out(restart(client, manager))
    assert "a setting is missing" in caught.value.why


def test_a_process_that_its_manager_gave_up(
    manage: Callable[[str], FakeManager], client: Client
) -> None:
    manager = manage("errored")
    with pytest.raises(FailedError, match="keeps crashing") as caught:
        carry_out(restart(client, manager))
    assert caught.value.why.startswith("Error: a setting is missing\n")
    assert "its status is errored; no worker of q is connected now" in caught.value.why
    assert "long ago" not in caught.value.why


def test_a_process_that_somebody_deleted(
    manage: Callable[[str], FakeManager], client: Client
) -> None:
    manager = manage("good")
    run = restart(client, manager)
    manager.behaviour = "delete"
    with pytest.raises(FailedError, match="no longer under its manager"):
        carry_out(run)


def test_a_wish_to_stop_is_heard_once_the_old_process_is_gone(
    manage: Callable[[str], FakeManager], client: Client
) -> None:
    manager = manage("stubborn")
    stop = threading.Event()
    stop.set()
    run = restart(client, manager, stop=stop.is_set)
    ended: list[BaseException] = []

    def go() -> None:
        try:
            carry_out(run)
        except Interrupted as error:
            ended.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    manager.end(manager.children[0])
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1


@pytest.mark.parametrize("kill_timeout_ms", [3_600_000, protocol.NO_LIMIT_MS, None])
def test_a_wish_to_stop_does_not_wait_for_a_late_kill(
    manage: Callable[[str], FakeManager], client: Client, kill_timeout_ms: int | None
) -> None:
    manager = manage("stubborn")
    manager.kill_timeout_ms = kill_timeout_ms
    run = restart(client, manager, stop=lambda: True)
    with pytest.raises(Interrupted):
        carry_out(run)
    pid = manager.children[0].pid
    assert is_alive(pid)
    remark = run.still_stopping()
    assert f"pid {pid} runs until it exits" in remark
    assert ("SIGKILL comes at" in remark) is (kill_timeout_ms == 3_600_000)
    manager.end(manager.children[0])
    assert run.still_stopping() == ""


def test_the_drains_time_limit_ends_the_wait_for_a_late_kill(
    manage: Callable[[str], FakeManager],
    client: Client,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MIN_STOP_S", 0.1)
    manager = manage("stubborn")
    manager.kill_timeout_ms = 3_600_000
    with pytest.raises(TimedOutError, match="has not stopped in time"):
        carry_out(restart(client, manager, timeout_s=0.2))


def test_another_process_with_the_old_pid_does_not_fool_it(
    manage: Callable[[str], FakeManager], client: Client
) -> None:
    run = restart(client, manage("stubborn"))
    assert not run.old_is_gone()
    assert run.old_birth_s is not None
    run.old_birth_s -= 3600
    assert run.old_is_gone()


@pytest.mark.parametrize("by_address", [True, False])
def test_a_redis_that_numbers_its_connections_anew(
    start_redis: Callable[..., RedisServer], by_address: bool, tmp_path: Path
) -> None:
    """As after a failover or a restart; the new worker has a lower number than the old one."""
    server = start_redis()
    with contextlib.closing(connect(server.url)[1]) as client:
        for _ in range(30):
            client.close()
            client.call("PING")
        manager = FakeManager(server.port, "good", tmp_path / "log")
        run = restart(client, manager, by_address=by_address)
        server.stop()
        server.start()
        client.close()
        try:
            assert carry_out(run).new_pid == manager.children[1].pid
        finally:
            manager.end_all()


def test_a_manager_that_does_not_answer_shows_in_the_pulse(
    client: Client, manage: Callable[[str], FakeManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manage("good")
    run = restart(client, manager)
    seen: list[list[str]] = []
    inner = manager.process

    def slow(key: str) -> ManagedProcess | None:
        monkeypatch.setattr("qctl.ops.patience.SILENT_S", 0.0)
        seen.append([whom for whom, _ in run.pulse.silent()])
        return inner(key)

    monkeypatch.setattr(manager, "process", slow)
    run.row()
    assert seen == [["PM2"]]
    assert run.pulse.silent() == []
