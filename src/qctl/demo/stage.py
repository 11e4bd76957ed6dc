"""The demo's environment: a folder, a Redis, the commands that use both, and the clean-up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from qctl.config.prefixes import escaped
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.connection.embedded.server import EmbeddedServer, start_kept, start_private
from qctl.demo.app import FOLDER_VARIABLE, PID_VARIABLE
from qctl.errors import FailedError, InterruptedByUserError

T = TypeVar("T")

_POLL_S = 0.03
# How long an interrupted command may take to end: a drain first undoes its changes.
_STOP_S = 10.0
# How long to search for processes to kill.
_MAX_KILL_S = 5.0
# Variables of the operator that the demo's commands must not see.
_HIDDEN = ("REDIS_URL", "QCTL_REDIS_URL", "QCTL_CONTEXT", "QCTL_OUTPUT", "QCTL_MAX_STALLED_COUNT")


@dataclass(frozen=True, slots=True)
class Stage:
    """The environment in which the demo's commands and its worker run.

    Args:
        say: shows a line of text to the operator.
        stop: returns whether the operator wants to stop.
        folder: holds the demo's files and the state of its worker.
        server, client: the demo's Redis, and a connection to that Redis.
        output: receives the output of the commands; None for stdout.
    """

    say: Callable[[str], None]
    stop: Callable[[], bool]
    prefix: str
    folder: Path
    server: EmbeddedServer
    client: Client
    environ: Mapping[str, str]
    output: TextIO | None

    def qctl(self, words: str) -> None:
        """Show a command, run it, and show its output.

        Raises:
            FailedError: the command failed.
            InterruptedByUserError: the operator wants to stop; the command has ended.
        """
        self.say(f"$ qctl {words}")
        process = subprocess.Popen(
            [sys.executable, "-m", "qctl", *words.split()],
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            # Shown together with stdout, because a drain reports its steps on stderr.
            stderr=subprocess.STDOUT,
        )
        try:
            self.wait(lambda: process.poll() is not None, f"qctl {words}", timeout_s=None)
        except InterruptedByUserError:
            # The terminal sends Ctrl-C to the command, too, but a SIGTERM reaches only the demo.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            raise
        finally:
            # ``kill`` does nothing to a process that has ended.
            process.kill()
            process.wait()
        self._check_stop()
        if process.returncode:
            raise FailedError(f"`qctl {words}` has failed, exit code {process.returncode}")

    def wait(self, condition: Callable[[], T], what: str, *, timeout_s: float | None = 20.0) -> T:
        """Wait until ``condition`` returns a true value, and return that value.

        Raises:
            FailedError: the time limit passed; the message contains ``what``.
            InterruptedByUserError: the operator wants to stop.
        """
        began = time.monotonic()
        while not (value := condition()):
            self._check_stop()
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise FailedError(f"gave up after waiting {timeout_s:g} s for {what}")
            time.sleep(_POLL_S)
        return value

    def _check_stop(self) -> None:
        if self.stop():
            # The message is shown after the clean-up.
            raise InterruptedByUserError("interrupted; everything that the demo started has ended")


@contextlib.contextmanager
def open_stage(
    say: Callable[[str], None],
    stop: Callable[[], bool],
    environ: Mapping[str, str],
    *,
    prefix: str,
    keep: bool,
    to_stderr: bool,
) -> Iterator[Stage]:
    """Yield a stage with its own Redis; afterwards end its processes and remove its folder.

    Args:
        environ: the operator's environment variables.
        keep: leave Redis, the worker and the folder, unless the demo fails.
        to_stderr: whether the output of commands goes to stderr instead of stdout.
    """
    folder = Path(tempfile.mkdtemp(prefix="qctl-demo-"))
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        server = start_kept(folder / "redis") if keep else start_private()
        ends.callback(server.stop)
        ends.callback(_kill_all, str(folder))
        client = ends.enter_context(contextlib.closing(connect(server.url)[1]))
        homes = ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PM2_HOME", FOLDER_VARIABLE)
        own = {
            **dict.fromkeys(homes, str(folder)),
            "QCTL_REDIS_URL": server.url,
            "QCTL_PREFIX": escaped(prefix),
        }
        if not keep:
            own[PID_VARIABLE] = str(os.getpid())
        rest = {name: value for name, value in environ.items() if name not in _HIDDEN}
        output = sys.stderr if to_stderr else None
        yield Stage(say, stop, prefix, folder, server, client, rest | own, output)
        if keep:
            client.close()
            ends.pop_all()


def _kill_all(folder: str) -> None:
    """Kill all processes that the demo started, except Redis, which lacks the demo's variable.

    The processes get no time to finish their jobs, because the jobs are deleted with Redis.
    """
    import psutil  # noqa: PLC0415 - 30 ms, only at the end

    deadline = time.monotonic() + _MAX_KILL_S
    # Repeat until none is found: a master may start a child during the search. A zombie is not
    # found, because it has no environment.
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
