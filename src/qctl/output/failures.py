"""Groups of failed jobs: three lines for each on a terminal, else a line for each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from qctl.ops.jobs.failures import FailureGroup, FailureReport
from qctl.output.console import Column, styled
from qctl.output.details import age, json_text
from qctl.output.text import count, shortened, visible
from qctl.plurals import counted

_MAX_VALUE = 300


class Row(NamedTuple):
    """One group as text."""

    jobs: str
    share: str
    first: str | None
    last: str | None
    example: str | None
    label: str
    command: str | None


def rows(report: FailureReport, now: datetime) -> list[Row]:
    """A row for each group. If some jobs are in no group, the last row is for these jobs."""
    found = [
        Row(
            ("≥ " if group.is_least else "") + count(group.count),
            _share(group.share),
            age(group.first_at, now),
            age(group.last_at, now),
            group.example_id,
            _label(report, group),
            group.command,
        )
        for group in report.groups
    ]
    if report.other_count:
        in_all = _share(report.other_count / report.counted)
        label = "(other)"
        if report.other_groups is not None:
            label = f"(other: {counted(report.other_groups, 'group')})"
        found.append(Row(count(report.other_count), in_all, None, None, None, label, None))
    return found


def columns(report: FailureReport) -> list[Column[Row]]:
    """The columns of the rows in a pipe or a file."""
    return [
        Column("COUNT", lambda row: row.jobs, right=True),
        Column("SHARE", lambda row: row.share, right=True),
        Column("FIRST", lambda row: row.first, right=True),
        Column("LAST", lambda row: row.last, right=True),
        Column("EXAMPLE", lambda row: row.example),
        Column(report.by.rpartition(".")[2].upper(), lambda row: row.label),
        Column("RETRY", lambda row: row.command),
    ]


def blocks(found: list[Row], *, width: int, colour: bool) -> str:
    """The rows on a terminal. A command is never cut, so that it can be copied."""
    counts = max((len(row.jobs) for row in found), default=0)
    shares = max((len(row.share) for row in found), default=0)
    margin = " " * (counts + shares + 4)
    lines = []
    for row in found:
        label = shortened(visible(row.label), max(width - len(margin), 20))
        numbers = f"{row.jobs:>{counts}}  {row.share:>{shares}}"
        lines.append(f"{styled(numbers, 'bold', colour=colour)}  {label}")
        facts = []
        if row.first is not None and row.last is not None:
            facts = [f"first {row.first} ago", f"last {row.last} ago"]
        if row.example is not None:
            facts.append(f"for example job {visible(row.example, 40)}")
        if facts:
            text = shortened(", ".join(facts), max(width - len(margin), 20))
            lines.append(margin + styled(text, "dim", colour=colour))
        if row.command is not None:
            lines.append(margin + row.command)
    return "".join(f"{line}\n" for line in lines)


def remarks(report: FailureReport, *, held: int) -> Iterator[str]:
    """What the rows do not say, one remark a line.

    Args:
        held: how many groups the count keeps in memory at most.
    """
    where = f"in queue {report.queue}"
    if not report.counted and report.complete:
        yield f"no failed jobs {where}" + ("" if report.since_at is None else " since that time")
    if report.other_groups is None:
        yield (
            f"there are more than {held:,} groups: the rarest were merged into (other) while "
            "counting, and a count after ≥ is a lower bound"
        )
    elif report.other_groups:
        yield f"showing {len(report.groups):,} groups; --limit N for more"
    if report.missing:
        ids = counted(report.missing, "id")
        yield f"not counted: {ids} in 'failed' without a record; `qctl doctor` explains that"


def progress_text(scanned: int, total: int) -> str:
    """How far the scan is, on one line."""
    return f"{count(scanned)} of {count(max(total, scanned))} failed jobs read"


def _label(report: FailureReport, group: FailureGroup) -> str:
    if group.where is None:
        return "(objects, arrays and long texts)"
    if group.value is None:
        return "(no reason)" if report.by == "reason" else "(null or missing)"
    if isinstance(group.value, str):
        return group.value[:_MAX_VALUE] or "(empty)"
    return json_text(group.value)[:_MAX_VALUE]


def _share(share: float) -> str:
    return f"{share * 100:.1f} %"
