"""The steps of a running drain for a terminal: finished steps, the current step, steps to come.

Finished steps are lines that stay on the screen. The other steps are redrawn several times a
second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from qctl.ops.drain.steps import (
    CommandDone,
    Drained,
    Paused,
    Planned,
    Recovered,
    Restarting,
    Resumed,
    RunningCommand,
    Step,
    TimeUp,
    Waiting,
)
from qctl.ops.processes.restart import Ready
from qctl.ops.processes.suggest import quoted
from qctl.output.block import INDENT, MAX_NAME, Block
from qctl.output.drain.facts import replaced
from qctl.output.drain.running import MAX_JOBS, running_jobs
from qctl.output.text import cells, duration, listed, shortened, visible
from qctl.plurals import counted

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_S = 10
# How many rows of the screen are kept free of running jobs.
_OTHER_ROWS = 6
_MAX_TODO = 5
_DONE, _ODD, _TODO = "✔", "!", "·"


class Checklist:
    """The steps of one drain, from the plan on.

    Args:
        width: of the terminal, in cells.
        keep_paused: whether the queues stay paused after a success.
    """

    def __init__(self, *, width: int, colour: bool, keep_paused: bool = False) -> None:
        self._block = Block(width=width, colour=colour)
        self._keep_paused = keep_paused
        self._todo: list[str] = []
        self._now = ""
        self._since = 0.0
        self._wait: Waiting | None = None
        self._jobs_at_start = 0
        # The last pauses or resumes, to be shown as one line: the kind of step, and the queues.
        self._queues: tuple[str, list[str]] = ("", [])
        # Process key → name and pid, for the processes that are being restarted.
        self._restarting: dict[str, str] = {}

    def begin(self, plan: Planned) -> None:
        """Make the list of steps from the plan."""
        self._todo = []
        self._jobs_at_start = len(plan.active)
        self._queues = ("", [])
        self._restarting = {}
        names = [_process_name(each.target, each.key) for each in plan.processes]
        if plan.strategy == "roll":
            self._todo += [f"replace {name}" for name in names]
        else:
            self._todo += ["pause", "wait for the running jobs"]
            self._todo += [f"restart {name}" for name in names]
            if plan.command:
                self._todo.append("run the command")
            if plan.processes or plan.command:
                self._todo += [] if self._keep_paused else ["resume"]
        self._todo.append("check every job")
        self._go_on("pausing" if plan.strategy != "roll" else "starting", "pause")

    def update(self, step: Step) -> Iterator[str]:  # noqa: PLR0912 - a case a step
        """Take one step into account, and yield a line for everything that it finishes.

        Not for the plan (see ``begin``) or the report. Call ``flush`` before the report is shown.
        """
        kind = step.step if isinstance(step, Paused | Resumed) else ""
        if isinstance(step, Paused) and (step.again or not step.changed):
            kind = "paused again" if step.again else "paused before"
        if kind != self._queues[0]:
            yield from self.flush()
        self._wait = step if isinstance(step, Waiting) else None
        match step:
            case Paused() | Resumed():
                self._queues = (kind, [*self._queues[1], step.queue])
                if isinstance(step, Resumed):
                    self._go_on("checking every job", "check every job")
            case Waiting():
                self._go_on("waiting", "wait for the running jobs")
            case Drained():
                yield self._line(_DONE, "no job is running", step.waited_s)
                if step.orphans:
                    jobs = counted(len(step.orphans), "stalled job")
                    text = f"not waited for: {jobs}, which a hung worker may still be running"
                    yield self._line(_ODD, text)
                self._go_on("going on", "wait for the running jobs")
            case TimeUp():
                jobs = counted(len(step.active), "job")
                text = f"time is up with {jobs} running; restarting anyway"
                yield self._line(_ODD, text, step.waited_s)
                self._go_on("going on", "wait for the running jobs")
            case Restarting():
                name = _process_name(step.target, step.key)
                pid = f" (pid {step.pid})" if step.pid else ""
                self._restarting[step.key] = f"{name}{pid}"
                doing = "restarting" if step.pid or len(self._restarting) > 1 else "starting"
                names = ", ".join(self._restarting.values())
                self._go_on(f"{doing} {names}", f"restart {name}", f"replace {name}")
            case Ready():
                yield self._line(_DONE, _ready_text(step), step.took_s)
                self._restarting.pop(step.key, None)
                names = ", ".join(self._restarting.values())
                self._go_on(f"restarting {names}" if names else "going on")
            case RunningCommand():
                yield self._line(_TODO, f"running: {visible(' '.join(map(quoted, step.argv)))}")
                self._go_on("waiting for the new workers", "run the command")
            case CommandDone():
                yield self._line(_DONE, replaced(step), step.took_s)
                self._go_on("going on")
            case Recovered():
                jobs = counted(len(step.ids), "job")
                names = self._block.names([step.queue], MAX_NAME)
                yield self._line(_ODD, f"{names}: {jobs} put back: {listed(step.ids)}")

    def flush(self) -> list[str]:
        """The line about the queues that were paused or resumed last, if there are any."""
        lines = [*self._pending()]
        self._queues = ("", [])
        return lines

    def _pending(self) -> Iterator[str]:
        kind, names = self._queues
        if names:
            mark = _ODD if kind == "paused again" else _DONE
            words = {"paused before": "paused already:", "paused again": "paused again:"}
            text = words.get(kind, kind)
            room = self._block.width - len(text) - len(INDENT) - 10
            yield self._line(mark, f"{text} {self._block.names(names, room)}")

    def live(self, silent: Sequence[tuple[str, float]], height: int) -> Iterator[str]:
        """The lines that are redrawn: what is going on now, and the steps to come.

        Args:
            silent: who has not answered, and for how many seconds.
            height: of the terminal, in lines.
        """
        yield from self._pending()
        for who, for_s in silent:
            text = f"{who} does not answer ({duration(for_s)}); trying again"
            yield self._block.styled(f"{_ODD} {text}", "bold red")
        since = time.monotonic() - self._since
        frame = _SPINNER[int(time.monotonic() * _FRAMES_PER_S) % len(_SPINNER)]
        spinner = self._block.styled(frame, "cyan")
        todo = self._todo[:_MAX_TODO]
        if (wait := self._wait) is None:
            yield f"{spinner} {self._fitting(self._now, 12)}   {duration(since)}"
        else:
            yield f"{spinner} {self._waiting_text(wait)}"
            rows = min(MAX_JOBS, height - len(todo) - _OTHER_ROWS)
            yield from running_jobs(self._block, wait.active, INDENT * 2, rows)
        for text in todo:
            yield self._block.styled(f"{_TODO} {self._fitting(text)}", "dim")
        if len(self._todo) > len(todo):
            more = counted(len(self._todo) - len(todo), "more step")
            yield self._block.styled(f"{_TODO} {more}", "dim")

    def _waiting_text(self, wait: Waiting) -> str:
        """``waiting for 5 of 26 jobs  ━━━━────  3.1 s of about 4.0 s``."""
        left, total = len(wait.active), max(self._jobs_at_start, len(wait.active))
        # ``wait`` may be a second old, but the time that is shown must not stand still.
        waited_s = max(wait.waited_s, time.monotonic() - self._since)
        text = f"waiting for {left:,} of {counted(total, 'job')}"
        if wait.orphans:
            text += f", not for {len(wait.orphans):,} stalled"
        estimates = [job.estimate_s for job in wait.active]
        known = [each for each in estimates if each is not None]
        share = (total - left) / total if total else 1.0
        time_text = duration(waited_s)
        if known and len(known) == len(estimates):
            whole_s = wait.waited_s + max(known)
            share = min(waited_s / whole_s, 1.0) if whole_s else 1.0
            time_text += f" of about {duration(whole_s)}"
        return f"{text}  {self._block.bar(share)}  {time_text}"

    def _go_on(self, now: str, *steps: str) -> None:
        """Make ``now`` the current step, and shorten ``_todo``.

        Args:
            steps: the first of these that is in ``_todo`` is removed, with all steps before it.
        """
        if now != self._now:
            self._now, self._since = now, time.monotonic()
        at = next((self._todo.index(step) for step in steps if step in self._todo), -1)
        self._todo = self._todo[at + 1 :]

    def _line(self, mark: str, text: str, took_s: float | None = None) -> str:
        style = {_DONE: "green", _ODD: "yellow"}.get(mark, "dim")
        took = "" if took_s is None else f"   {duration(took_s)}"
        return f"{self._block.styled(mark, style)} {self._fitting(text, cells(took))}{took}"

    def _fitting(self, text: str, reserved: int = 0) -> str:
        return shortened(text, self._block.width - reserved - 2, keep_end=True)


def _process_name(target: str, key: str) -> str:
    return f"{visible(target, MAX_NAME)} id {visible(key, 30)}"


def _ready_text(ready: Ready) -> str:
    pids = f"pid {ready.old_pid} → {ready.new_pid}" if ready.old_pid else f"pid {ready.new_pid}"
    serves = f", serves {listed(ready.workers)}" if ready.workers else ""
    return f"{_process_name(ready.target, ready.key)} is up: {pids}{serves}"
