"""The master: keeps processes with workers running, replaces them, and ends them.

It loads nothing of the app. So no fault of the app ends it, and every child runs the code of the
moment at which it was started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from qctl.errors import QctlError
from qctl.manage.qctl.state import Replaced
from qctl.plurals import counted
from qctl.runtime.logs import Log
from qctl.runtime.processes import health
from qctl.runtime.processes.messages import SILENT_AFTER_S, MasterOptions
from qctl.runtime.processes.process import ChildProcess
from qctl.runtime.processes.readiness import Notifier
from qctl.runtime.processes.recover import recover
from qctl.runtime.processes.slots import NotReadyError, Slot, summary
from qctl.runtime.waiting import wait_first

# After its grace, how long a child may take to cancel jobs, give them back and end; then it is
# killed. (Without a master it ends itself a little later.)
KILL_AFTER_GRACE_S = 5.0
# At the end, how long to wait until the jobs of processes that died are put back.
MAX_RECOVERY_S = 6.0
# After a replacement that failed, the pause before a process beyond its limits is replaced again.
RETRY_LIMITS_S = 30.0
# How long processes that must stop may take to report what they have in hand.
_MAX_REPORT_S = 1.0


class Master:
    """Keeps the processes of an app running, until it is stopped.

    Args:
        environ: of this process, with the URL and prefix of Redis. The children get it too, without
            what PM2 or systemd has put there for the master.
    """

    def __init__(self, options: MasterOptions, environ: Mapping[str, str]) -> None:
        self.options = options
        self.log = Log("master")
        self.children: set[ChildProcess] = set()
        self.slots = [
            Slot(number, self._launch, self._retire, self._nothing_works, self.log)
            for number in range(options.processes)
        ]
        self.started_at_ms = int(time.time() * 1000)
        self._environ = dict(environ)
        self._notifier = Notifier(self._environ, self.stop)
        self._cwd = _logical_cwd(environ)
        self._had_terminal = _has_terminal()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._replacing = asyncio.Lock()
        self._full_replacements = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        # Of those, the ones that wait for a child's end and put its jobs back.
        self._ends: set[asyncio.Task[Any]] = set()

    @property
    def is_stopping(self) -> bool:
        """Whether it has begun to stop."""
        return self._stop.is_set()

    async def run(self) -> None:
        """Run until a signal, or ``stop``.

        Raises:
            NotReadyError: a crash loop. The other processes have been stopped.
            FailedError: the health port cannot be used.
        """
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._on_hangup,
        }
        for number, handler in handlers.items():
            # nohup, or a shell that starts us in the background, has set some to be ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, handler)
        self._spawn(self._notifier.listen())
        server = None
        if self.options.health:
            server = await health.serve(*self.options.health, self.why_not_ready)
        self.log.info("master started", pid=os.getpid(), processes=len(self.slots))
        keepers = [asyncio.create_task(slot.keep()) for slot in self.slots]
        self._spawn(self._notify_ready())
        if self._notifier.watchdog_every_s:
            self._spawn(self._notify_alive(self._notifier.watchdog_every_s))
        stop = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait({stop, *keepers}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            for task in (stop, *keepers):
                task.cancel()
            await self._shut_down()
            if server is not None:
                server.close()

    def stop(self) -> None:
        """Stop. A second call gives the jobs back without waiting for their end."""
        if not self.is_stopping:
            self._stop.set()
        elif not self._hurry.is_set():
            self.log.warning("giving jobs back now")
            self._hurry.set()
            for child in self.children:
                child.hurry()

    async def replace(self, slots: Sequence[Slot], why: str) -> list[Replaced]:
        """Replace the processes of slots, one after another, without a gap.

        Raises:
            NotReadyError: a new one did not get ready. Its slot and those after it keep theirs.
        """
        done: list[Replaced] = []
        async with self._replacing:
            for slot in slots:
                if self.is_stopping:
                    raise NotReadyError("the master is stopping", [])
                self.log.info("replacing", slot=slot.number, why=why)
                try:
                    old, new = await slot.replace()
                except NotReadyError as error:
                    if not self.is_stopping:
                        words = summary(error.words)
                        self.log.error(
                            "not replaced, the old one stays", slot=slot.number, why=words
                        )
                    raise
                self.log.info("replaced", slot=slot.number, old_pid=old, new_pid=new)
                done.append(Replaced(slot.number, old, new))
        return done

    def why_not_ready(self) -> str:
        """Why not all workers take jobs; "" if all do."""
        if self.is_stopping:
            return "stopping"
        now = time.monotonic()
        for slot in self.slots:
            child = slot.current
            if child is None or not slot.is_ready:
                return f"process {slot.number} is not ready"
            if now - child.last_message_at > SILENT_AFTER_S:
                return f"process {slot.number} (pid {child.pid}) is stuck"
            if child.state.late:
                return f"no fetch from {child.state.late} has succeeded lately (pid {child.pid})"
        return ""

    # Children

    async def _launch(self, slot: int) -> ChildProcess:
        child = await ChildProcess.start(slot, self.options, self._environ, self._cwd)
        child.on_state = self._check_limits
        child.on_changed = self._on_changed
        self.children.add(child)
        self._ends.add(self._spawn(self._await_end(child)))
        if self.is_stopping:
            self._retire(child)
        return child

    async def _await_end(self, child: ChildProcess) -> None:
        await child.ended.wait()
        self.children.discard(child)
        never_had_any = child.redis_was_away and not child.ready.is_set()
        if child.workers and not child.ended_cleanly and not never_had_any:
            # Jobs left at the end of a grace go back uncounted; those of a crash count a stall.
            self.log.warning("putting its jobs back", pid=child.pid, why=child.how_it_ended)
            is_stall = not child.was_leaving
            await recover(child.pid, child.workers, self.log, counted=is_stall, stopping=self._stop)

    def _retire(self, child: ChildProcess) -> None:
        child.stop()
        if self._hurry.is_set():
            child.hurry()
        self._spawn(self._kill_if_late(child))

    async def _kill_if_late(self, child: ChildProcess) -> None:
        """Kill a child that does not leave in time, as one whose event loop is blocked."""
        grace_s = self.options.grace_s
        timeout_s = grace_s + KILL_AFTER_GRACE_S if grace_s else None
        await wait_first(child.ended.wait(), self._hurry.wait(), timeout_s=timeout_s)
        if self._hurry.is_set():
            await wait_first(child.ended.wait(), timeout_s=KILL_AFTER_GRACE_S)
        if not child.ended.is_set():
            self.log.error("process does not leave, killing it", pid=child.pid)
            child.kill()

    def _nothing_works(self) -> bool:
        return not any(slot.is_ready for slot in self.slots)

    # Reasons to replace

    def _on_hangup(self) -> None:
        if self._had_terminal and not _has_terminal():
            # The terminal is gone: this is not a request for new processes.
            self.stop()
        else:
            self._replace_all("SIGHUP")

    def _on_changed(self, files: Sequence[str]) -> None:
        self._replace_all(f"changed: {', '.join(files)}")

    def _replace_all(self, why: str) -> None:
        # A replacement that waits for its turn will start processes with the present code.
        if self._full_replacements < 2:
            self._spawn(self._try_replace_all(why))

    async def _try_replace_all(self, why: str) -> None:
        self._full_replacements += 1
        self._notifier.reloading()
        try:
            await self.replace(self.slots, why)
        except NotReadyError:
            pass
        finally:
            self._full_replacements -= 1
            self._notifier.notify_systemd("READY=1")

    def _check_limits(self, child: ChildProcess) -> None:
        options, state, slot = self.options, child.state, self.slots[child.slot]
        why = ""
        if options.max_jobs is not None and state.done >= options.max_jobs:
            why = f"{counted(state.done, 'job')} done"
        if options.max_rss_bytes is not None and state.rss_bytes > options.max_rss_bytes:
            why = f"{state.rss_bytes // 1_000_000} MB in use"
        if why and slot.current is child and not child.is_being_replaced and not self.is_stopping:
            child.is_being_replaced = True
            self._spawn(self._replace_one(slot, child, why))

    async def _replace_one(self, slot: Slot, child: ChildProcess, why: str) -> None:
        try:
            if slot.current is child:
                await self.replace([slot], why)
        except NotReadyError:
            await asyncio.sleep(RETRY_LIMITS_S)
            child.is_being_replaced = False

    # For PM2 and systemd

    async def _notify_ready(self) -> None:
        while self.why_not_ready():
            await asyncio.sleep(0.02)
        self.log.info("ready", pids=",".join(str(s.current.pid) for s in self.slots if s.current))
        self._notifier.ready()

    async def _notify_alive(self, every_s: float) -> None:
        while True:
            self._notifier.notify_systemd("WATCHDOG=1")
            await asyncio.sleep(every_s)

    # The end

    async def _shut_down(self) -> None:
        self._stop.set()
        self._notifier.notify_systemd("STOPPING=1")
        grace = f"{self.options.grace_s:g}s" if self.options.grace_s else "for ever"
        self.log.info("stopping", processes=len(self.children), grace=grace)
        children = list(self.children)
        for child in children:
            self._retire(child)
        reports = [asyncio.create_task(child.leaving.wait()) for child in children]
        if reports:
            # Each reports what it has in hand. If its loop is blocked, its last state counts.
            await asyncio.wait(reports, timeout=_MAX_REPORT_S)
        if in_hand := sum(child.state.busy for child in children if not child.ended.is_set()):
            self.log.info("finishing jobs", jobs=in_hand)
        while self.children:
            await asyncio.wait([asyncio.create_task(c.ended.wait()) for c in self.children])
            # ``_await_end`` waits for the same event, and removes the child from the set.
            await asyncio.sleep(0)
        if self._ends:
            _, late = await asyncio.wait(self._ends, timeout=MAX_RECOVERY_S)
            if late:
                self.log.error("jobs not put back: the stalled check will find them")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.log.info("master stopped")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._ends.discard(task)
        if not task.cancelled() and (error := task.exception()):
            why = error.what if isinstance(error, QctlError) else repr(error)
            self.log.error("unexpected", why=why)


def _logical_cwd(environ: Mapping[str, str]) -> Path:
    """The working folder, by the name by which it was entered.

    If that is a symlink which a deployment changes, new processes follow it.
    """
    here = Path.cwd()
    named = Path(environ.get("PWD") or ".")
    try:
        return named if named.is_absolute() and named.samefile(here) else here
    except OSError:
        return here


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
