"""Every table fits the terminal whatever the names are, and JSON has everything whole."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qctl.ops.jobs.model import Fate, Job, JobList
from qctl.ops.queues.advice import Note
from qctl.ops.queues.status import ProcessStatus, QueueStatus, StatusReport
from qctl.ops.queues.workers import WorkersReport, WorkerStatus
from qctl.output.console import UNLIMITED_WIDTH, table
from qctl.output.jobs import columns
from qctl.output.json import dumps
from qctl.output.status import status_text, workers_text
from qctl.output.text import cells
from qctl.wire.read.snapshot import Counts
from qctl.wire.states import STATES
from tests.labs.reports import PROCESS, QUEUE, REDIS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Long ones, wide ones, those that nobody can see, and those that are no text at all.
NAMES = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=()), max_size=80),
    st.text("日本語漢字", min_size=30, max_size=60),
    st.sampled_from(["x" * 200, "👩‍👩‍👧" * 20, "e\u0301" * 60, "\u202e" * 30, "\udcff" * 40]),
)
COUNTS = st.integers(0, 10**12)
WIDTHS = st.sampled_from([80, 100, 132])


def queues() -> st.SearchStrategy[QueueStatus]:
    return st.builds(
        lambda name, counts, oldest, workers, draining: replace(
            QUEUE,
            name=name,
            counts=Counts(*counts),
            oldest_waiting_s=oldest,
            workers=workers,
            draining=draining,
        ),
        NAMES,
        st.lists(COUNTS, min_size=8, max_size=8),
        st.none() | st.floats(0, 10**8),
        st.none() | st.integers(0, 9999),
        st.booleans(),
    )


def processes() -> st.SearchStrategy[ProcessStatus]:
    return st.builds(
        lambda target, served: replace(PROCESS, target=target, queues=tuple(served)),
        NAMES,
        st.lists(NAMES, max_size=5),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(queues(), max_size=6), st.lists(processes(), max_size=3), WIDTHS)
def test_status_fits(rows: list[QueueStatus], managed: list[ProcessStatus], width: int) -> None:
    report = StatusReport(REDIS, tuple(rows), tuple(managed))
    lines = status_text(report, width=width, colour=False).splitlines()
    assert max(map(cells, lines)) <= width
    assert len(lines) >= len(rows) + len(managed)


def test_names_of_60_characters_are_cut_in_the_middle() -> None:
    """Also those above and below the tables; commands stay whole, so that they can be copied."""
    first, second = (f"orders-{'of-the-european-region-' * 2}{end}" for end in ("123456", "987654"))
    note = Note(f"paused by somebody on the host {'h' * 60}", (f"qctl resume {first}",))
    rows = [replace(QUEUE, name=n, prefix="p" * 60, notes=(note,)) for n in (first, second)]
    managed = replace(PROCESS, target=f"pm2:{first}", queues=(first, second))
    one = StatusReport(REDIS, tuple(rows), (managed,), other_prefixes=("o" * 60,))
    two = replace(one, queues=(rows[0], replace(rows[1], prefix="q" * 60)))
    for report in (one, two):
        lines = status_text(report, width=80, colour=False).splitlines()
        assert max(cells(line) for line in lines if not line.startswith("    qctl")) <= 80
        assert f"    qctl resume {first}" in lines
        # Piped, every name is whole.
        text = status_text(report, width=UNLIMITED_WIDTH, colour=False)
        assert text.count(first) >= 4
    lines = status_text(one, width=80, colour=False).splitlines()
    names = [line.split()[0] for line in lines if line]
    for name in (first, second):
        assert any(n[:3] == name[:3] and "…" in n and n[-3:] == name[-3:] for n in names)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, NAMES, NAMES), min_size=1, max_size=6), WIDTHS)
def test_workers_fit(rows: list[tuple[str, str, str, str]], width: int) -> None:
    report = WorkersReport(
        tuple(
            WorkerStatus(
                *(queue, prefix, name, "255.255.255.255:65535", 4_194_304, process),
                cpu_percent=399.5,
                rss_bytes=2**40,
                jobs=("1",) * 99,
                age_s=10**8,
            )
            for queue, prefix, name, process in rows
        )
    )
    lines = workers_text(report, width=width, colour=False).splitlines()
    assert max(map(cells, lines)) <= width
    assert len(lines) == len(rows) + 1


@pytest.mark.parametrize("state", STATES)
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(NAMES, NAMES, NAMES, COUNTS), min_size=1, max_size=6), width=WIDTHS)
def test_jobs_fit(state: str, rows: list[tuple[str, str, str, int]], width: int) -> None:
    long_ago = NOW - timedelta(days=9999)
    jobs = tuple(
        Job(
            id=job_id,
            name=name,
            state=state,
            attempts_made=number % 100_000,
            attempts_max=99_999,
            worker=text,
            lock_ttl_ms=number,
            added_at=long_ago,
            started_at=long_ago,
            finished_at=long_ago,
            due_at=NOW + timedelta(days=9999),
            runtime_s=number % 10**8,
            failed_reason=text,
            priority=2_097_152,
            fate=Fate(outcome="recovered", text="x") if state == "stalled" else None,
        )
        for job_id, name, text, number in rows
    )
    chosen = columns(JobList("q", state, len(jobs), jobs), NOW, width)
    lines = table(chosen, jobs, width=width).splitlines()
    assert max(map(cells, lines)) <= width
    assert len(lines) >= len(rows) + 1


@settings(max_examples=20, deadline=None)
@given(NAMES, NAMES, st.lists(NAMES, max_size=3))
def test_json_is_whole(name: str, reason: str, served: list[str]) -> None:
    name, reason = name * 50, reason * 50
    job = Job(id=name, name=name, state="failed", failed_reason=reason, data={name: reason})
    record = json.loads(dumps(JobList("q", "failed", 1, (job,))))["jobs"][0]
    assert (record["id"], record["failed_reason"], record["data"]) == (name, reason, {name: reason})
    process = replace(PROCESS, target=name, queues=tuple(served))
    report = StatusReport(REDIS, (replace(QUEUE, name=name),), (process,))
    shown = json.loads(dumps(report))
    assert shown["queues"][0]["name"] == name
    assert shown["processes"][0]["queues"] == served
