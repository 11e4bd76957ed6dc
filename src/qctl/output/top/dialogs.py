"""The windows of an action (choice, question, progress), and the text of the help window."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, Static

from qctl.errors import QctlError
from qctl.output.text import visible
from qctl.output.top.actions import Proposal
from qctl.output.top.window import NO_BREAK, Window

_REDRAWS_PER_S = 5


class Confirm(Window):
    """A question; the result is ``yes``, the key of a variant, or ``""``.

    The question and its keys stay on the screen while the plan scrolls. An action that is refused
    has no question, but may have variants.
    """

    def __init__(self, proposal: Proposal) -> None:
        self._variants = {variant.key for variant in proposal.variants}
        self._may_confirm = proposal.carry_out is not None
        title, question, keys = "", [], "y yes   n, Esc no"
        if not self._may_confirm:
            title, keys = "Nothing was changed", "Esc closes"
        else:
            question = [_question(proposal)]
            if proposal.name is not None:
                keys = f"y type {visible(proposal.name)} to confirm   n, Esc no"
        # A key and its flag are not torn apart at the end of a line.
        flags = [f"{v.key} {v.flag}".replace(" ", NO_BREAK) for v in proposal.variants]
        foot = [*question, *([f"with: {'   '.join(flags)}"] if flags else []), keys]
        super().__init__(title, proposal.lines, foot)

    def on_key(self, event: events.Key) -> None:
        answers = {"n": "", **({"y": "yes"} if self._may_confirm else {})}
        answers |= {key: key for key in self._variants}
        if event.character in answers:
            # Otherwise the view behind, which is active after the answer, would take the key, too.
            event.stop()
            self.dismiss(answers[event.character])


class ConfirmByName(Window):
    """A question that is confirmed by typing a name, e.g. that of a context with ``confirm``."""

    def __init__(self, proposal: Proposal, name: str, lines: Sequence[str]) -> None:
        self._name_wanted = name
        self._field = Input(id="name", compact=True)
        self._reply = Static("", id="reply", markup=False)
        foot = [_question(proposal), f"type {visible(name)} to confirm   Esc no"]
        super().__init__("", lines, foot)

    def fields(self) -> Sequence[Widget]:
        return (self._field, self._reply)

    def on_mount(self) -> None:
        super().on_mount()
        self._field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        # Otherwise the event would reach the queue filter of the view behind this window.
        event.stop()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip() == self._name_wanted:
            self.dismiss("yes")
        elif event.value:
            self._reply.update("another name was typed: nothing was done")
            self._field.clear()


def _question(proposal: Proposal) -> str:
    remark = f" {visible(proposal.remark)}" if proposal.remark else ""
    return f"{visible(proposal.title)}?{remark}"


class Choose(Window):
    """A list of choices; the result is the digit of one, or ``""``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(str(digit), f"answer('{digit}')", show=False) for digit in range(1, 10)
    ]

    def __init__(self, title: str, choices: Sequence[str]) -> None:
        self._count = len(choices)
        lines = [f"{digit}  {visible(text)}" for digit, text in enumerate(choices, 1)]
        super().__init__(title, lines, ["the digit chooses   Esc nothing"])

    def action_answer(self, answer: str) -> None:
        if not answer or int(answer) <= self._count:
            self.dismiss(answer)


class Progress(Window):
    """A running action, then its result. The window closes only after the action has ended."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("s", "stop", show=False)]

    def __init__(self, proposal: Proposal) -> None:
        super().__init__(visible(proposal.title), ())
        self._proposal = proposal
        self._lines_shown: list[str] = []
        self._stop = threading.Event()
        self.ended = asyncio.Event()

    def on_mount(self) -> None:
        self._update()
        self.set_interval(1 / _REDRAWS_PER_S, self._redraw)
        self.run_worker(self._run(), exit_on_error=True)

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._follow)
        except QctlError as error:
            self._add([*map(visible, error.lines)])
        finally:
            self.ended.set()
        self._update()

    def _follow(self) -> None:
        carry_out = self._proposal.carry_out
        for lines in carry_out(self._stop.is_set) if carry_out else ():
            self.app.call_from_thread(self._add, lines)

    def _add(self, lines: Sequence[str]) -> None:
        self._lines_shown += lines
        self._update()

    def _redraw(self) -> None:
        if not self.ended.is_set():
            self._update()

    def _update(self) -> None:
        foot, live = "Esc closes", list[str]()
        if not self.ended.is_set():
            foot = "stopping: putting everything back …" if self._stop.is_set() else "s stops"
            live = [*self._proposal.live()]
        was_at_end = self.is_at_end
        # Once the action has ended, its result is shown without the title.
        self.write([*self._lines_shown, *live], [foot], "" if self.ended.is_set() else None)
        if was_at_end:
            self.scroll_to_end()

    def action_answer(self, answer: str) -> None:
        if self.ended.is_set():
            self.dismiss(answer)

    def action_stop(self) -> None:
        """Ask the action to stop.

        A drain undoes its changes, another long action ends early, and a short action runs to its
        end.
        """
        if not self.ended.is_set():
            self._stop.set()
            self._update()


# At most 18 lines of 75 cells, so that the window fits a terminal of 80 by 24 cells.
HELP = (
    "arrows, PgUp, PgDn  choose a row",
    "Tab, Shift-Tab      next list",
    "/                   only queues with a text in their name; Esc: all",
    "p  r                pause or resume the chosen queue",
    "Enter  l            open the chosen job; its log",
    "t                   put the chosen stalled or failed job back",
    "f                   failed jobs of the chosen queue by reason; retry them",
    "d                   drain the chosen queue; then restart, if wanted",
    "s  S                sort the list by the next column; reverse the order",
    "?  q                show these keys; quit",
    "",
    "Jobs and workers belong to the chosen queue. Rates count events since the",
    "last reading: ~ marks an estimate from a sample; ≥ means that events were",
    "trimmed before they were read. Failures appear at once for queues on the",
    "screen, and later for other queues. An action shows what it will change,",
    "then waits for y, or for a name that must be typed.",
)
