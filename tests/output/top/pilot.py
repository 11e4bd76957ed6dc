"""Drives the live view without a terminal, and reads its screen as text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from rich.color import ColorSystem
from textual.pilot import Pilot

from qctl.output.top.app import TopApp


def lines_of(app: TopApp) -> list[str]:
    """The screen, without the blanks at the end of its lines."""
    strips = app.screen._compositor.render_strips()
    return [strip.text.rstrip() for strip in strips]


def coloured_lines_of(app: TopApp) -> list[str]:
    """The screen as a terminal of any number of colours gets it: 16 are enough for it."""
    strips = app.screen._compositor.render_strips()
    return [
        "".join(
            segment.style.render(segment.text, color_system=ColorSystem.TRUECOLOR)
            if segment.style
            else segment.text
            for segment in strip
        ).rstrip()
        for strip in strips
    ]


def text_of(app: TopApp) -> str:
    return "\n".join(lines_of(app))


async def until(pilot: Pilot[int], app: TopApp, *parts: str, absent: str = "") -> str:
    """The screen once it shows all ``parts`` (and not ``absent``)."""
    deadline = time.monotonic() + 15
    while True:
        await pilot.pause(0.02)
        text = text_of(app)
        if all(part in text for part in parts) and not (absent and absent in text):
            return text
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {parts}, without {absent!r}; the screen:\n{text}")


def drive(
    app: TopApp, steps: Callable[[Pilot[int]], Awaitable[None]], size: tuple[int, int] = (80, 24)
) -> int | None:
    """Run ``steps`` against the app; its return value."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await steps(pilot)

    asyncio.run(run())
    return app.return_value
