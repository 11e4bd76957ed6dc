"""Events as lines, and the result of ``qctl wait`` as a line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qctl.ops.times import utc_datetime
from qctl.output.console import styled
from qctl.output.details import json_text
from qctl.output.text import count, duration, shortened, visible
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.ops.follow.events import EventPage, QueueEvent
    from qctl.ops.follow.wait import WaitReport

# Event names and job ids are padded to these widths.
_EVENT_CELLS = 17
_ID_CELLS = 6
# Payloads are cut to this length, because they may be megabytes long, and lines that are written to
# a file are not cut to the width of a terminal.
_MAX_TEXT = 2000
_STYLES = {
    "failed": "red",
    "stalled": "bold red",
    "retries-exhausted": "red",
    "completed": "green",
    "active": "cyan",
    "paused": "yellow",
    "resumed": "yellow",
    "removed": "yellow",
    "cleaned": "yellow",
}


def event_line(event: QueueEvent, now: datetime, *, width: int, colour: bool) -> str:
    """One event on one line: its time (its id, if the id contains no time), name, job, details.

    Args:
        width: of the terminal, in cells.
    """
    name = f"{visible(event.event, 40):<{_EVENT_CELLS}}"
    head = f"{_clock(event, now)}  "
    rest = f"  {visible(event.job_id or ''):<{_ID_CELLS}}  {_details(event)}"
    line = shortened(f"{head}{name}{rest}".rstrip(), width)
    style = _STYLES.get(event.event, "")
    start, end = len(head), len(head) + len(name)
    if not style or not colour or len(line) < end:
        return line
    return line[:start] + styled(line[start:end], style, colour=colour) + line[end:]


def summary(page: EventPage, *, since_at: datetime | None, filtered: bool) -> str:
    """A remark about the events that are not shown; "" if all events asked for are shown."""
    shown = len(page.events)
    if page.total is None:
        return (
            f"queue {page.queue} has no event stream: nothing has happened in it yet, or "
            "the stream was deleted"
        )
    if page.more:
        which = "matches among" if filtered else "of"
        return f"the last {shown:,} {which} {counted(page.total, 'event')}; --limit N for more"
    begins = page.kept_since_at
    if page.cut and begins is not None and since_at is not None and begins > since_at:
        return f"the stream begins at {_utc(begins)}: earlier events are not kept"
    if not shown:
        which = f"no match among {count(page.total)} events"
        return which if filtered else f"none of {count(page.total)} events is that recent"
    return ""


def wait_line(report: WaitReport) -> str:
    """One line for a success; "" for a failure, which is printed as an error."""
    after = f"after {duration(report.waited_s)}"
    if report.outcome == "completed":
        return visible(f"{report.text} {after}")
    if report.outcome in {"idle", "empty"}:
        return visible(f"queue {report.queue} is {report.outcome} {after}: {report.text}")
    return ""


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _clock(event: QueueEvent, now: datetime) -> str:
    at = event.happened_at
    if at is None:
        return visible(event.id)
    if at.date() == now.astimezone(UTC).date():
        return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}Z"
    return f"{at:%m-%d %H:%M:%S}Z"


def _details(event: QueueEvent) -> str:
    fields = dict(event.fields)
    previous = fields.pop("prev", None)
    match event.event:
        case "added":
            text = str(fields.pop("name", ""))
        case "delayed":
            text = _until(event, fields.pop("delay", None))
        case "progress":
            text = _plain(fields.pop("data", None))
        case "completed":
            value = fields.pop("returnvalue", None)
            text = "" if value is None else f"returned {_plain(value)}"
        case "failed":
            text = str(fields.pop("failedReason", ""))
        case "retries-exhausted":
            text = f"after {fields.pop('attemptsMade', '?')} attempts"
        case "duplicated":
            text = "an add of this id was ignored"
        case "deduplicated" | "debounced":
            dropped = fields.pop("deduplicatedJobId", None)
            by = fields.pop("deduplicationId", None) or fields.pop("debounceId", "?")
            text = f"in place of {dropped} (id {by})" if dropped else f"(id {by})"
        case "cleaned":
            text = f"{fields.pop('count', '?')} jobs"
        case _:
            text = ""
    # The previous state is shown only where it is not obvious.
    if previous is not None and event.event in {"waiting", "removed", "waiting-children"}:
        text = f"from {previous}" + (f"; {text}" if text else "")
    others = [f"{name}={_plain(value)}" for name, value in fields.items()]
    return visible(" ".join([text, *others] if text else others)[:_MAX_TEXT])


def _until(event: QueueEvent, due_ms: Any) -> str:
    due = utc_datetime(due_ms) if isinstance(due_ms, int) else None
    if due is None or event.happened_at is None:
        return f"until {due_ms}"
    wait_s = due_ms / 1000 - event.happened_at.timestamp()
    day = "" if due.date() == event.happened_at.date() else f"{due:%Y-%m-%d} "
    return f"for {duration(max(wait_s, 0))}, until {day}{due:%H:%M:%S}Z"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)
