"""A slot: the place of one process. When it dies, another follows; and it can be replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from qctl.errors import ExitStatus, FailedError
from qctl.manage.qctl.state import READY_TIMEOUT_S
from qctl.runtime.logs import Log
from qctl.runtime.processes.process import ChildProcess

# This many deaths in a row, each before the process was ready, are a crash loop.
MAX_CRASHES = 5
# Between a death and the next start: doubled each time.
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 30.0
# A process that ran this long did not die because of its start: the pause begins anew.
STEADY_S = 60.0


def summary(words: Sequence[str]) -> str:
    """The first of a process's last words, which is the error, and the last: how it ended."""
    return " | ".join(dict.fromkeys((*words[:1], *words[-1:])))


class NotReadyError(FailedError):
    """A process ended before it took a job.

    Args:
        words: its last words.
        redis_is_away: whether this was the reason, and not the app.
    """

    def __init__(self, what: str, words: list[str], *, redis_is_away: bool = False) -> None:
        super().__init__(what, why="\n".join(f"    {row}" for row in words))
        self.words = words
        if redis_is_away:
            self.exit_status = ExitStatus.UNREACHABLE


class Slot:
    """One process, and those that follow it.

    Args:
        number: from 0.
        launch: starts a process for the slot of this number.
        retire: lets a process finish its jobs and leave.
        nothing_works: whether no slot has a process that works.

    Attributes:
        restarts: how often another process took the place of the last one.
        was_ready: whether a process of this slot ever took jobs.
    """

    def __init__(
        self,
        number: int,
        launch: Callable[[int], Awaitable[ChildProcess]],
        retire: Callable[[ChildProcess], None],
        nothing_works: Callable[[], bool],
        log: Log,
    ) -> None:
        self.number = number
        self.current: ChildProcess | None = None
        self.restarts = 0
        self.was_ready = False
        self._launch = launch
        self._retire = retire
        self._nothing_works = nothing_works
        self._log = log
        self._pause_s = MIN_PAUSE_S

    @property
    def is_ready(self) -> bool:
        """Whether its process takes jobs."""
        child = self.current
        return child is not None and child.ready.is_set() and not child.left.is_set()

    async def keep(self) -> None:
        """Keep a process running, until cancelled.

        Raises:
            NotReadyError: it is a crash loop.
        """
        crashes = 0
        while True:
            child = self.current or await self._start()
            if child is None or not await child.wait_ready(READY_TIMEOUT_S):
                if child is not None and self.current is not child:
                    # It was replaced while it started.
                    continue
                self.current = None
                # While Redis is away no process can start. If one did before, this is no crash.
                is_away = child is not None and child.redis_was_away
                crashes += not (is_away and self.was_ready)
                self._not_started(child, crashes)
                await self._rest()
                continue
            crashes, self.was_ready = 0, True
            await child.left.wait()
            if self.current is not child:
                # It was replaced, and left for that reason.
                continue
            self.current = None
            self.restarts += 1
            if time.monotonic() - child.ready_at > STEADY_S:
                self._pause_s = MIN_PAUSE_S
            how = child.how_it_ended if child.ended.is_set() else "it was asked to leave"
            if not child.ended.is_set():
                self._retire(child)
            await self._rest()
            # Not before the pause: after a signal to the whole group, we are stopping by now.
            self._log.warning("process has left, another follows", pid=child.pid, why=how)

    async def replace(self) -> tuple[int | None, int]:
        """Start another process, and when it takes jobs, let the present one leave.

        Returns:
            the pids of the old one (None if there was none) and of the new one.

        Raises:
            NotReadyError: the new one did not get ready; the old one stays.
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
            # The new process takes jobs, so there is no hurry.
            old.stop(for_ever=True)
        return (old.pid if old else None), new.pid

    async def _start(self) -> ChildProcess | None:
        try:
            child = await self._launch(self.number)
        except OSError as error:
            self._log.error("a process cannot be started", why=str(error))
            return None
        if self.current is not None:
            # A replacement was faster.
            self._retire(child)
            return self.current
        self.current = child
        return child

    def _not_started(self, child: ChildProcess | None, crashes: int) -> None:
        words = child.last_words() if child else ["it cannot be started"]
        if crashes >= MAX_CRASHES and self._nothing_works():
            raise NotReadyError(
                f"{crashes} processes in a row died before they were ready; the last one said",
                words,
                redis_is_away=child is not None and child.redis_was_away,
            )
        if child is not None and not child.ended.is_set():
            self._retire(child)
        pid = child.pid if child else None
        self._log.error("process died before it was ready", pid=pid, why=summary(words))

    async def _rest(self) -> None:
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, MAX_PAUSE_S)
        await asyncio.sleep(pause_s)
