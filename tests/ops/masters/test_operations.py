"""Masters in the background, by what their folders and control sockets say."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qctl.errors import NotFoundError, TimedOutError
from qctl.manage.host import read_birth_s
from qctl.manage.qctl.state import MasterFolder, MasterState, Replaced
from qctl.ops.masters.control import restart, stop
from qctl.ops.masters.listing import Master, MasterProcess, list_masters, read_logs

SLOT = {
    "slot": 0,
    "status": "online",
    "pid": 7,
    "started_at_ms": 1,
    "restarts": 2,
    "busy": 3,
    "done": 4,
    "rss_bytes": None,
    "queues": ["q"],
}


@pytest.fixture
def home() -> Iterator[Path]:
    # Not tmp_path: a socket's path must be short.
    path = Path(tempfile.mkdtemp(prefix="qm-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def make(home: Path, name: str, *, runs: bool) -> MasterFolder:
    """The folder of a master: this process, or an older one that had its pid."""
    folder = MasterFolder(home, name)
    folder.make()
    birth_s = read_birth_s(os.getpid()) if runs else 1.0
    assert birth_s is not None
    folder.write(MasterState(name, os.getpid(), birth_s, 5.0, ("app:worker",), "/srv", 1, 30.0))
    return folder


def answer(
    folder: MasterFolder, reply: dict[str, Any], *, silent: bool = False
) -> threading.Thread:
    """Answer one request on the control socket; or read it, and say nothing for a while."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder.socket))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(4096)
            if silent:
                connection.recv(1)
            else:
                connection.sendall(json.dumps(reply).encode() + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def only(home: Path) -> Master:
    (master,) = list_masters(home)
    return master


def test_a_stopped_master_keeps_its_apps(home: Path) -> None:
    make(home, "w", runs=False)
    master = only(home)
    assert (master.target, master.status, master.pid) == ("qctl:w", "stopped", None)
    assert (master.apps, master.cwd, master.processes) == (("app:worker",), "/srv", ())


def test_a_master_that_runs_and_does_not_answer_is_stuck(home: Path) -> None:
    make(home, "w", runs=True)
    master = only(home)
    assert (master.status, master.pid, master.processes) == ("stuck", os.getpid(), ())


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"ready": True, "stopping": False}, "online"),
        ({"ready": False, "stopping": False}, "launching"),
        ({"ready": True, "stopping": True}, "stopping"),
    ],
)
def test_the_state_of_one_that_answers(home: Path, state: dict[str, bool], status: str) -> None:
    folder = make(home, "w", runs=True)
    # A newer master may report more than this version knows.
    slot = {**SLOT, "added_later": 1}
    thread = answer(folder, {**state, "slots": [slot], "leaving": [8]})
    master = only(home)
    thread.join(10)
    assert (master.status, master.leaving) == (status, (8,))
    assert master.processes == (MasterProcess(0, "online", 7, 1, 2, 3, 4, None, ["q"]),)


def test_to_stop_one_that_does_not_run_is_no_error(home: Path) -> None:
    make(home, "w", runs=False)
    assert stop(home, "w", timeout_s=None, now=False) is None
    with pytest.raises(NotFoundError):
        stop(home, "nope", timeout_s=None, now=False)


def test_a_restart_names_what_was_replaced(home: Path) -> None:
    folder = make(home, "w", runs=True)
    thread = answer(folder, {"replaced": [{"slot": 0, "old_pid": None, "new_pid": 9}]})
    assert restart(home, "w", 20) == [Replaced(0, None, 9)]
    thread.join(10)


def test_a_restart_that_takes_too_long(home: Path) -> None:
    folder = make(home, "w", runs=True)
    thread = answer(folder, {}, silent=True)
    with pytest.raises(TimedOutError):
        restart(home, "w", 0.1)
    thread.join(10)


@pytest.mark.parametrize("runs", [False, True])
def test_a_deleted_log_does_not_mean_that_the_master_is_stopped(home: Path, runs: bool) -> None:
    folder = make(home, "w", runs=runs)
    with pytest.raises(NotFoundError, match="qctl:w has no log") as caught:
        next(read_logs(home, "w", 10, follow=False))
    assert str(folder.log) in caught.value.why
    with pytest.raises(NotFoundError, match="there is no worker qctl:other"):
        next(read_logs(home, "other", 10, follow=False))
