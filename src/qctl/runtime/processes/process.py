"""A child as its master has it: started, listened to, told to stop, seen off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qctl.manage.last_words import error_first
from qctl.runtime.processes.messages import ORDERS_VARIABLE, ChildState, Held, Orders, line, parse

_TAIL_BYTES = 8192
# After its end, for what it has written to be read.
_DRAIN_S = 0.5
_CHUNK = 65_536
_MOST_LINE = 16_000_000


class ChildProcess:
    """One child. Made by ``start``.

    Attributes:
        slot: number of the slot that it is for.
        pid, started_at_ms: of the process.
        held: what is needed to put its jobs back; empty until it has told.
        state: as it last told, at ``heard_at`` (monotonic).
        ready: it takes jobs.
        left: it takes no more jobs, or never will; it may still finish some.
        leaving: it has said that it finishes its jobs and ends.
        ended: the process is gone.
        reason: ``unreachable`` when it could not start because Redis was away.
    """

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.pid = 0
        self.started_at_ms = int(time.time() * 1000)
        self.held: tuple[Held, ...] = ()
        self.state = ChildState()
        self.heard_at = time.monotonic()
        self.ready_at = 0.0
        self.ready = asyncio.Event()
        self.left = asyncio.Event()
        self.ended = asyncio.Event()
        self.reason = ""
        self.was_killed = False
        self.is_due = False
        self.leaving = asyncio.Event()
        self._code = 0
        self._tail = b""
        self._tail_ended = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.on_state: Callable[[ChildProcess], None] = lambda _: None
        self.on_changed: Callable[[Sequence[str]], None] = lambda _: None

    @classmethod
    async def start(
        cls, slot: int, orders: Orders, environ: Mapping[str, str], cwd: Path
    ) -> ChildProcess:
        """A fresh interpreter with these orders.

        Args:
            orders: its descriptors are filled in here.
            environ: the whole environment of the child.

        Raises:
            OSError: it cannot be started.
        """
        child = cls(slot)
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        # Its stderr from the time when it is ready: ours.
        stderr = os.dup(2)
        passed = (theirs.fileno(), stderr)
        try:
            orders = replace(orders, channel=passed[0], stderr=passed[1])
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "qctl.runtime.processes.child"),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=write_end,
                env={**environ, ORDERS_VARIABLE: orders.to_json()},
                cwd=cwd,
                pass_fds=passed,
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
        os.set_blocking(read_end, False)
        asyncio.get_running_loop().add_reader(read_end, child._hear_stderr, read_end)
        reader, child._writer = await asyncio.open_connection(sock=ours, limit=_MOST_LINE)
        child._tasks = [
            asyncio.create_task(child._hear(reader)),
            asyncio.create_task(child._await_end(process)),
        ]
        return child

    async def wait_ready(self, timeout_s: float) -> bool:
        """Until it takes jobs; False when it never will. After the timeout it is killed."""
        waits = [asyncio.create_task(event.wait()) for event in (self.ready, self.left)]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self.ready.is_set():
            return True
        if not self.left.is_set():
            self.kill()
            self._tail += f"\nit was not ready within {timeout_s:g} s".encode()
            await self.ended.wait()
        return False

    @property
    def redis_was_away(self) -> bool:
        """Whether it could not start because Redis was away, or did not let it in."""
        return self.reason == "unreachable"

    @property
    def was_leaving(self) -> bool:
        """Whether its end is one that was wanted, however it came."""
        return self.was_killed or self.leaving.is_set()

    @property
    def ended_well(self) -> bool:
        """Whether it left by the front door, and so has given all its jobs back."""
        return self.leaving.is_set() and self._code == 0

    @property
    def how_it_ended(self) -> str:
        """``exit code 1``, ``killed by SIGKILL``."""
        if self._code >= 0:
            return f"exit code {self._code}"
        try:
            return f"killed by {signal.Signals(-self._code).name}"
        except ValueError:
            return f"killed by signal {-self._code}"

    def last_words(self) -> list[str]:
        """What it wrote to stderr before it was ready, the error first, and how it ended."""
        words = error_first(self._tail.decode(errors="replace").splitlines())
        return [*words, f"({self.how_it_ended})"] if self.ended.is_set() else words

    def stop(self, *, for_ever: bool = False) -> None:
        """Let it finish its jobs and leave.

        Args:
            for_ever: however long they take, and not only for its grace.
        """
        self._say(line("stop", for_ever=for_ever))
        if not self.ready.is_set():
            self._signal(signal.SIGTERM)
        self.left.set()

    def hurry(self) -> None:
        """Let it give its jobs back now."""
        self._say(line("hurry"))

    def kill(self) -> None:
        """End it at once; its jobs must be given back by somebody else."""
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _say(self, message: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(message)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := await reader.readline():
                self._take(data)

    def _take(self, data: bytes) -> None:
        message = parse(data)
        self.heard_at = time.monotonic()
        match message.get("kind"):
            case "workers":
                self.held = tuple(Held(**row) for row in message["held"])
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
                self.reason = message["reason"]

    def _hear_stderr(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            with contextlib.suppress(OSError):
                os.write(2, data)
        else:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
            self._tail_ended.set()

    async def _await_end(self, process: asyncio.subprocess.Process) -> None:
        self._code = await process.wait()
        for waiting in (self._tasks[0], asyncio.create_task(self._tail_ended.wait())):
            # Something that the app has started may keep them open.
            await asyncio.wait({waiting}, timeout=_DRAIN_S)
            waiting.cancel()
        if self._writer is not None:
            self._writer.close()
        self.ended.set()
        self.left.set()
