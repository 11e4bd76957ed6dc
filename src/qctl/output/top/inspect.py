"""The windows of one job: all of it, and its log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from textual.binding import Binding, BindingType

from qctl.errors import QctlError
from qctl.output.text import visible, without_passwords
from qctl.output.top.actions import Details
from qctl.output.top.threads import in_daemon_thread
from qctl.output.top.window import Window
from qctl.plurals import counted

_POLL_S = 1.0


class JobWindow(Window):
    """One job in full, as it was when the window was opened."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("l", "log", show=False)]

    def __init__(self, details: Details, queue: str, job_id: str) -> None:
        super().__init__(_title("Job", queue, job_id), ["reading …"], ["l log   Esc closes"])
        self._details = details
        self._job = queue, job_id

    def on_mount(self) -> None:
        super().on_mount()
        self.run_worker(self._read())

    async def _read(self) -> None:
        lines: Sequence[str]
        try:
            lines = await in_daemon_thread(partial(self._details.job, *self._job))
        except QctlError as error:
            lines = [*map(visible, error.lines)]
        self.write(lines, ["l log   Esc closes"])

    def action_log(self) -> None:
        self.app.push_screen(LogWindow(self._details, *self._job))


class LogWindow(Window):
    """The last rows of a job's log, read again every second; its end stays in view."""

    def __init__(self, details: Details, queue: str, job_id: str) -> None:
        super().__init__(_title("Log of job", queue, job_id), ["reading …"])
        self._details = details
        self._job = queue, job_id
        self._shown: tuple[str, ...] = ("reading …",)

    def on_mount(self) -> None:
        super().on_mount()
        self.run_worker(self._follow())

    async def _follow(self) -> None:
        while True:
            await self._read()
            await asyncio.sleep(_POLL_S)

    async def _read(self) -> None:
        try:
            log = await in_daemon_thread(partial(self._details.log, *self._job))
        except QctlError as error:
            # The rows read so far stay, with the reason why they may be old.
            foot = [f"{visible(without_passwords(error.what))}; trying again", "Esc closes"]
        else:
            self._shown = log.rows or ("no rows",)
            shown = len(log.rows)
            rows = counted(shown, "row")
            if shown < log.total:
                rows = f"last {shown:,} of {log.total:,} rows"
            foot = [f"{rows}, read every second   Esc closes"]
        follows = self.is_at_end
        self.write(self._shown, foot)
        if follows:
            self.scroll_to_end()


def _title(what: str, queue: str, job_id: str) -> str:
    return f"{what} {visible(job_id, 40)} of {visible(queue, 60)}"
