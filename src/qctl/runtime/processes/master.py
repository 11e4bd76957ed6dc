"""The master: starts, replaces and ends the child processes that run an app's workers.

The master does not import the app. So a fault of the app cannot end the master, and each child runs
the app's code as it was when the child started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from qctl.runtime.processes.protection import Protector

# After its grace, a child has this long to cancel its jobs, give them back and end. Then the master
# kills it. A child whose master is gone has a longer limit of its own: ``child.STUCK_S``.
KILL_AFTER_GRACE_S = 5.0
# At its end, the master waits at most this long for the jobs of dead processes to be put back.
MAX_RECOVERY_S = 6.0
# If a process above its limits cannot be replaced, how long to wait before the next try.
RETRY_LIMITS_S = 30.0
# At a stop, the time that children have to report their number of jobs in hand.
_MAX_REPORT_S = 1.0


class Master:
    """Keeps the processes of an app running, until the master is stopped.

    Args:
        environ: the environment of this process, with the URL and prefix of Redis. The children get
            a copy without the variables that PM2 or systemd has set for the master.

    Raises:
        UsageError: the master does not run on the platform of ``options.protect``.
    """

    def __init__(self, options: MasterOptions, environ: Mapping[str, str]) -> None:
        self.options = options
        self.log = Log("master")
        self.children: set[ChildProcess] = set()
        self.slots = [
            Slot(number, self._launch, self._retire, self._is_any_ready, self.log)
            for number in range(options.processes)
        ]
        self.started_at_ms = int(time.time() * 1000)
        self._environ = dict(environ)
        self._notifier = Notifier(self._environ, self.stop)
        self._cwd = _logical_cwd(environ)
        self._had_terminal = _has_terminal()
        self._protector: Protector | None = None
        if options.protect:
            # Imported only here, because the modules for HTTP and TLS take 30 ms to import.
            from qctl.runtime.processes.protection import (  # noqa: PLC0415
                Protector,
                protection_of,
            )

            protection = protection_of(options.protect, environ)
            self._protector = Protector(protection, self._read_work, self.log)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._replacing = asyncio.Lock()
        # The number of full replacements that run or wait for their turn.
        self._full_replacements = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        # The tasks in ``_tasks`` that wait for a child's end and put the child's jobs back.
        self._end_tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_stopping(self) -> bool:
        """Whether the master has begun to stop."""
        return self._stop.is_set()

    async def run(self) -> None:
        """Run until ``stop`` is called: by SIGTERM, SIGINT, or SIGHUP if the terminal is gone.

        Raises:
            UsageError: the app cannot be run as it is, and no process takes jobs.
            NotReadyError: a slot is in a crash loop, and no process takes jobs.
            FailedError: the health port cannot be used.
        """
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self._on_hangup,
        }
        for number, handler in handlers.items():
            # A signal that nohup or a shell has set to be ignored stays ignored.
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, handler)
        self._spawn(self._notifier.listen())
        server = None
        if self.options.health:
            server = await health.serve(*self.options.health, self.why_not_ready)
        self.log.info(
            "master started", pid=os.getpid(), processes=len(self.slots),
            apps=",".join(self.options.apps),
        )  # fmt: skip
        if self._protector is not None:
            # Cancelled at the end of the stop, when the jobs have ended.
            self._spawn(self._protector.run())
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
        """Stop the master. A second call gives the jobs back without waiting for their end."""
        if not self.is_stopping:
            self._stop.set()
        elif not self._hurry.is_set():
            self.log.warning("giving jobs back now")
            self._hurry.set()
            for child in self.children:
                child.hurry()

    async def replace(self, slots: Sequence[Slot], why: str) -> list[Replaced]:
        """Replace the processes of slots in turn. An old process takes jobs until the new one does.

        Raises:
            NotReadyError: a new process did not get ready, or the master is stopping. The failed
                slot and the slots after it keep their old processes.
        """
        replaced: list[Replaced] = []
        async with self._replacing:
            for slot in slots:
                if self.is_stopping:
                    raise NotReadyError("the master is stopping", [])
                self.log.info("replacing", slot=slot.number, why=why)
                try:
                    old, new = await slot.replace()
                except NotReadyError as error:
                    if not self.is_stopping:
                        last = summary(error.words)
                        self.log.error(
                            "not replaced, the old process stays", slot=slot.number, why=last
                        )
                    raise
                self.log.info("replaced", slot=slot.number, old_pid=old, new_pid=new)
                replaced.append(Replaced(slot.number, old, new))
        return replaced

    def why_not_ready(self) -> str:
        """Return why some workers take no jobs; "" if all workers take jobs."""
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
        child.on_files_changed = lambda files: self._replace_all(f"changed: {', '.join(files)}")
        self.children.add(child)
        self._end_tasks.add(self._spawn(self._await_end(child)))
        if self.is_stopping:
            # The stop began while the child was being started, and may have missed the child.
            self._retire(child)
        return child

    async def _await_end(self, child: ChildProcess) -> None:
        await child.ended.wait()
        self.children.discard(child)
        # A child that failed to start has few jobs or none, and has tried to give them back.
        could_not_start = child.error is not None and not child.ready.is_set()
        if child.workers and not child.ended_cleanly and not could_not_start:
            # Only a crash counts as a stall of the jobs; a stop or the end of a grace does not.
            self.log.warning("putting a process's jobs back", pid=child.pid, why=child.how_it_ended)
            is_stall = not child.end_was_expected
            await recover(child.pid, child.workers, self.log, counted=is_stall, stopping=self._stop)

    def _retire(self, child: ChildProcess) -> None:
        child.stop()
        if self._hurry.is_set():
            child.hurry()
        self._spawn(self._kill_if_late(child))

    async def _kill_if_late(self, child: ChildProcess) -> None:
        """Kill a child that does not end in time, for example because its event loop is blocked."""
        grace_s = self.options.grace_s
        timeout_s = grace_s + KILL_AFTER_GRACE_S if grace_s else None
        await wait_first(child.ended.wait(), self._hurry.wait(), timeout_s=timeout_s)
        if self._hurry.is_set():
            await wait_first(child.ended.wait(), timeout_s=KILL_AFTER_GRACE_S)
        if not child.ended.is_set():
            self.log.error("process does not end, killing it", pid=child.pid)
            child.kill()

    def _is_any_ready(self) -> bool:
        return any(slot.is_ready for slot in self.slots)

    def _read_work(self) -> tuple[int, int]:
        """Return how many jobs are in hand, and how many the processes have ended."""
        states = [child.state for child in self.children]
        return sum(state.busy for state in states), sum(state.done for state in states)

    # Reasons to replace

    def _on_hangup(self) -> None:
        if self._had_terminal and not _has_terminal():
            # SIGHUP came because the terminal is gone, not as a request for new processes.
            self.stop()
        else:
            self._replace_all("SIGHUP")

    def _replace_all(self, why: str) -> None:
        # No third replacement is needed: the second one still waits, and will load the newest code.
        if self._full_replacements < 2:
            self._spawn(self._try_replace_all(why))

    async def _try_replace_all(self, why: str) -> None:
        self._full_replacements += 1
        self._notifier.reloading()
        try:
            await self.replace(self.slots, why)
        except NotReadyError:
            pass  # ``replace`` has logged the error, unless the master is stopping.
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
        reports = [asyncio.create_task(child.stop_reported.wait()) for child in children]
        if reports:
            # Each child reports its jobs in hand. If a child is blocked, its last state counts.
            await asyncio.wait(reports, timeout=_MAX_REPORT_S)
        if in_hand := sum(child.state.busy for child in children if not child.ended.is_set()):
            self.log.info("finishing jobs", jobs=in_hand)
        while self.children:
            await asyncio.wait([asyncio.create_task(c.ended.wait()) for c in self.children])
            # Let ``_await_end``, which waits for the same event, remove the child from the set.
            await asyncio.sleep(0)
        if self._end_tasks:
            _, late = await asyncio.wait(self._end_tasks, timeout=MAX_RECOVERY_S)
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
        self._end_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            why = error.what if isinstance(error, QctlError) else repr(error)
            self.log.error("unexpected error", why=why)


def _logical_cwd(environ: Mapping[str, str]) -> Path:
    """The path in PWD if it leads to the working folder, otherwise the folder's real path.

    If PWD is a symlink that a deployment changes, new processes start in the new folder.
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
