"""Schedulers as a table and as labelled lines."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from qctl.ops.schedules.listing import MAX_SKIPPED, ScheduleDetail
from qctl.output.console import cell_text
from qctl.output.schedules import columns, detail_lines

NOW = datetime(2026, 5, 4, tzinfo=UTC)
SCHEDULE = ScheduleDetail(
    queue="q",
    prefix="bull",
    id="sync",
    kind="scheduler",
    name="sync",
    pattern=None,
    every_ms=1000,
    tz=None,
    offset_ms=0,
    state="overdue",
    next_at=NOW,
    pending_id="repeat:sync:1",
    pending_state="delayed",
    iterations=1,
    limit=None,
    last_run_at=None,
    skipped=0,
    start_at=None,
    end_at=None,
    data=None,
    opts={},
    package=None,
    upcoming_at=(),
)


@pytest.mark.parametrize(
    ("skipped", "cell", "line"),
    [
        (0, "", None),
        (20, "20", "20 due times"),
        (MAX_SKIPPED, "1000+", "1,000 due times or more"),
        (None, "?", "unknown"),
    ],
)
def test_an_unknown_number_of_skipped_times_is_not_shown_as_none(
    skipped: int | None, cell: str, line: str | None
) -> None:
    schedule = replace(SCHEDULE, skipped=skipped)
    (column,) = (column for column in columns([SCHEDULE], NOW) if column.heading == "SKIPPED")
    assert cell_text(column.value(schedule), short=False) == cell
    facts = dict(text.split("  ", 1) for text in detail_lines(schedule, NOW))
    assert (facts.get("skipped") or "").strip() == (line or "")
