"""The failed jobs of a queue in groups, on the whole screen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from qctl.errors import QctlError
from qctl.ops.jobs.failures import FailureGroup, FailureReport
from qctl.output import failures as view
from qctl.output.text import visible, without_passwords, wrapped
from qctl.output.top.actions import Details
from qctl.output.top.inspect import JobWindow
from qctl.output.top.panel import Key, Panel
from qctl.output.top.threads import in_daemon_thread

_KEYS = "t retry this group   Enter open its last job   Esc back"


class Groups(ModalScreen[tuple[FailureGroup, bool]]):
    """Counts and shows the groups; the result is a group to retry, and whether its count is exact.

    Args:
        details: counts the failed jobs; the screen calls it in a thread.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f", "dismiss", show=False),
        Binding("t", "retry", show=False),
        Binding("enter", "job", show=False),
    ]

    def __init__(self, details: Details, queue: str) -> None:
        super().__init__()
        self._details = details
        self._queue = queue
        self._report: FailureReport | None = None
        self._rows: list[view.Row] = []
        self._error: QctlError | None = None
        self._is_counting = True
        self._panel = Panel("FAILED JOBS", id="groups", sorts={})
        self._command = Static("", id="command", markup=False)
        self._note = Static("", id="remark", markup=False)

    def compose(self) -> ComposeResult:
        yield self._panel
        yield self._command
        yield self._note
        yield Static(_KEYS, markup=False)

    def on_mount(self) -> None:
        self._panel.focus()
        self._draw()
        self.run_worker(self._count())

    async def _count(self) -> None:
        reports = self._details.failures(self._queue)
        try:
            while report := await in_daemon_thread(partial(next, reports, None)):
                self._report = report
                self._draw()
        except QctlError as error:
            self._error = error
        self._is_counting = False
        self._draw()

    def on_panel_moved(self, event: Panel.Moved) -> None:
        # Otherwise the app would handle this event as a move in one of its own lists.
        event.stop()
        self._draw()

    def _draw(self) -> None:
        if not self._panel.is_attached:
            return
        report = self._report
        title = f"FAILED JOBS of {visible(self._queue, 40)} by reason"
        if report is None:
            self._panel.show((), (), _key, title=title, empty=self._empty(), age="")
        else:
            if self._is_counting:
                title += f"; {view.progress_text(report.scanned, report.total)} …"
            rows = self._rows = view.rows(report, datetime.now(UTC))
            # The command has a line of its own, where it is not cut.
            columns = view.columns(report)[:-1]
            self._panel.show(columns, rows, _key, title=title, empty=self._empty(), age="")
        width = self.size.width
        group = self._chosen()
        command = "" if group is None or group.command is None else group.command
        self._command.update("\n".join(wrapped(command, width, cut=False)))
        remarks = [visible(without_passwords(text)) for text in self._remarks()]
        self._note.update("\n".join(line for text in remarks for line in wrapped(text, width)))

    def _empty(self) -> str:
        if self._error is not None:
            return "unknown"
        return "reading …" if self._is_counting else "none"

    def _remarks(self) -> Iterator[str]:
        """Why the figures are not complete."""
        report = self._report
        if self._error is not None:
            yield f"the count ended early: {self._error.what}"
        elif report is not None and not report.complete and not self._is_counting:
            yield (
                f"only the oldest {report.scanned:,} of {report.total:,} failed jobs were read; "
                f"qctl jobs failures reads all"
            )
        if report is not None and report.missing:
            yield f"{report.missing:,} ids in 'failed' have no record: qctl doctor explains that"

    def _chosen(self) -> FailureGroup | None:
        key = self._panel.chosen
        groups = self._report.groups if self._report else ()
        # The last row may be for the jobs that are in no group.
        shown = zip(self._rows, groups, strict=False)
        return next((group for row, group in shown if _key(row) == key), None)

    def action_job(self) -> None:
        if (group := self._chosen()) is not None:
            self.app.push_screen(JobWindow(self._details, self._queue, group.example_id))

    def action_retry(self) -> None:
        group, report = self._chosen(), self._report
        if group is not None and group.where is not None and report is not None:
            self.dismiss((group, report.complete and not group.is_least))


def _key(row: view.Row) -> Key:
    return (row.command or row.label,)
