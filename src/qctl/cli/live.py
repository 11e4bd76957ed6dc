"""Lines on stderr that are redrawn in place, on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from qctl.cli.environment import Environment

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_REDRAWS_PER_S = 10
Draw = Callable[[], Iterable[str]]


class LiveLines:
    """Shows lines and redraws them several times a second, even while one step takes long.

    Without a terminal that can redraw, it shows nothing.
    """

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._live: Live | None = None
        self._draw: Draw | None = None

    @contextlib.contextmanager
    def showing(self, draw: Draw) -> Iterator[None]:
        """``begin`` at the start of the context, and ``end`` at its end."""
        self.begin(draw)
        try:
            yield
        finally:
            self.end()

    def begin(self, draw: Draw) -> None:
        """Show the lines that ``draw`` returns; nothing changes if lines are already shown.

        ``draw`` is called by another thread.
        """
        if self._env.animated and self._live is None:
            self._start(draw)

    def end(self) -> None:
        """Remove the lines."""
        if self._live is not None:
            self._live.stop()
        self._live = self._draw = None

    def note(self, text: str) -> None:
        """Print a remark on stderr, above the lines that are redrawn."""
        draw = self._draw
        self.end()
        self._env.note(text)
        if draw is not None:
            self._start(draw)

    def add(self, lines: Sequence[str]) -> None:
        """Print finished lines above those that are redrawn. Before ``begin``, print nothing."""
        if lines and self._live is not None:
            self._live.console.print(_text(lines), soft_wrap=True)

    def _start(self, draw: Draw) -> None:
        from rich.live import Live  # noqa: PLC0415 - only on a terminal

        self._draw = draw
        self._live = Live(
            get_renderable=lambda: _text(draw()),
            console=self._env.console(self._env.streams.stderr),
            refresh_per_second=_REDRAWS_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()


def _text(lines: Iterable[str]) -> Text:
    from rich.text import Text  # noqa: PLC0415 - only on a terminal

    text = Text.from_ansi("\n".join(lines))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
