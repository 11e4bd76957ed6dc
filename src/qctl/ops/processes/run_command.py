"""Run the operator's own command, without a shell or stdin. Its output goes to our stderr."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from qctl.durations import duration
from qctl.errors import FailedError, UsageError
from qctl.ops.processes.restart import Interrupted

# When qctl ends a command early, the time between SIGTERM and SIGKILL.
TERM_GRACE_S = 10.0
_STDERR = 2
# Defaults: how long a command may run, and how long its workers may take to connect afterwards.
COMMAND_TIMEOUT_S = 600.0
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """A command that restarts workers, and how to prove that they restarted.

    The operator gives the command, or a process manager does.

    Args:
        argv: the program and its arguments.
        timeout_s: how long the command may run.
        ready_timeout_s: how long its workers may take to connect after the command has ended.
        expected_workers: how many new workers each queue needs; None for as many as it has now.
        is_proved: whether new workers must be seen. If not, the exit code alone decides.
        shortcoming: asks a process manager why the restart is not complete, and returns the answer
            ("" if it is complete). None if there is no manager to ask.
    """

    argv: tuple[str, ...]
    timeout_s: float = COMMAND_TIMEOUT_S
    ready_timeout_s: float = READY_TIMEOUT_S
    expected_workers: int | None = None
    is_proved: bool = True
    shortcoming: Callable[[], str] | None = None


def require_command(argv: Sequence[str]) -> None:
    """Raise a UsageError if the program of the command does not exist."""
    if shutil.which(argv[0]) is None:
        raise UsageError(
            f"there is no command {argv[0]!r}",
            why="the words after -- are run without a shell, so the first must name a program",
            hint="give the path of the program, or wrap shell syntax: -- sh -c '…'",
        )


def run_command(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout_s: float,
    stop: Callable[[], bool],
    rest: Callable[[], object],
    on_start: Callable[[int], object] = lambda _: None,
) -> None:
    """Run a command to its end.

    The command has a session of its own: Ctrl-C reaches only qctl, which then ends the command. If
    qctl is killed, the command goes on, because half a deployment would be worse.

    Args:
        env: variables added to qctl's own environment.
        timeout_s: after this time the command gets SIGTERM, and SIGKILL ``TERM_GRACE_S`` later.
        stop: returns whether the operator wants to stop; called often.
        rest: waits a short time.
        on_start: called with the pid of the command.

    Raises:
        FailedError: the command could not be started, failed, or took too long.
        Interrupted: ``stop`` returned True; the command has ended.
    """
    # The arguments may hold secrets, so messages show the program only.
    shown = argv[0]
    try:
        process = subprocess.Popen(
            argv,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            start_new_session=True,
        )
    except OSError as error:
        raise FailedError(f"{shown} could not be started", why=str(error)) from None
    on_start(process.pid)
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if stop():
            _end(process, rest)
            raise Interrupted
        if time.monotonic() > deadline:
            _end(process, rest)
            raise FailedError(
                f"{shown} did not end within {duration(timeout_s)}, so it was ended",
                hint="allow it more time with --command-timeout D",
            )
        rest()
    code = process.returncode
    if code < 0:
        raise FailedError(f"{shown} was ended by {signal.Signals(-code).name}")
    if code:
        raise FailedError(f"{shown} failed with exit code {code}", why="its output is above")


def _end(process: subprocess.Popen[bytes], rest: Callable[[], object]) -> None:
    """End the command and the other processes of its process group."""
    kill_at = time.monotonic() + TERM_GRACE_S
    _signal_group(process.pid, signal.SIGTERM)
    while process.poll() is None and time.monotonic() < kill_at:
        rest()
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
