"""The live view: requests readings, shows them, and starts the action of a keystroke."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from qctl.errors import ExitStatus, QctlError
from qctl.ops.live.view import MAX_JOBS, MAX_QUEUES, Reading, View
from qctl.output.text import cells, short_duration, shortened, visible, without_passwords
from qctl.output.top import sorting, tables
from qctl.output.top.actions import Actions, Details, Proposal
from qctl.output.top.dialogs import HELP, Choose, Confirm, ConfirmByName, Progress
from qctl.output.top.groups import Groups
from qctl.output.top.inspect import JobWindow, LogWindow
from qctl.output.top.panel import Key, Panel
from qctl.output.top.threads import in_daemon_thread
from qctl.output.top.window import Window, window_room

# The shortest time between two readings, even while the operator scrolls.
MIN_GAP_S = 0.2
# Figures are marked as old after this many intervals without a reading, but not before 5 s.
_LATE_INTERVALS = 3
_MIN_LATE_S = 5.0
# The keys of the focused list.
_QUEUE_KEYS = "p pause  r resume  d drain  f failures  s sort  / filter  Tab  ? help  q quit"
_JOB_KEYS = "Enter open  l log  t retry  s sort  Tab list  ? help  q quit"
_KEYS = {"queues": _QUEUE_KEYS, "jobs": _JOB_KEYS, "workers": _QUEUE_KEYS, "failures": _JOB_KEYS}


class TopApp(App[int]):
    """The screen; its return value is the exit code.

    Args:
        read: makes a reading; called in a thread, one call at a time.
        actions: prepares the actions of the keystrokes; called in a thread, one call at a time.
        details: reads what is shown on request; called in threads.
        interval_s: the time between two readings, in seconds.
    """

    ENABLE_COMMAND_PALETTE = False
    # The terminal's own colours are used, so that 16 colours, or none, are enough.
    CSS = """
    Screen { layout: vertical; overflow: hidden; background: ansi_default; color: ansi_default; }
    Static { height: 1; width: 100%; }
    #banner { display: none; color: ansi_red; text-style: bold reverse; height: auto; }
    Window Static, Groups #command, Groups #remark { height: auto; }
    Panel { height: 1fr; width: 100%; min-height: 2; background: ansi_default; }
    Panel, #status, #note, #keys { text-wrap: nowrap; text-overflow: clip; }
    Groups #command { text-style: bold; }
    #queues { height: 2fr; }
    * {
        scrollbar-background: ansi_default; scrollbar-background-hover: ansi_default;
        scrollbar-background-active: ansi_default; scrollbar-color: ansi_default;
        scrollbar-color-hover: ansi_default; scrollbar-color-active: ansi_default;
    }
    Input > .input--cursor, Input > .input--selection {
        background: ansi_default; color: ansi_default; text-style: reverse;
    }
    #filter { display: none; height: 1; border: none; padding: 0; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave(0)", show=False),
        Binding("ctrl+c,ctrl+q", "leave(130)", show=False, priority=True),
        Binding("tab", "app.focus_next", show=False),
        Binding("shift+tab", "app.focus_previous", show=False),
        Binding("p", "pause", show=False),
        Binding("r", "resume", show=False),
        Binding("t", "retry", show=False),
        Binding("d", "drain", show=False),
        Binding("f", "failures", show=False),
        Binding("enter", "job", show=False),
        Binding("l", "log", show=False),
        Binding("slash", "filter", show=False),
        Binding("escape", "end_filter", show=False),
        Binding("question_mark", "keys", show=False),
    ]

    def __init__(
        self,
        read: Callable[[View], Reading],
        actions: Actions,
        details: Details,
        *,
        interval_s: float,
    ) -> None:
        super().__init__(ansi_color=True)
        self._read = read
        self._actions = actions
        self._details = details
        self._interval_s = interval_s
        self._reading: Reading | None = None
        self._read_at = time.monotonic()
        self._last_error: QctlError | None = None
        self._filter_text = ""
        self._wake = asyncio.Event()
        self._busy = False
        self._progress: Progress | None = None
        self._status = Static("reading …", id="status", markup=False)
        self._banner = Static("", id="banner", markup=False)
        self._note = Static("", id="note", markup=False)
        self._filter_field = Input(placeholder="part of a queue's name", id="filter", compact=True)
        self._keys = Static("", id="keys", markup=False)
        self._panels = {
            "queues": Panel("QUEUES", id="queues", sorts=sorting.QUEUE_SORTS),
            "jobs": Panel("ACTIVE JOBS", id="jobs", sorts=sorting.JOB_SORTS),
            "workers": Panel("WORKERS", id="workers", sorts=sorting.WORKER_SORTS),
            "failures": Panel(
                "FAILURES", id="failures", sorts=sorting.FAILURE_SORTS, newest_first=True
            ),
        }

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._banner
        yield self._panels["queues"]
        yield self._note
        yield self._panels["jobs"]
        yield self._panels["workers"]
        yield self._panels["failures"]
        yield self._filter_field
        yield self._keys

    def on_mount(self) -> None:
        self._panels["queues"].focus()
        if not self.is_headless:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                    loop.add_signal_handler(number, self.action_leave, ExitStatus.INTERRUPTED)
        # Redraw every second, because ages grow between two readings.
        self.set_interval(1.0, self._show)
        self.run_worker(self._read_repeatedly())

    # Readings

    async def _read_repeatedly(self) -> None:
        while True:
            view = self._view()
            try:
                reading = await in_daemon_thread(partial(self._read, view))
            except QctlError as error:
                self._last_error = error
            else:
                self._last_error, self._reading = None, reading
                self._read_at = time.monotonic()
            self._show()
            gap_s = max(MIN_GAP_S, self._reading.pause_s if self._reading else 0.0)
            await asyncio.sleep(gap_s)
            if self._last_error is None and self._view() != view:
                # Other rows are in view or chosen: read them at once, but not during an outage.
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(self._pause_s - gap_s, 0.01))

    def _view(self) -> View:
        queues, jobs = self._panels["queues"], self._panels["jobs"]
        # To sort the rows by a figure, the figures of all rows are needed.
        keys = queues.keys if self._sorts_by_figures else queues.visible_keys
        return View(
            queues=tuple(key[0] for key in keys),
            chosen=self._queue(),
            jobs=MAX_JOBS if jobs.sorted_by else jobs.rows_to_read,
        )

    @property
    def _sorts_by_figures(self) -> bool:
        queues = self._panels["queues"]
        by_figure = queues.sorted_by not in {None, sorting.BY_NAME}
        return by_figure and len(queues.keys) <= MAX_QUEUES

    def _queue(self) -> str | None:
        chosen = self._panels["queues"].chosen
        return chosen[0] if chosen else None

    def on_panel_moved(self) -> None:
        self._show()
        self._wake.set()

    # What is shown

    def on_descendant_focus(self) -> None:
        for name, panel in self._panels.items():
            if panel.has_focus:
                self._keys.update(_KEYS[name])

    @property
    def age_s(self) -> float:
        """The age of the figures on the screen, in seconds."""
        return time.monotonic() - self._read_at

    @property
    def _is_old(self) -> bool:
        late_s = max(_LATE_INTERVALS * self._pause_s, _MIN_LATE_S)
        return self._last_error is not None or self.age_s > late_s

    @property
    def _pause_s(self) -> float:
        """Time between two readings: the interval, or longer if a reading takes many commands."""
        return max(self._interval_s, self._reading.pause_s if self._reading else 0.0)

    def _show(self) -> None:
        if not self._banner.is_attached:
            return
        self._show_banner()
        reading = self._reading
        if reading is None:
            return
        width = self.size.width
        age = f"{short_duration(self.age_s)} old" if self._is_old else ""
        self._status.update(
            tables.status_line(reading, self._pause_s, width=width, is_old=self._is_old)
        )
        self._note.update(tables.note_line(reading, width=width))
        empty = f"no queue exists under the prefix {visible(reading.prefix)}"
        if reading.names:
            empty = f"no queue has {visible(self._filter_text)!r} in its name"
        title = f"QUEUES with {visible(self._filter_text, 30)}" if self._filter_text else "QUEUES"
        read = {queue.name: queue for queue in reading.queues}
        rows = [
            read.get(name) or tables.unread(name)
            for name in reading.names
            if self._filter_text in name.casefold()
        ]
        sorted_by = self._panels["queues"].sorted_by
        sortable = sorted_by == sorting.BY_NAME or len(rows) <= MAX_QUEUES
        if sorted_by is not None and not sortable:
            title += f" not sorted by {sorted_by}, over {MAX_QUEUES} (/ filters)"
        self._panels["queues"].show(
            tables.queue_columns(width),
            rows,
            lambda queue: (queue.name,),
            title=title,
            empty=empty,
            age=age,
            sortable=sortable,
        )
        self._show_chosen(reading, age)
        may_miss = any(q.rates and (q.rates.sampled or q.rates.at_least) for q in reading.queues)
        title = "FAILURES; some may be missing" if may_miss else "FAILURES"
        self._panels["failures"].show(
            tables.FAILURE_COLUMNS,
            reading.failures,
            lambda failure: (failure.queue, failure.id, str(failure.at)),
            title=title,
            empty="none seen since the start",
            age=age,
        )

    def _show_chosen(self, reading: Reading, age: str) -> None:
        """Show the jobs and workers of the chosen queue, if the reading contains them."""
        name = self._queue()
        label = f" of {visible(name, 30)}" if name else ""
        jobs = workers = None
        reason = "reading …" if name != reading.chosen else "unknown"
        if name is not None and name == reading.chosen:
            jobs, workers = reading.jobs, reading.workers
        more = ""
        if jobs is not None and reading.jobs_total > len(jobs):
            more = f" ({reading.jobs_total:,} in all)"
            if self._panels["jobs"].sorted_by:
                more = f" (sorted: {len(jobs):,} of {reading.jobs_total:,})"
        self._panels["jobs"].show(
            # Run times in old figures do not grow, because the jobs may have ended.
            tables.job_columns(0.0 if self._is_old else self.age_s),
            jobs or (),
            lambda job: (job.id,),
            title=f"ACTIVE JOBS{label}{more}",
            empty=reason if jobs is None else "none",
            age=age,
        )
        self._panels["workers"].show(
            tables.WORKER_COLUMNS,
            workers or (),
            lambda worker: (worker.address or "", worker.name or "", str(worker.pid)),
            title=f"WORKERS{label}",
            empty=reason if workers is None else "none is connected",
            age=age,
        )

    def _show_banner(self) -> None:
        self._banner.display = self._is_old
        if not self._is_old:
            return
        error = self._last_error
        what = "no answer from Redis yet" if error is None else f"{error.what}; trying again"
        old = "no figures yet"
        if self._reading is not None:
            old = f"figures are {short_duration(self.age_s)} old"
        what = visible(without_passwords(what))
        text = shortened(f" {old}: {what}", self.size.width * 2)
        # Add blanks up to the edge of the screen, because reverse video shows only behind text.
        self._banner.update(text + " " * (-cells(text) % max(self.size.width, 1)))

    # Keys

    def action_leave(self, code: int) -> None:
        """Exit. If an action is running, first ask it to stop, and wait until it has ended.

        A drain that is asked to stop undoes its changes. Other actions run to their end.
        """
        progress = self._progress
        if progress is None or progress.ended.is_set():
            self.exit(int(code))
            return
        progress.action_stop()
        self.run_worker(self._leave_after(progress, int(code)))

    async def _leave_after(self, progress: Progress, code: int) -> None:
        await progress.ended.wait()
        self.exit(code)

    def action_keys(self) -> None:
        self.push_screen(Window("Keys", HELP))

    def action_filter(self) -> None:
        self._filter_field.display = True
        self.set_focus(self._filter_field)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._filter_text = event.value.casefold()
        self.on_panel_moved()

    def on_input_submitted(self) -> None:
        self._filter_field.display = False
        self._panels["queues"].focus()

    def action_end_filter(self) -> None:
        self._filter_field.value = ""
        self.on_input_submitted()

    def action_pause(self) -> None:
        if (name := self._queue()) is not None:
            self._begin(lambda: self._actions.pause(name))

    def action_resume(self) -> None:
        if (name := self._queue()) is not None:
            self._begin(lambda: self._actions.resume(name))

    def action_failures(self) -> None:
        if (name := self._queue()) is not None and not self._busy:
            self.run_worker(self._retry_group(name))

    async def _retry_group(self, name: str) -> None:
        """Show the failed jobs in groups. If a group is chosen, begin the retry of its jobs."""
        chosen = await self.push_screen_wait(Groups(self._details, name))
        if chosen is not None:
            group, exact = chosen
            width = window_room(self.size.width)
            self._begin(lambda: self._actions.retry_group(name, group, width, exact=exact))

    def action_retry(self) -> None:
        """Retry the job under the cursor of the focused list."""
        if (job := self._chosen_job()) is None:
            self._ask_for_job("Retry")
        elif self._panels["failures"].has_focus:
            self._begin(lambda: self._actions.retry_failed(*job))
        else:
            self._begin(lambda: self._actions.retry_stalled(*job))

    def action_job(self) -> None:
        if (job := self._chosen_job()) is None:
            self._ask_for_job("Job")
        else:
            self.push_screen(JobWindow(self._details, *job))

    def action_log(self) -> None:
        if (job := self._chosen_job()) is None:
            self._ask_for_job("Log")
        else:
            self.push_screen(LogWindow(self._details, *job))

    def _ask_for_job(self, title: str) -> None:
        text = "Choose a job first: Tab goes to the active jobs and to the failures."
        self.push_screen(Window(title, [text]))

    def _chosen_job(self) -> tuple[str, str] | None:
        """The queue and the id of the job under the cursor of the focused list."""
        name, job, failure = self._queue(), self._chosen("jobs"), self._chosen("failures")
        if failure is not None:
            return failure[0], failure[1]
        return None if job is None or name is None else (name, job[0])

    def _chosen(self, panel: str) -> Key | None:
        return self._panels[panel].chosen if self._panels[panel].has_focus else None

    def action_drain(self) -> None:
        if (name := self._queue()) is not None and not self._busy:
            self.run_worker(self._drain(name))

    async def _drain(self, name: str) -> None:
        reading = self._reading
        workers = reading.workers if reading and reading.chosen == name else None
        # At most nine choices, one for each digit.
        targets = sorted({w.process for w in workers or () if w.process})[:8]
        choices = ["drain; the queue stays paused", *(f"drain, then restart {t}" for t in targets)]
        answer = await self.push_screen_wait(Choose(f"Drain {visible(name)}", choices))
        if answer:
            target = [None, *targets][int(answer) - 1]
            width = window_room(self.size.width)
            self._begin(lambda: self._actions.drain(name, target, width))

    def _begin(self, prepare: Callable[[], Proposal]) -> None:
        if not self._busy:
            self.run_worker(self._act(prepare))

    async def _act(self, prepare: Callable[[], Proposal]) -> None:
        """Prepare an action, ask the operator, and carry the action out.

        Only one action runs at a time, because actions share a connection.
        """
        self._busy = True
        try:
            while (proposal := await self._prepared(prepare)) is not None:
                answer = await self.push_screen_wait(self._question_about(proposal))
                for variant in proposal.variants:
                    if variant.key == answer:
                        prepare = variant.prepare
                        break
                else:
                    break
            if proposal is not None and answer == "yes" and await self._is_named(proposal):
                self._progress = Progress(proposal)
                await self.push_screen_wait(self._progress)
                self._wake.set()
        finally:
            self._busy = False

    async def _prepared(self, prepare: Callable[[], Proposal]) -> Proposal | None:
        """The proposal. If the action is impossible, show the reason and return None."""
        try:
            return await in_daemon_thread(prepare)
        except QctlError as error:
            lines = tuple(map(visible, error.lines))
            await self.push_screen_wait(Window("Nothing was changed", lines))
            return None

    @staticmethod
    def _question_about(proposal: Proposal) -> Window:
        if proposal.name is None or proposal.variants:
            return Confirm(proposal)
        return ConfirmByName(proposal, proposal.name, proposal.lines)

    async def _is_named(self, proposal: Proposal) -> bool:
        """Ask for the name that confirms a proposal with variants; False if it is not typed.

        True if the proposal needs no name, or has no variants. Without variants, the first window
        has already asked for the name.
        """
        if proposal.name is None or not proposal.variants:
            return True
        # In the window with the variants, each letter is a key that chooses a variant. The name is
        # therefore typed in a second window.
        window = ConfirmByName(proposal, proposal.name, ())
        return await self.push_screen_wait(window) == "yes"
