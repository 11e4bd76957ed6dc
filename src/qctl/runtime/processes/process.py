"""A child process as its master sees it: start it, read its messages, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from qctl.errors import FailedError, QctlError, UsageError
from qctl.manage.last_words import error_first
from qctl.runtime.processes.messages import (
    ORDERS_VARIABLE,
    ChildState,
    MasterOptions,
    Orders,
    WorkerIdentity,
    decode,
    encode,
    from_row,
)
from qctl.runtime.waiting import wait_first

_MAX_TAIL_BYTES = 8192
# After a child has ended, how long to wait for the rest of its messages and its stderr.
_READ_REST_S = 0.5
_MAX_MESSAGE_BYTES = 16_000_000


class _Stderr(asyncio.Protocol):
    """Copies a child's stderr, a pipe, to the master's stderr, and keeps the last 8 KB."""

    def __init__(self) -> None:
        self.tail = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-_MAX_TAIL_BYTES:]
        with contextlib.suppress(OSError):
            os.write(2, data)

    def connection_lost(self, _: Exception | None) -> None:
        self.ended.set()


class ChildProcess:
    """One child process. Created by ``start``.

    Attributes:
        workers: the child's workers, for putting jobs back; empty until the child reports them.
        last_message_at: time of the last message, by the monotonic clock.
        ready: set when the child has begun to take jobs; never cleared.
        done_fetching: set when the child has been told to stop, has reported that it stops, or has
            ended. Until the child reads the message to stop, it may still take jobs.
        stop_reported: set when the child has reported that it is stopping.
        redis_was_away: whether the child could not start because Redis was away.
        error: the error that ended the child before it was ready; a UsageError if no other child
            can start until the app or the command changes. None for an error of the app itself.
        is_being_replaced: whether the child has reached a limit, such as a number of jobs, and its
            replacement is under way or has just failed.
    """

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.pid = 0
        self.started_at_ms = int(time.time() * 1000)
        self.workers: tuple[WorkerIdentity, ...] = ()
        self.state = ChildState()
        self.last_message_at = time.monotonic()
        self.ready_at = 0.0
        self.ready = asyncio.Event()
        self.done_fetching = asyncio.Event()
        self.ended = asyncio.Event()
        self.redis_was_away = False
        self.error: QctlError | None = None
        self.was_killed = False
        self.is_being_replaced = False
        self.stop_reported = asyncio.Event()
        self._code = 0
        self._stderr = _Stderr()
        self._writer: asyncio.StreamWriter | None = None
        # A reference, so that the task is not garbage-collected.
        self._end_task: asyncio.Task[None] | None = None
        self.on_state: Callable[[ChildProcess], None] = lambda _: None
        self.on_files_changed: Callable[[Sequence[str]], None] = lambda _: None

    @classmethod
    async def start(
        cls, slot: int, options: MasterOptions, environ: Mapping[str, str], cwd: Path
    ) -> ChildProcess:
        """Start a fresh interpreter for a slot.

        Raises:
            OSError: the interpreter cannot be started.
        """
        child = cls(slot)
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        # Once the child is ready, it writes to this copy of our stderr, not to the pipe.
        stderr = os.dup(2)
        orders = Orders(**asdict(options), slot=slot, channel=theirs.fileno(), stderr=stderr)
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: a file of the app must not replace a standard module that qctl imports.
                *(sys.executable, "-P", "-m", "qctl.runtime.processes.child"),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=write_end,
                env={**environ, ORDERS_VARIABLE: json.dumps(asdict(orders))},
                cwd=cwd,
                pass_fds=(orders.channel, orders.stderr),
            )
        except BaseException:
            ours.close()
            os.close(read_end)
            raise
        finally:
            theirs.close()
            os.close(write_end)
            os.close(stderr)
        child.pid = process.pid
        messages, child._writer = await asyncio.open_connection(sock=ours, limit=_MAX_MESSAGE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: child._stderr, os.fdopen(read_end, "rb", buffering=0)
        )
        reading = asyncio.create_task(child._read_messages(messages))
        child._end_task = asyncio.create_task(child._await_end(process, reading))
        return child

    async def wait_ready(self, timeout_s: float) -> bool:
        """Return True once the child takes jobs, False if it never will. Kill it at the timeout."""
        await wait_first(self.ready.wait(), self.done_fetching.wait(), timeout_s=timeout_s)
        if self.ready.is_set():
            return True
        if not self.done_fetching.is_set():
            self.kill()
            self._stderr.tail += f"\nthe process was not ready within {timeout_s:g} s".encode()
            await self.ended.wait()
        return False

    @property
    def end_was_expected(self) -> bool:
        """Whether the child reported its stop, or the master killed it. Otherwise it crashed."""
        return self.was_killed or self.stop_reported.is_set()

    @property
    def ended_cleanly(self) -> bool:
        """Whether the child stopped with all its jobs finished or given back."""
        return self.stop_reported.is_set() and self._code == 0

    @property
    def how_it_ended(self) -> str:
        """How the child ended, such as ``exit code 1`` or ``killed by SIGKILL``."""
        if self._code >= 0:
            return f"exit code {self._code}"
        try:
            return f"killed by {signal.Signals(-self._code).name}"
        except ValueError:
            return f"killed by signal {-self._code}"

    def last_words(self) -> list[str]:
        """The last error that the child wrote before it was ready, and how the child ended.

        If the child wrote no error, the last lines that it wrote.
        """
        if self.error is not None:
            what, *rest = self.error.lines
            lines = [what.removeprefix("error: "), *rest]
        else:
            lines = error_first(self._stderr.tail.decode(errors="replace").splitlines())
        return [*lines, f"({self.how_it_ended})"] if self.ended.is_set() else lines

    def stop(self, *, for_ever: bool = False) -> None:
        """Tell the child to finish its jobs and end.

        Args:
            for_ever: whether the jobs may take as long as they need; otherwise, the grace limits
                their time.
        """
        self._send(encode("stop", for_ever=for_ever))
        if not self.ready.is_set():
            # A child that still imports the app does not read messages yet.
            self._signal(signal.SIGTERM)
        self.done_fetching.set()

    def hurry(self) -> None:
        """Tell the child to give its jobs back now."""
        self._send(encode("hurry"))

    def kill(self) -> None:
        """Kill the child. It cannot give its jobs back, so the master must put them back."""
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _send(self, message: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(message)

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := await reader.readline():
                self._on_message(data)

    def _on_message(self, data: bytes) -> None:
        message = decode(data)
        self.last_message_at = time.monotonic()
        match message.get("kind"):
            case "workers":
                self.workers = tuple(from_row(WorkerIdentity, row) for row in message["held"])
            case "ready":
                self.ready_at = time.monotonic()
                self.ready.set()
            case "state":
                self.state = from_row(ChildState, message)
                self.on_state(self)
            case "changed":
                self.on_files_changed(message["files"])
            case "leaving":
                self.stop_reported.set()
                self.done_fetching.set()
            case "failed":
                self.redis_was_away = message["reason"] == "unreachable"
                kind = UsageError if message["reason"] == "usage" else FailedError
                if "what" in message:
                    self.error = kind(message["what"], why=message["why"], hint=message["hint"])

    async def _await_end(
        self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]
    ) -> None:
        self._code = await process.wait()
        rest = (reading, asyncio.create_task(self._stderr.ended.wait()))
        # A process that the app has started may keep the child's channel and stderr open.
        await asyncio.wait(rest, timeout=_READ_REST_S)
        for task in rest:
            task.cancel()
        if self._writer is not None:
            self._writer.close()
        self.ended.set()
        self.done_fetching.set()
