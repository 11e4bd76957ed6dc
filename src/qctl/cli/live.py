"""Lines on stderr that are redrawn in place, on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
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
        """Show the lines that ``draw`` returns, until the context ends.

        ``draw`` is called by another thread.
        """
        if self._env.animated:
            self._start(draw)
        try:
            yield
        finally:
            self._stop()

    def note(self, text: str) -> None:
        """Print a remark on stderr, above the lines that are redrawn."""
        draw = self._draw
        self._stop()
        self._env.note(text)
        if draw is not None:
            self._start(draw)

    def _start(self, draw: Draw) -> None:
        from rich.live import Live  # noqa: PLC0415 - only on a terminal
        from rich.text import Text  # noqa: PLC0415

        def text() -> Text:
            drawn = Text.from_ansi("\n".join(draw()))
            drawn.no_wrap, drawn.overflow = True, "ellipsis"
            return drawn

        self._draw = draw
        self._live = Live(
            get_renderable=text,
            console=self._env.console(self._env.streams.stderr),
            refresh_per_second=_REDRAWS_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = self._draw = None
