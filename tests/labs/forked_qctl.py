"""qctl as a process of its own, forked from one that has imported it.

A new interpreter that imports qctl needs 0.15 to 0.2 s of processor time, and most tests of a drain
start qctl several times. A fork has all that a test can ask for: a pid, signals, streams, an
environment, a working folder and an exit code of its own. Only its command line is that of the
process that it was forked from. Tests about the start start ``python -m qctl``.

This file is also that process: ``python forked_qctl.py SOCKET``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

# What commands of tests import; what is left out is heavy, and is imported by those that use it.
_PACKAGES = ("cli", "config", "connection", "manage", "ops", "output", "wire")
_LEFT_OUT = ("qctl.cli.mcp", "qctl.cli.top", "qctl.cli.demo", "qctl.cli.reference")


class ForkedQctl:
    """One command; of ``subprocess.Popen`` it has what ``Running`` needs.

    Args:
        quick: start a restart with the short times of ``quick_qctl.py``.
    """

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], folder: Path, *, quick: bool
    ) -> None:
        out, its_out = os.pipe()
        err, its_err = os.pipe()
        self._status, its_status = os.pipe()
        its_request, request = os.pipe()
        with os.fdopen(request, "w") as file:
            # It fits into the pipe, so nobody needs to read it yet.
            json.dump([list(words), dict(env), str(folder), quick], file)
        theirs = [its_request, its_out, its_err, its_status]
        with _starting:
            server = _server()
        socket.send_fds(server, [b"+"], theirs)
        for fd in theirs:
            os.close(fd)
        # Line ends stay as they are.
        self.stdout = os.fdopen(out, newline="\n")
        self.stderr = os.fdopen(err, newline="\n")
        self.returncode: int | None = None
        self._said = ""
        self._waiting = threading.Lock()
        while "\n" not in self._said:
            self._read_status()
        self.pid = int(self._said.split()[0])

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        with self._waiting:
            # Both lines may have come at once.
            while self._said.count("\n") < 2:
                if not select.select([self._status], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("qctl", timeout)
                self._read_status()
            if self.returncode is None:
                self.returncode = int(self._said.split()[1])
                os.close(self._status)
            return self.returncode

    def _read_status(self) -> None:
        said = os.read(self._status, 64).decode()
        assert said, "the process that qctl is forked from is gone"
        self._said += said

    def send_signal(self, number: int) -> None:
        # Its pid is reported as free before anybody else can get it.
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_starting = threading.Lock()


@cache
def _server() -> socket.socket:
    """The way to the process that forks, which is started by the first command."""
    ours, its = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(its.fileno())],
        pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    its.close()

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours


# From here on: the process that forks.


def _import_qctl() -> None:
    from importlib import import_module  # noqa: PLC0415
    from pkgutil import walk_packages  # noqa: PLC0415

    for package in _PACKAGES:
        module = import_module(f"qctl.{package}")
        for found in walk_packages(module.__path__, f"{module.__name__}."):
            if not found.name.startswith(_LEFT_OUT):
                import_module(found.name)


def _serve(requests: socket.socket) -> list[int]:
    """Fork for each request; returns in each child, with its files, and ends with the tests."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    # Ctrl-C is for the tests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    statuses: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([requests, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _report_ended(statuses)
        if requests not in readable:
            continue
        message, fds, _, _ = socket.recv_fds(requests, 1, 4)
        if not message:
            sys.exit()
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            requests.close()
            for fd in (woken, wake, *statuses.values()):
                os.close(fd)
            return fds
        *others, status = fds
        for fd in others:
            os.close(fd)
        os.write(status, f"{pid}\n".encode())
        statuses[pid] = status


def _report_ended(statuses: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while pid := (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = statuses.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(status, f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
            os.close(status)


def _become_qctl(request: int, out: int, err: int, status: int) -> NoReturn:
    """Run the command of a request in this process."""
    import traceback  # noqa: PLC0415
    from runpy import run_path  # noqa: PLC0415

    from qctl.cli.main import main  # noqa: PLC0415

    with os.fdopen(request) as file:
        words, env, folder, quick = json.load(file)
    os.close(status)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    # As a new interpreter opens them for pipes.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["qctl", *words]
    if quick:
        run_path(str(Path(__file__).with_name("quick_qctl.py")))
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    # The interpreter's own end would take longer than most commands, to free what all forks share.
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    import gc

    _import_qctl()
    gc.freeze()
    _become_qctl(*_serve(socket.socket(fileno=int(sys.argv[1]))))
