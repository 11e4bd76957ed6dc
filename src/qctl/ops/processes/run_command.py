"""Run the operator's own command: no shell, no stdin, its output passed through to stderr."""

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
from qctl.ops.processes.restart import BOOT_S, Interrupted

# Between SIGTERM and SIGKILL, for a command that is ended early.
TERM_GRACE_S = 10.0
COMMAND_TIMEOUT_S = 600.0
_STDERR = 2


@dataclass(frozen=True, slots=True)
class OperatorCommand:
    """A command that restarts workers, and what must prove that it did.

    Args:
        argv: the program and its arguments.
        timeout_s: how long it may run.
        ready_timeout_s: how long its workers may take to connect after that.
        expected_workers: how many new workers each queue needs; None for as many as it has.
        is_proved: False if the connected workers prove nothing, so its exit code has to do.
    """

    argv: tuple[str, ...]
    timeout_s: float = COMMAND_TIMEOUT_S
    ready_timeout_s: float = BOOT_S
    expected_workers: int | None = None
    is_proved: bool = True


def require_command(argv: Sequence[str]) -> None:
    """Raise a UsageError if there is no such program, before anything is changed."""
    if shutil.which(argv[0]) is None:
        raise UsageError(
            f"there is no command {argv[0]!r}",
            why="what follows -- is run without a shell, so it must be a program on PATH or a file",
            hint="give its path, or wrap shell syntax: -- sh -c '…'",
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

    It has a session of its own, so Ctrl-C reaches qctl alone, which then ends it. If qctl is
    killed, the command goes on: half a deployment is worse than one that nobody watches.

    Args:
        env: variables added to qctl's own environment.
        timeout_s: after this time it gets SIGTERM, and SIGKILL ``TERM_GRACE_S`` later.
        stop: returns whether the operator wants to stop; called often.
        rest: waits a short time.
        on_start: called with its pid.

    Raises:
        FailedError: it could not be started, its exit code was not 0, or it took too long.
        Interrupted: ``stop`` said so; the command has ended.
    """
    # Its arguments may hold secrets.
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
    """End the command and the processes it has started in its session's group."""
    kill_at = time.monotonic() + TERM_GRACE_S
    _signal_group(process.pid, signal.SIGTERM)
    while process.poll() is None and time.monotonic() < kill_at:
        rest()
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
