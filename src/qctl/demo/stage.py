"""Where the demo happens: a folder, a Redis, commands run in both, and the end of it all."""

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
# Of a command that was told to stop; drains put back what they changed.
_STOP_S = 10.0
_GONE_S = 5.0
# Meant for other queues and servers than the demo's.
_NOT_OURS = ("REDIS_URL", "QCTL_REDIS_URL", "QCTL_CONTEXT", "QCTL_OUTPUT", "QCTL_MAX_STALLED_COUNT")


class Stage:
    """Everything that a demo needs beside its story; as a context manager it cleans up.

    Args:
        say: shows a line.
        stop: whether the operator wants to stop.
        environ: of the operator.
        prefix: BullMQ's key prefix.
        keep: let Redis and what runs in the background outlive this process, unless the demo fails.
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
        """What answers, for people."""
        assert self._server is not None  # noqa: S101
        return self._server.description

    def qctl(self, words: str) -> None:
        """Show a command, run it, show what it prints.

        Raises:
            FailedError: it fails.
            InterruptedByUserError: the operator wants to stop; so was the command told.
        """
        self.say(f"$ qctl {words}")
        process = subprocess.Popen(
            [sys.executable, "-m", "qctl", *words.split()],
            env=self._environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            # Where one is shown the other is: a drain tells its steps there.
            stderr=subprocess.STDOUT,
        )
        try:
            self.wait(lambda: process.poll() is not None, f"qctl {words}", timeout_s=None)
        except InterruptedByUserError:
            # In a terminal it has heard the same.
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
        """The first truthy value of a condition.

        Raises:
            FailedError: none comes in time.
            InterruptedByUserError: the operator wants to stop.
        """
        began = time.monotonic()
        while not (value := condition()):
            self.check_stop()
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise FailedError(f"waited {timeout_s:g} s in vain for {what}")
            time.sleep(_POLL_S)
        return value

    def check_stop(self) -> None:
        """See whether to go on.

        Raises:
            InterruptedByUserError: the operator wants to stop.
        """
        if self._stop():
            raise InterruptedByUserError("interrupted; all that the demo had started has ended")

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
    """Kill what was started with this folder in its environment; Redis is no part of that.

    Nothing is given the time to finish: what it works on goes as well.
    """
    import psutil  # noqa: PLC0415 - 30 ms that only the end pays

    deadline = time.monotonic() + _GONE_S
    # Until none is found: a master may have started a child while the others were looked for. What
    # waits for init to take note of its end has no environment any more.
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
