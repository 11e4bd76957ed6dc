"""A slot keeps one process running: if the process dies, the slot starts another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from qctl.errors import ExitStatus, FailedError, UsageError
from qctl.manage.qctl.state import READY_TIMEOUT_S
from qctl.runtime.logs import Log
from qctl.runtime.processes.process import ChildProcess

# If this many processes in a row do not get ready, the slot is in a crash loop.
MAX_CRASHES = 5
# The pause between a death and the next start, doubled each time.
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 30.0
# If a process was ready for longer than this before it died, the next pause is the shortest.
STEADY_S = 60.0


def summary(words: Sequence[str]) -> str:
    """Shorten a process's last words to the first row (the error) and the last (how it ended)."""
    return " | ".join(dict.fromkeys((*words[:1], *words[-1:])))


class NotReadyError(FailedError):
    """A new process did not get ready to take jobs.

    Args:
        words: lines that say why: the last error in its stderr, and how the process ended.
        redis_is_away: whether the reason is that Redis is away; otherwise it is the app.
    """

    def __init__(self, what: str, words: list[str], *, redis_is_away: bool = False) -> None:
        super().__init__(what, why="\n".join(f"    {row}" for row in words))
        self.words = words
        if redis_is_away:
            self.exit_status = ExitStatus.UNREACHABLE


class Slot:
    """Keeps one process running.

    Args:
        retire: lets a process finish its jobs and end.
        is_any_ready: whether any of the master's slots has a process that takes jobs.

    Attributes:
        current: the slot's process; None between two processes.
        restarts: how often the process was replaced, or ended after it had taken jobs.
        was_ready: whether a process of this slot ever took jobs.
    """

    def __init__(
        self,
        number: int,
        launch: Callable[[int], Awaitable[ChildProcess]],
        retire: Callable[[ChildProcess], None],
        is_any_ready: Callable[[], bool],
        log: Log,
    ) -> None:
        self.number = number
        self.current: ChildProcess | None = None
        self.restarts = 0
        self.was_ready = False
        self._launch = launch
        self._retire = retire
        self._is_any_ready = is_any_ready
        self._log = log
        self._pause_s = MIN_PAUSE_S

    @property
    def is_ready(self) -> bool:
        """Whether the slot's process takes jobs."""
        child = self.current
        return child is not None and child.ready.is_set() and not child.done_fetching.is_set()

    async def keep(self) -> None:
        """Keep a process running, until cancelled.

        Raises:
            UsageError: no process can start until the app or the command is corrected; raised only
                before a process has taken jobs.
            NotReadyError: the slot is in a crash loop, and no slot has a process that takes jobs.
        """
        crashes = 0
        while True:
            child = self.current or await self._start()
            if child is None or not await child.wait_ready(READY_TIMEOUT_S):
                if child is not None and self.current is not child:
                    # The child was replaced while it started.
                    continue
                self.current = None
                # Before the first success, count an absent Redis as a crash: the URL may be wrong.
                is_away = child is not None and child.redis_was_away
                crashes += not (is_away and self.was_ready)
                self._on_not_ready(child, crashes)
                await self._pause()
                continue
            crashes, self.was_ready = 0, True
            await child.done_fetching.wait()
            if self.current is not child:
                # The child was stopped because it was replaced.
                continue
            self.current = None
            self.restarts += 1
            if time.monotonic() - child.ready_at > STEADY_S:
                self._pause_s = MIN_PAUSE_S
            why = child.how_it_ended if child.ended.is_set() else "a signal told it to stop"
            if not child.ended.is_set():
                self._retire(child)
            await self._pause()
            # Log only now: if the master got the same signal, it has cancelled ``keep`` during the
            # pause, and this line is not reached.
            self._log.warning("process takes no more jobs, another follows", pid=child.pid, why=why)

    async def replace(self) -> tuple[int | None, int]:
        """Start a new process, and stop the old one when the new one takes jobs.

        Returns:
            the pids of the old process (None if there was none) and of the new process.

        Raises:
            NotReadyError: the new process did not get ready; the old process stays.
        """
        try:
            new = await self._launch(self.number)
        except OSError as error:
            raise NotReadyError("a new process cannot be started", [str(error)]) from None
        if not await new.wait_ready(READY_TIMEOUT_S):
            raise NotReadyError("the new process died before it was ready", new.last_words())
        old, self.current = self.current, new
        self.restarts += 1
        self.was_ready = True
        if old is not None:
            # The new process takes jobs, so the old one may take as long as it needs.
            old.stop(for_ever=True)
        return (old.pid if old else None), new.pid

    async def _start(self) -> ChildProcess | None:
        try:
            child = await self._launch(self.number)
        except OSError as error:
            self._log.error("a process cannot be started", why=str(error))
            return None
        if self.current is not None:
            # ``replace`` has started another process in the meantime.
            self._retire(child)
            return self.current
        self.current = child
        return child

    def _on_not_ready(self, child: ChildProcess | None, crashes: int) -> None:
        has_started = self.was_ready or self._is_any_ready()
        if child is not None and isinstance(child.error, UsageError) and not has_started:
            # The next process would fail for the same reason.
            raise child.error
        words = child.last_words() if child else ["the process cannot be started"]
        if crashes >= MAX_CRASHES and not self._is_any_ready():
            raise NotReadyError(
                f"{crashes} processes in a row died before they were ready; the last one said",
                words,
                redis_is_away=child is not None and child.redis_was_away,
            )
        if child is not None and not child.ended.is_set():
            self._retire(child)
        pid = child.pid if child else None
        self._log.error("process died before it was ready", pid=pid, why=summary(words))

    async def _pause(self) -> None:
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, MAX_PAUSE_S)
        await asyncio.sleep(pause_s)
