"""A window over the live view: a title, a text that scrolls, and a foot that is always visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from qctl.output.text import cells, without_passwords, wrapped

_MAX_WIDTH = 104
# The border and one blank at each side, and the border above and below.
_FRAME_WIDTH, _FRAME_HEIGHT = 4, 2
# A space in the foot at which a line is never wrapped.
NO_BREAK = "\u00a0"
_SCROLL_HINT = "   ↑↓ scroll"


def window_room(screen_width: int) -> int:
    """How many cells a window's line has on a screen of this width, not counting the scrollbar."""
    return max(min(screen_width, _MAX_WIDTH) - _FRAME_WIDTH - 1, 10)


class Window(ModalScreen[str]):
    """Shows text until a key closes the window; the result is the key's answer, ``""`` for Esc.

    Args:
        title: in bold above the text; "" for none.
        lines: may contain colours.
        foot: the question and the keys, a line each; they do not scroll.
    """

    DEFAULT_CSS = """
    Window {
        align: center middle;
        & > #frame {
            width: 100%; max-width: 104; height: auto; max-height: 100%;
            border: round ansi_default; padding: 0 1; background: ansi_default;
        }
        & #title { text-style: bold; }
        & #body { height: auto; scrollbar-size-vertical: 1; background: ansi_default; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "answer('')", show=False),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("pageup", "scroll_page(-1)", show=False),
        Binding("pagedown,space", "scroll_page(1)", show=False),
        Binding("home", "scroll(-1000000)", show=False),
        Binding("end", "scroll(1000000)", show=False),
    ]

    def __init__(
        self, title: str, lines: Sequence[str], foot: Sequence[str] = ("Esc closes",)
    ) -> None:
        super().__init__()
        self._title = title
        self._lines = tuple(lines)
        self._foot = tuple(foot)
        self._title_text = Static(id="title", markup=False)
        self._text = Static(id="text", markup=False)
        self._body = VerticalScroll(self._text, id="body", can_focus=False)
        self._foot_text = Static(id="foot", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="frame"):
            yield self._title_text
            yield self._body
            yield from self.fields()
            yield self._foot_text

    def fields(self) -> Sequence[Widget]:
        """The widgets between the text and the foot. Each widget is one line high."""
        return ()

    def on_mount(self) -> None:
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    def write(self, lines: Sequence[str], foot: Sequence[str], title: str | None = None) -> None:
        """Show other lines and another foot; also another title, unless ``title`` is None."""
        self._lines, self._foot = tuple(lines), tuple(foot)
        self._title = self._title if title is None else title
        self.draw()

    def draw(self) -> None:
        """Show the present text. The part that scrolls may take all lines that the rest leaves."""
        if not self._text.is_attached:
            return
        room = window_room(self.size.width)
        title = [*wrapped(self._title, room), ""] if self._title else []
        foot = [line.replace(NO_BREAK, " ") for text in self._foot for line in wrapped(text, room)]
        taken = _FRAME_HEIGHT + len(title) + len(foot) + 1 + len(self.fields())
        self._title_text.display = bool(title)
        self._title_text.update("\n".join(title))
        self._body.styles.max_height = max(self.size.height - taken, 1)
        # The lines of an error may contain a URL with its password.
        self._text.update(Text.from_ansi(without_passwords("\n".join(self._lines))))
        self._show_foot(foot)
        self.call_after_refresh(self._add_scroll_hint, foot)

    def _show_foot(self, lines: Sequence[str]) -> None:
        text = Text("\n" + "\n".join(lines))
        if len(lines) > 1:
            # The question.
            text.stylize("bold", 1, 1 + len(lines[0]))
        self._foot_text.update(text)

    def _add_scroll_hint(self, foot: list[str]) -> None:
        if self._body.max_scroll_y and foot:
            *above, last = foot
            if cells(last + _SCROLL_HINT) <= window_room(self.size.width):
                self._show_foot([*above, last + _SCROLL_HINT])

    def scroll_to_end(self) -> None:
        """Show the last lines, once they have been laid out."""
        self.call_after_refresh(self._body.scroll_end, animate=False)

    @property
    def is_at_end(self) -> bool:
        """Whether the last line is visible."""
        return self._body.scroll_y >= self._body.max_scroll_y

    def action_answer(self, answer: str) -> None:
        self.dismiss(answer)

    def action_scroll(self, lines: int) -> None:
        self._body.scroll_relative(y=lines, animate=False)

    def action_scroll_page(self, pages: int) -> None:
        self._body.scroll_relative(y=pages * max(self._body.size.height - 1, 1), animate=False)
