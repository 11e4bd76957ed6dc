"""The windows over the live view: a question, a choice, a running action, the keys."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from qctl.errors import QctlError
from qctl.output.text import visible, without_passwords
from qctl.output.top.actions import ActionOutput, Proposal


class Window(ModalScreen[str]):
    """Shows text until a key closes the window; the result is the key's answer, ``""`` for Esc."""

    DEFAULT_CSS = """
    Window {
        align: center middle;
        & > VerticalScroll {
            width: 90%; max-width: 100; height: auto; max-height: 90%;
            border: round ansi_default; padding: 0 1; background: ansi_default;
        }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "answer('')", show=False),
    ]

    def __init__(self, title: str, lines: Sequence[str], foot: str = "Esc closes") -> None:
        super().__init__()
        self._title = title
        self._text = Static(id="text")
        self._write(lines, foot)

    def _write(self, lines: Sequence[str], foot: str) -> None:
        # The lines of an error may contain a URL with its password.
        text = "\n".join([self._title, "", *lines, "", foot])
        self._text.update(Text(without_passwords(text)))

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self._text

    def action_answer(self, answer: str) -> None:
        self.dismiss(answer)


class Confirm(Window):
    """A yes-or-no question; the result is ``yes`` or ``""``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer('yes')", show=False),
        Binding("n", "answer('')", show=False),
    ]

    def __init__(self, proposal: Proposal) -> None:
        super().__init__(visible(proposal.question), proposal.lines, "y = yes   n, Esc = no")


class ConfirmByName(Window):
    """A question for a context with ``confirm``: typing the context's name means yes."""

    def __init__(self, proposal: Proposal, name: str) -> None:
        lines = (*proposal.lines, "", f"This writes to context {visible(name)}.")
        super().__init__(visible(proposal.question), lines, "type its name   Esc = no")
        self._name_wanted = name
        self._field = Input(id="name", compact=True)
        self._reply = Static("", id="reply", markup=False)

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield self._text
            yield self._field
            yield self._reply

    def on_mount(self) -> None:
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


def question_about(proposal: Proposal) -> Window:
    """The window that asks whether to carry out the action."""
    name = proposal.name
    return Confirm(proposal) if name is None else ConfirmByName(proposal, name)


class Choose(Window):
    """A list of choices; the result is the digit of one, or ``""``."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(str(digit), f"answer('{digit}')", show=False) for digit in range(1, 10)
    ]

    def __init__(self, title: str, choices: Sequence[str]) -> None:
        self._count = len(choices)
        lines = [f"{digit}  {visible(text)}" for digit, text in enumerate(choices, 1)]
        super().__init__(title, lines, "the digit chooses   Esc = nothing")

    def action_answer(self, answer: str) -> None:
        if not answer or int(answer) <= self._count:
            self.dismiss(answer)


class Progress(Window):
    """A running action and its steps. The window closes only after the action has ended."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("s", "stop", show=False)]

    def __init__(self, proposal: Proposal) -> None:
        super().__init__(visible(proposal.question), ())
        self._carry_out = proposal.carry_out
        self._lines_shown: list[str] = []
        self._temporary: tuple[str, ...] = ()
        self._stop = threading.Event()
        self.ended = asyncio.Event()

    def on_mount(self) -> None:
        self._draw()
        self.run_worker(self._run(), exit_on_error=True)

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._follow)
        except QctlError as error:
            self._add(ActionOutput(tuple(map(visible, error.lines))))
        finally:
            self._temporary = ()
            self.ended.set()
        self._draw()

    def _follow(self) -> None:
        for output in self._carry_out(self._stop.is_set):
            self.app.call_from_thread(self._add, output)

    def _add(self, output: ActionOutput) -> None:
        self._temporary = output.lines if output.temporary else ()
        if not output.temporary:
            self._lines_shown += output.lines
        self._draw()

    def _draw(self) -> None:
        if not self._text.is_attached:
            return
        foot = "Esc closes"
        if not self.ended.is_set():
            foot = "stopping: putting everything back …" if self._stop.is_set() else "s stops"
        self._write([*self._lines_shown, *self._temporary], foot)
        self._text.scroll_visible(animate=False, top=False)

    def action_answer(self, answer: str) -> None:
        if self.ended.is_set():
            self.dismiss(answer)

    def action_stop(self) -> None:
        """Ask the action to stop: a drain undoes its changes, other actions finish."""
        self._stop.set()
        self._draw()


# At most 15 lines of 66 cells, so that the window fits a terminal of 80 by 24 cells.
HELP = (
    "arrows, PgUp, PgDn  choose a row",
    "Tab, Shift-Tab      next list",
    "/                   only queues with a text in their name; Esc: all",
    "p  r                pause or resume the chosen queue",
    "t                   put the chosen stalled or failed job back",
    "d                   drain the chosen queue; then restart, if wanted",
    "?  q                show these keys; quit",
    "",
    "Jobs and workers belong to the chosen queue. Rates count events",
    "since the last reading: ~ marks an estimate from a sample; ≥ means",
    "that events were trimmed before they were read.",
    "Failures appear at once for queues on the screen, and later for",
    "other queues. An action shows what it will change, then waits for",
    "y, or for the context's name if the context requires it.",
)
