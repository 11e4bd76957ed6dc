"""qctl's own masters as a process manager."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from qctl.errors import NotFoundError, UnreachableError, UsageError
from qctl.manage.host import read_birth_s
from qctl.manage.last_words import last_words
from qctl.manage.protocol import Manager
from qctl.manage.qctl import state
from qctl.manage.qctl.manager import Qctl, refusal
from qctl.manage.qctl.state import MasterFolder, MasterState, check_name, master_names
from tests.labs import masters as labs
from tests.labs.masters import MasterLab
from tests.labs.servers import wait_until

master_lab = labs.master_lab


def test_processes_are_found_and_replaced(master_lab: MasterLab) -> None:
    lab = master_lab
    manager: Manager = Qctl(lab.state_home / "qctl")
    assert manager.processes() == []
    words = ("start", "w", "app:worker", "--processes", "2")
    assert lab.qctl("worker", *words).returncode == 0
    old = manager.processes()
    # Between two readings, a process may report another size.
    wait_until(lambda: manager.find("w") == manager.processes(), "two equal readings")
    assert [p.key for p in old] == ["w/0", "w/1"]
    (second,) = manager.find("w/1")
    assert (second.target, second.pid) == ("qctl:w/1", old[1].pid)
    one = old[0]
    assert (one.target, one.status, one.stop_signal, one.mode, one.kill_timeout_ms) == (
        *("qctl:w", "online", "SIGTERM", "fork", 86_400_000),
    )
    assert (one.restarts, one.script, one.cwd) == (0, "app:worker", str(lab.folder))
    assert one.pid is not None
    assert one.started_at_ms is not None
    assert abs(psutil.Process(one.pid).create_time() - one.started_at_ms / 1000) < 2

    call = manager.begin_restart(one)
    wait_until(lambda: manager.find("w")[0].pid != one.pid, "the replacement")
    new = manager.find("w")
    assert (new[0].status, new[0].restarts, new[1].pid) == ("online", 1, old[1].pid)
    assert call.error() is None
    call.close()

    lab.write("raise RuntimeError('no database today')\n")
    call = manager.begin_restart(new[0])
    error = wait_until(call.error, "the refusal")
    first = "the new process died before it was ready: RuntimeError: no database today\n"
    assert error.startswith(first)
    assert call.error() == error
    call.close()
    assert [p.pid for p in manager.find("w")] == [p.pid for p in new]
    assert last_words(one)[0] == "RuntimeError: no database today"

    with pytest.raises(NotFoundError, match="has no process 7") as caught:
        manager.find("w/7")
    assert caught.value.why == "it has: w/0, w/1"
    with pytest.raises(NotFoundError, match="no worker qctl:x") as caught:
        manager.find("x")
    assert caught.value.why == "running: qctl:w"
    assert lab.qctl("worker", "stop", "w").returncode == 0
    with pytest.raises(NotFoundError, match="qctl:w is stopped") as caught:
        manager.find("w")
    assert caught.value.hint == "qctl worker start w app:worker --processes 2"
    assert manager.stopped() == [("w", caught.value.hint)]
    assert manager.process("w/0") is None
    with pytest.raises(UnreachableError):
        manager.begin_restart(one)
    assert manager.processes() == []


def make(home: Path, name: str = "w", **changes: object) -> MasterFolder:
    found = MasterFolder(home, name)
    found.make()
    birth_s = read_birth_s(os.getpid()) or 0.0
    row = {"pid": os.getpid(), "birth_s": birth_s, "started_at_s": time.time(), **changes}
    found.write(MasterState(name, apps=("a:b",), cwd="/", processes=1, grace_s=0.0, **row))  # type: ignore[arg-type]
    return found


def test_a_pid_that_came_round_again_is_not_the_master(tmp_path: Path) -> None:
    assert make(tmp_path, "now").running()
    assert make(tmp_path, "then", birth_s=-9.0).running() is None
    assert master_names(tmp_path) == ["now", "then"]


def test_a_broken_state_is_none(tmp_path: Path) -> None:
    found = make(tmp_path)
    for text in ("", "[]", '{"name": 1}', "\x00"):
        (found.path / "state.json").write_text(text)
        assert found.read() is None
        assert found.running() is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 41, "ä", "a\n"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_a_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long") as caught:
        MasterFolder(tmp_path / ("x" * 100), "w").make()
    assert "XDG_STATE_HOME" in caught.value.hint


def test_one_master_at_a_time(tmp_path: Path) -> None:
    found = make(tmp_path)
    lock = found.try_lock()
    assert lock is not None
    assert found.try_lock() is None
    os.close(lock)
    lock = found.try_lock()
    assert lock is not None
    os.close(lock)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "ended before"),
        (b"no json\n", "not understood"),
        (b"[1]\n", "not understood"),
        (b"x" * 5_000_000, "too long"),
    ],
)
def test_answers_that_no_master_gives(tmp_path: Path, answer: bytes, why: str) -> None:
    found = make(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(found.socket))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert json.loads(connection.recv(1000)) == {"do": "state"}
                with suppress(BrokenPipeError):
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UnreachableError) as caught:
            found.ask({"do": "state"})
        thread.join()
    assert why in caught.value.why
    # A master that does not answer properly shows no processes.
    assert Qctl(tmp_path).processes() == []


def test_a_master_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "ASK_TIMEOUT_S", 0.05)
    found = make(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(found.socket))
        server.listen()
        with pytest.raises(UnreachableError, match="does not answer"):
            found.ask({"do": "state"})


def test_refusals() -> None:
    assert refusal({"replaced": []}) is None
    assert refusal({"error": "no", "words": ["a", "b"]}) == "no: a\n    b"
