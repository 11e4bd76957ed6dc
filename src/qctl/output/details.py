"""Times, labelled lines and JSON as text, for the views of jobs, schedulers and events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from qctl.output.console import Cell, Value
from qctl.output.json import TOO_DEEP, iso_time
from qctl.output.text import duration, short_duration, visible


def age(moment: datetime | None, now: datetime) -> str | None:
    """The time since ``moment``, as in ``4m10s``; None if ``moment`` is None."""
    return None if moment is None else short_duration((now - moment).total_seconds())


def time_left(due: datetime | None, now: datetime) -> Value:
    """The time until ``due``, as in ``4m10s``; ``-4m10s`` in yellow if ``due`` has passed."""
    if due is None:
        return None
    left_s = (due - now).total_seconds()
    return Cell(f"-{short_duration(-left_s)}", "yellow") if left_s < 0 else short_duration(left_s)


def moment_text(moment: datetime | None, now: datetime) -> str | None:
    """``2026-01-31T12:00:00.000Z  in 4 min 10 s``, or ``… ago``."""
    if moment is None:
        return None
    left_s = (moment - now).total_seconds()
    away = f"in {duration(left_s)}" if left_s >= 0 else f"{duration(-left_s)} ago"
    return f"{iso_time(moment)}  {away}"


def labelled_lines(
    facts: Iterable[tuple[str, str | None]], max_text: int | None = None
) -> Iterator[str]:
    """A line for each known fact, with control characters made visible.

    Args:
        max_text: how many characters of a text to show. If the text is longer, the line says how
            long.
    """
    known = [(label, text) for label, text in facts if text is not None]
    width = max(len(label) for label, _ in known)
    for label, text in known:
        shown = visible(text[:max_text])
        rest = f"… ({len(text):,} characters)" if len(text) > len(text[:max_text]) else ""
        yield f"{label:<{width}}  {shown}{rest}"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON for people, with non-ASCII characters as they are."""
    try:
        return json.dumps(value, ensure_ascii=False, default=dict, indent=indent)
    except RecursionError:
        return TOO_DEEP
