"""Sorts the lists of the live view by a column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from qctl.ops.jobs.model import Job
from qctl.ops.live.view import LiveQueue
from qctl.output.console import Column
from qctl.output.status import state_cell

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SortKey:
    """How to sort by a column.

    Args:
        of: an item's value; None if it is unknown. Unknown values come last.
        descends: whether the largest value comes first, as for figures.
    """

    of: Callable[[Any], Any]
    descends: bool = True


def sorted_items(items: Sequence[T], key: SortKey, *, is_reversed: bool) -> list[T]:
    """The items in the order of ``key``, or reversed; unknown values last in both."""
    known = [item for item in items if key.of(item) is not None]
    unknown = [item for item in items if key.of(item) is None]
    return sorted(known, key=key.of, reverse=key.descends != is_reversed) + unknown


def marked(columns: Sequence[Column[T]], heading: str, descends: bool) -> list[Column[T]]:
    """The columns, with an arrow in the heading of the one that the rows are sorted by."""
    arrow = "↓" if descends else "↑"
    return [
        replace(
            column,
            heading=f"{column.heading}{arrow}",
            short=f"{column.short}{arrow}" if column.short else "",
        )
        if column.heading == heading
        else column
        for column in columns
    ]


def _of_status(value: Callable[[Any], Any]) -> SortKey:
    return SortKey(lambda queue: None if queue.status is None else value(queue.status))


def _of_rates(value: Callable[[Any], float]) -> SortKey:
    return SortKey(lambda queue: None if queue.rates is None else value(queue.rates))


def _id(job_id: str) -> tuple[bool, int, str]:
    """The sort value of an id: numbers sort by their value, and before other ids."""
    is_number = job_id.isascii() and job_id.isdecimal() and len(job_id) < 20
    return (not is_number, int(job_id) if is_number else 0, job_id)


def _state(queue: LiveQueue) -> str | None:
    return None if queue.status is None else str(state_cell(queue.status).value)


def _progress(job: Job) -> float | None:
    value = job.progress
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


# Queues can be sorted by this heading even while their figures are unknown.
BY_NAME = "QUEUE"
QUEUE_SORTS: Mapping[str, SortKey] = {
    BY_NAME: SortKey(lambda q: q.name.casefold(), descends=False),
    "STATE": SortKey(_state, descends=False),
    "WAIT": _of_status(lambda s: s.counts.waiting + s.counts.prioritized),
    "ACT": _of_status(lambda s: s.counts.active),
    "STALL": _of_status(lambda s: s.counts.stalled),
    "DELAY": _of_status(lambda s: s.counts.delayed),
    "FAILED": _of_status(lambda s: s.counts.failed),
    "WRK": _of_status(lambda s: s.workers),
    "DONE/S": _of_rates(lambda r: r.completed_per_s),
    "FAIL/S": _of_rates(lambda r: r.failed_per_s),
}


JOB_SORTS: Mapping[str, SortKey] = {
    "JOB": SortKey(lambda j: _id(j.id), descends=False),
    "NAME": SortKey(lambda j: j.name, descends=False),
    "PROGRESS": SortKey(_progress),
    "RUNS": SortKey(lambda j: j.runtime_s),
    "LOCK": SortKey(lambda j: j.lock_ttl_ms, descends=False),
    "STALLS": SortKey(lambda j: None if j.missing else j.stalled_count),
    "WORKER": SortKey(lambda j: j.worker, descends=False),
}


WORKER_SORTS: Mapping[str, SortKey] = {
    "WORKER": SortKey(lambda w: w.name, descends=False),
    "ADDRESS": SortKey(lambda w: w.address, descends=False),
    "PROCESS": SortKey(lambda w: w.process, descends=False),
    "PID": SortKey(lambda w: w.pid, descends=False),
    "CPU": SortKey(lambda w: w.cpu_percent),
    "MEMORY": SortKey(lambda w: w.rss_bytes),
    "JOBS": SortKey(lambda w: None if w.jobs is None else len(w.jobs)),
}


FAILURE_SORTS: Mapping[str, SortKey] = {
    "TIME": SortKey(lambda f: f.at),
    "QUEUE": SortKey(lambda f: f.queue.casefold(), descends=False),
    "JOB": SortKey(lambda f: _id(f.id), descends=False),
    "REASON": SortKey(lambda f: f.reason, descends=False),
}
