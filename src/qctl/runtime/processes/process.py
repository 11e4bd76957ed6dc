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

from qctl.manage.last_words import error_first
from qctl.runtime.processes.messages import (
    ORDERS_VARIABLE,
    ChildState,
    MasterOptions,
    Orders,
    WorkerIdentity,
    decode,
    encode,
)
from qctl.runtime.waiting import wait_first

_TAIL_BYTES = 8192
# After its end, to read what it has written.
_READ_REST_S = 0.5
_MAX_MESSAGE_BYTES = 16_000_000


class _Stderr(asyncio.Protocol):
    """What a child writes to stderr before it is ready: copied to ours, and the end kept."""

    def __init__(self) -> None:
        self.tail = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-_TAIL_BYTES:]
        with contextlib.suppress(OSError):
            os.write(2, data)

    def connection_lost(self, _: Exception | None) -> None:
        self.ended.set()


class ChildProcess:
    """One child. Made by ``start``.

    Attributes:
        slot: the number of its slot.
        workers: what is needed to put its jobs back; empty until it has sent that.
        state: as of its last message, at ``last_message_at`` (monotonic).
        ready: set when it takes jobs.
        left: set when it takes no more jobs, or never will; it may still finish some.
        leaving: set when it has reported that it finishes its jobs and ends.
        ended: set when the process is gone.
        redis_was_away: it could not start because Redis was away, or did not let it in.
        is_being_replaced: it is beyond a limit, and a replacement is under way.
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
        self.left = asyncio.Event()
        self.ended = asyncio.Event()
        self.redis_was_away = False
        self.was_killed = False
        self.is_being_replaced = False
        self.leaving = asyncio.Event()
        self._code = 0
        self._stderr = _Stderr()
        self._writer: asyncio.StreamWriter | None = None
        # Held so that it is not collected.
        self._end: asyncio.Task[None] | None = None
        self.on_state: Callable[[ChildProcess], None] = lambda _: None
        self.on_changed: Callable[[Sequence[str]], None] = lambda _: None

    @classmethod
    async def start(
        cls, slot: int, options: MasterOptions, environ: Mapping[str, str], cwd: Path
    ) -> ChildProcess:
        """Start a fresh interpreter for a slot.

        Args:
            environ: the whole environment of the child.

        Raises:
            OSError: it cannot be started.
        """
        child = cls(slot)
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        # Once it is ready, its stderr is ours.
        stderr = os.dup(2)
        orders = Orders(**asdict(options), slot=slot, channel=theirs.fileno(), stderr=stderr)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "qctl.runtime.processes.child"),
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
        child._end = asyncio.create_task(child._await_end(process, reading))
        return child

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until it takes jobs; False if it never will. After the timeout it is killed."""
        await wait_first(self.ready.wait(), self.left.wait(), timeout_s=timeout_s)
        if self.ready.is_set():
            return True
        if not self.left.is_set():
            self.kill()
            self._stderr.tail += f"\nit was not ready within {timeout_s:g} s".encode()
            await self.ended.wait()
        return False

    @property
    def was_leaving(self) -> bool:
        """Whether it was to end, and did not die by itself."""
        return self.was_killed or self.leaving.is_set()

    @property
    def ended_cleanly(self) -> bool:
        """Whether it ended by itself, with all its jobs finished or given back."""
        return self.leaving.is_set() and self._code == 0

    @property
    def how_it_ended(self) -> str:
        """Such as ``exit code 1`` or ``killed by SIGKILL``."""
        if self._code >= 0:
            return f"exit code {self._code}"
        try:
            return f"killed by {signal.Signals(-self._code).name}"
        except ValueError:
            return f"killed by signal {-self._code}"

    def last_words(self) -> list[str]:
        """What it wrote to stderr before it was ready, the error first; then how it ended."""
        words = error_first(self._stderr.tail.decode(errors="replace").splitlines())
        return [*words, f"({self.how_it_ended})"] if self.ended.is_set() else words

    def stop(self, *, for_ever: bool = False) -> None:
        """Let it finish its jobs and leave.

        Args:
            for_ever: however long they take, not only for its grace.
        """
        self._send(encode("stop", for_ever=for_ever))
        if not self.ready.is_set():
            self._signal(signal.SIGTERM)
        self.left.set()

    def hurry(self) -> None:
        """Make it give its jobs back now."""
        self._send(encode("hurry"))

    def kill(self) -> None:
        """End it at once. It cannot give its jobs back: the master must."""
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
                self.workers = tuple(WorkerIdentity(**row) for row in message["held"])
            case "ready":
                self.ready_at = time.monotonic()
                self.ready.set()
            case "state":
                fields = {key: value for key, value in message.items() if key != "kind"}
                self.state = ChildState(**fields)
                self.on_state(self)
            case "changed":
                self.on_changed(message["files"])
            case "leaving":
                self.leaving.set()
                self.left.set()
            case "failed":
                self.redis_was_away = message["reason"] == "unreachable"

    async def _await_end(
        self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]
    ) -> None:
        self._code = await process.wait()
        rest = (reading, asyncio.create_task(self._stderr.ended.wait()))
        # A process that the app has started may keep them open.
        await asyncio.wait(rest, timeout=_READ_REST_S)
        for task in rest:
            task.cancel()
        if self._writer is not None:
            self._writer.close()
        self.ended.set()
        self.left.set()
