"""The PM2 manager against a real PM2; only the answers that no PM2 gives come from a fake."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qctl.errors import NotFoundError, QctlError, RefusedError, UnreachableError
from qctl.manage.last_words import last_words, log_size
from qctl.manage.pm2 import rpc
from qctl.manage.pm2.manager import Pm2
from qctl.manage.protocol import ManagedProcess, RestartCall
from tests.labs.pm2 import Pm2 as RealPm2
from tests.labs.pm2_rows import answering, processes, row
from tests.labs.scripts import write_script
from tests.labs.servers import wait_until

HIDDEN = "hunter2-secret"
Start = Callable[[Callable[[socket.socket], None]], Path]


def only(manager: Pm2, name: str) -> ManagedProcess:
    (process,) = manager.find(name)
    return process


def wait_restarted(manager: Pm2, call: RestartCall, before: ManagedProcess) -> ManagedProcess:
    def restarted() -> ManagedProcess | None:
        assert call.error() is None
        now = only(manager, before.key)
        fresh = now.pid not in {None, before.pid} and now.status == "online"
        return now if fresh else None

    try:
        return wait_until(restarted, f"pm_id {before.key} to be restarted")
    finally:
        call.close()


def start_stubborn(pm2: RealPm2) -> tuple[Pm2, ManagedProcess]:
    """An app whose first process ignores SIGINT, and is at the point where it does."""
    script, is_up = pm2.home / "stubborn.js", pm2.home / "is-up"
    script.write_text(
        "const fs = require('fs'); setInterval(() => {}, 1000);"
        f"if (!fs.existsSync('{is_up}')) process.on('SIGINT', () => {{}});"
        f"fs.writeFileSync('{is_up}', '');"
    )
    pm2.start("stubborn", script, kill_timeout=60_000)
    wait_until(is_up.exists, "the app to ignore SIGINT")
    manager = Pm2(pm2.home)
    return manager, only(manager, "stubborn")


def settings(home: Path, pm_id: str) -> dict[str, Any]:
    """The environment and settings that PM2 holds for a process: for comparison only."""

    def complete() -> dict[str, Any] | None:
        # In cluster mode the process itself reports its Node version, after PM2 calls it online.
        found = read_settings(home, pm_id)
        return found if "node_version" in found else None

    return wait_until(complete, f"pm_id {pm_id} to report its Node version")


def read_settings(home: Path, pm_id: str) -> dict[str, Any]:
    for item in rpc.call(home / "rpc.sock", "getMonitorData", {})[0]:
        if str(item["pm_id"]) == pm_id:
            env = item["pm2_env"]
            changing = {"restart_time", "pm_uptime", "created_at", "status", "exit_code"}
            changing |= {"prev_restart_delay", "unstable_restarts", "_tree_pids", "unique_id"}
            return {
                key: value
                for key, value in env.items()
                if key not in changing and not key.startswith("axm_")
            }
    raise AssertionError(f"PM2 has no pm_id {pm_id}")


@pytest.fixture(scope="module")
def looked_at(shared_pm2: RealPm2) -> Pm2:
    """A PM2 with a few apps, for tests that change nothing."""
    idle = shared_pm2.home / "idle.js"
    secret = {"SECRET_TOKEN": HIDDEN}
    shared_pm2.start("fork", idle, secret, instances=2, kill_timeout=30_000, namespace="jobs")
    shared_pm2.start("cluster", idle, secret, instances=2, cluster=True)
    shared_pm2.start("ready", idle, wait_ready=True, listen_timeout=300)
    shared_pm2.start("2", idle)
    shared_pm2.start("halted", idle)
    shared_pm2.run("stop", "halted")
    return Pm2(shared_pm2.home)


def test_the_list_agrees_with_pm2(looked_at: Pm2, shared_pm2: RealPm2) -> None:
    def agreed() -> Sequence[ManagedProcess]:
        expected = {
            (r.name, str(r.pm_id), r.pid or None, r.status, r.restarts, r.namespace)
            for r in shared_pm2.rows()
        }
        found = looked_at.processes()
        got = {(p.name, p.key, p.pid, p.status, p.restarts, p.namespace) for p in found}
        return found if got == expected else ()

    found = wait_until(agreed, "the two to agree")
    assert [int(p.key) for p in found] == sorted(int(p.key) for p in found)
    assert [p.mode for p in found if p.name == "cluster"] == ["cluster", "cluster"]
    assert {p.target for p in found if p.name == "fork"} == {"pm2:fork"}
    assert {p.kill_timeout_ms for p in found if p.name == "fork"} == {30_000}
    assert {p.kill_timeout_ms for p in found if p.name == "cluster"} == {1600}
    assert only(looked_at, "ready").ready_timeout_ms == 300
    assert all(p.rss_bytes and p.started_at_ms for p in found if p.pid)
    assert all(p.script == str(shared_pm2.home / "idle.js") for p in found)


def test_a_stopped_app_is_listed_without_a_process(looked_at: Pm2) -> None:
    process = only(looked_at, "halted")
    assert process.status == "stopped"
    assert (process.pid, process.started_at_ms, process.rss_bytes) == (None, None, None)


def test_secrets_are_in_nothing_that_is_returned(looked_at: Pm2, shared_pm2: RealPm2) -> None:
    assert HIDDEN in str(rpc.call(shared_pm2.home / "rpc.sock", "getMonitorData", {}))
    found = looked_at.processes()
    everything = [
        str(getattr(process, name))
        for process in found
        for name in ManagedProcess.__dataclass_fields__
    ]
    assert HIDDEN not in "".join(everything) + repr(found) + repr(vars(looked_at))
    for name in ("nosuch", "jobs", "default"):
        with pytest.raises(QctlError) as caught:
            looked_at.find(name)
        error = caught.value
        assert HIDDEN not in f"{error!r}{error}{error.what}{error.why}{error.hint}"
        assert error.__context__ is None


def test_names_numbers_and_namespaces(looked_at: Pm2) -> None:
    assert [p.name for p in looked_at.find("fork")] == ["fork", "fork"]
    first, second = looked_at.find("fork")
    assert first.key != second.key
    assert only(looked_at, second.key).pid == second.pid
    with pytest.raises(NotFoundError, match="namespace") as caught:
        looked_at.find("jobs")
    assert caught.value.why == "apps in it: pm2:fork (2 processes)"
    with pytest.raises(NotFoundError, match="namespace"):
        looked_at.find("default")
    with pytest.raises(NotFoundError) as caught:
        looked_at.find("clutser")
    assert caught.value.hint == "did you mean pm2:cluster?"


def test_a_numeric_name_that_is_also_a_pm_id(looked_at: Pm2) -> None:
    app = next(process for process in looked_at.processes() if process.name == "2")
    with pytest.raises(RefusedError) as caught:
        looked_at.find("2")
    assert "pm2:cluster" in caught.value.hint
    assert only(looked_at, app.key).name == "2"


def test_last_words_come_from_the_error_log(looked_at: Pm2) -> None:
    process = looked_at.find("fork")[0]
    words = wait_until(lambda: last_words(process), "the app to write its log")
    assert words == ["first word", "last word"]
    assert last_words(process, log_size(process)) == []


def test_a_restart_changes_the_process_and_nothing_else(real_pm2: RealPm2) -> None:
    idle = real_pm2.home / "idle.js"
    real_pm2.start("worker", idle, {"SECRET_TOKEN": HIDDEN}, instances=2, kill_timeout=4000)
    manager = Pm2(real_pm2.home)
    first, second = manager.find("worker")
    before = settings(real_pm2.home, first.key)
    assert HIDDEN in str(before)

    call = manager.begin_restart(first)
    now = wait_restarted(manager, call, first)

    assert now.restarts == first.restarts + 1
    assert now.kill_timeout_ms == 4000
    assert settings(real_pm2.home, first.key) == before
    same = only(manager, second.key)
    assert (same.pid, same.restarts) == (second.pid, second.restarts)


def test_a_restart_in_cluster_mode(real_pm2: RealPm2) -> None:
    real_pm2.start("web", real_pm2.home / "idle.js", instances=2, cluster=True)
    manager = Pm2(real_pm2.home)
    first, second = manager.find("web")
    before = settings(real_pm2.home, second.key)
    now = wait_restarted(manager, manager.begin_restart(second), second)
    assert now.restarts == second.restarts + 1
    assert settings(real_pm2.home, second.key) == before
    assert only(manager, first.key).pid == first.pid


def test_a_restart_returns_at_once_and_errors_come_later(real_pm2: RealPm2) -> None:
    manager, process = start_stubborn(real_pm2)
    assert process.pid is not None

    call = manager.begin_restart(process)
    # PM2 would take a minute; that it is still at work shows that nothing waited for it.
    assert call.error() is None
    wait_until(lambda: only(manager, "stubborn").status == "stopping", "the app to be stopping")
    again = manager.begin_restart(process)
    message = wait_until(again.error, "PM2 to refuse the second restart")
    assert message == f"Process with pid {process.pid} already exists"
    assert again.error() == message
    again.close()
    os.kill(process.pid, 9)
    assert wait_restarted(manager, call, process).restarts == 1


def test_a_restart_starts_a_stopped_app(real_pm2: RealPm2) -> None:
    real_pm2.start("halted", real_pm2.home / "idle.js")
    real_pm2.run("stop", "halted")
    manager = Pm2(real_pm2.home)
    process = only(manager, "halted")
    now = wait_restarted(manager, manager.begin_restart(process), process)
    assert now.restarts == process.restarts


def test_a_restart_of_a_process_that_is_gone(real_pm2: RealPm2) -> None:
    real_pm2.start("worker", real_pm2.home / "idle.js")
    manager = Pm2(real_pm2.home)
    process = replace(only(manager, "worker"), key="99")
    call = manager.begin_restart(process)
    assert "id unknown" in wait_until(call.error, "PM2 to refuse")
    call.close()
    assert only(manager, "worker").restarts == 0


def test_a_daemon_that_ends_during_a_restart(real_pm2: RealPm2) -> None:
    manager, process = start_stubborn(real_pm2)
    assert process.pid is not None
    call = manager.begin_restart(process)
    try:
        wait_until(lambda: only(manager, "stubborn").status == "stopping", "the stop to begin")
        os.kill(int((real_pm2.home / "pm2.pid").read_text()), 9)

        def is_gone() -> bool:
            # A lost answer is no refusal: PM2 may have been at work.
            assert call.error() is None
            try:
                manager.processes()
            except UnreachableError as error:
                return "does not run" in error.what
            return False

        wait_until(is_gone, "PM2 to be gone")
    finally:
        call.close()
        # Nobody else ends it now.
        os.kill(process.pid, 9)


def test_no_daemon_and_none_is_started(short_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = short_home / "bin"
    commands.mkdir()
    write_script(commands / "pm2", ": > $PM2_HOME/ran")
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    manager = Pm2(short_home)
    (process,) = processes(row(0, "a"))
    for ask in (
        manager.processes,
        lambda: manager.find("a"),
        lambda: manager.begin_restart(process),
    ):
        with pytest.raises(UnreachableError, match="does not run") as caught:
            ask()
        assert str(short_home / "rpc.sock") in caught.value.why
    assert [path.name for path in short_home.iterdir()] == ["bin"]


def test_a_daemon_that_refuses_to_list(fake_daemon: Start) -> None:
    home = fake_daemon(answering({"error": "busy", "stack": HIDDEN}))
    with pytest.raises(UnreachableError) as caught:
        Pm2(home).processes()
    assert caught.value.why == "PM2 said: busy"


def test_a_daemon_that_does_not_answer(fake_daemon: Start) -> None:
    home = fake_daemon(lambda _: None)
    with pytest.raises(UnreachableError, match="does not answer"):
        Pm2(home, timeout_s=0.2).processes()


def test_a_restart_that_is_answered_with_junk_is_not_asked_for_twice(fake_daemon: Start) -> None:
    asked: list[float] = []

    def serve(connection: socket.socket) -> None:
        if connection.recv(65536):
            asked.append(time.monotonic())
            connection.sendall(b"junk")

    home = fake_daemon(serve)
    (process,) = processes(row(0, "worker"))
    call = Pm2(home).begin_restart(process)
    wait_until(lambda: bool(asked), "the restart to be asked for")
    for _ in range(20):
        # Not a refusal: it may well be at work.
        assert call.error() is None
        time.sleep(0.01)
    call.close()
    assert len(asked) == 1
