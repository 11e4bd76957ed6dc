"""The demo's surroundings: a folder, a Redis, the commands that run in them, and the clean-up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.connection.embedded.server import EmbeddedServer, start_kept, start_private
from qctl.demo.app import FOLDER_VARIABLE, OWNER_VARIABLE
from qctl.errors import FailedError, InterruptedByUserError

T = TypeVar("T")

_POLL_S = 0.03
# How long an interrupted command may take to end: a drain undoes its changes.
_STOP_S = 10.0
_GONE_S = 5.0
# Variables of the operator that the demo must not use.
_NOT_OURS = ("REDIS_URL", "QCTL_REDIS_URL", "QCTL_CONTEXT", "QCTL_OUTPUT", "QCTL_MAX_STALLED_COUNT")


class Stage:
    """Everything that the demo needs besides its story; as a context manager it cleans up.

    Args:
        say: shows a line.
        stop: whether the operator wants to stop.
        environ: the operator's environment.
        prefix: BullMQ's key prefix.
        keep: leave Redis and the worker running after this process, unless the demo fails.
        to_stderr: whether the output of commands goes to stderr.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        stop: Callable[[], bool],
        environ: Mapping[str, str],
        *,
        prefix: str,
        keep: bool,
        to_stderr: bool,
    ) -> None:
        self.say = say
        self._stop = stop
        self._keep = keep
        self._output = sys.stderr if to_stderr else None
        self.prefix = prefix
        self.folder = Path(tempfile.mkdtemp(prefix="qctl-demo-"))
        self._server: EmbeddedServer | None = None
        try:
            start = start_kept if keep else start_private
            self._server = start(self.redis_folder)
            self.client: Client = connect(self._server.url)[1]
        except BaseException:
            self._clean()
            raise
        own = {
            "QCTL_REDIS_URL": self.redis_url,
            "QCTL_PREFIX": prefix,
            "XDG_STATE_HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
            "PM2_HOME": str(self.folder),
            FOLDER_VARIABLE: str(self.folder),
        }
        if not keep:
            own[OWNER_VARIABLE] = str(os.getpid())
        rest = {name: value for name, value in environ.items() if name not in _NOT_OURS}
        self._environ = rest | own

    @property
    def redis_url(self) -> str:
        assert self._server is not None  # noqa: S101
        return self._server.url

    @property
    def redis_folder(self) -> Path:
        return self.folder / "redis"

    @property
    def redis(self) -> str:
        """The server, for people."""
        assert self._server is not None  # noqa: S101
        return self._server.description

    def qctl(self, words: str) -> None:
        """Show a command, run it, and show its output.

        Raises:
            FailedError: the command failed.
            InterruptedByUserError: the operator wants to stop; the command was interrupted too.
        """
        self.say(f"$ qctl {words}")
        process = subprocess.Popen(
            [sys.executable, "-m", "qctl", *words.split()],
            env=self._environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            # Shown together: a drain reports its steps on stderr.
            stderr=subprocess.STDOUT,
        )
        try:
            self.wait(lambda: process.poll() is not None, f"qctl {words}", timeout_s=None)
        except InterruptedByUserError:
            # In a terminal, Ctrl-C has already reached it.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.check_stop()
        if process.returncode:
            raise FailedError(f"`qctl {words}` has failed, exit code {process.returncode}")

    def wait(self, condition: Callable[[], T], what: str, *, timeout_s: float | None = 20.0) -> T:
        """Wait until a condition returns something truthy, and return that.

        Raises:
            FailedError: the time limit passed.
            InterruptedByUserError: the operator wants to stop.
        """
        began = time.monotonic()
        while not (value := condition()):
            self.check_stop()
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise FailedError(f"gave up after waiting {timeout_s:g} s for {what}")
            time.sleep(_POLL_S)
        return value

    def check_stop(self) -> None:
        """Raise if the operator wants to stop.

        Raises:
            InterruptedByUserError: the operator wants to stop.
        """
        if self._stop():
            raise InterruptedByUserError("interrupted; everything that the demo started has ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        if not self._keep or error is not None:
            self._clean()

    def _clean(self) -> None:
        _kill_all(str(self.folder))
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _kill_all(folder: str) -> None:
    """Kill all processes with this folder in their environment; Redis does not have it.

    They get no time to finish: their jobs are removed as well.
    """
    import psutil  # noqa: PLC0415 - 30 ms, only at the end

    deadline = time.monotonic() + _GONE_S
    # Repeat until none is found: a master may start a child during the search. A zombie has no
    # environment, so it is not found.
    while time.monotonic() < deadline:
        found = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(FOLDER_VARIABLE) == folder:
                    process.kill()
                    found = True
        if not found:
            return
        time.sleep(_POLL_S)
