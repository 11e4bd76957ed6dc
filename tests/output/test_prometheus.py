"""Prometheus' text, read back by Prometheus' own parser."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qctl.ops.metrics.finished import BUCKETS_S, FinishedFigures
from qctl.ops.metrics.reading import (
    OTHER,
    Drains,
    LastDrain,
    MetricsReading,
    OwnWorkers,
    QueueFigures,
)
from qctl.ops.queues.status import ProcessStatus
from qctl.output import prometheus
from qctl.output.prometheus import Scrape, _Collector, text_of
from qctl.wire.drain_record import OUTCOMES, RESULTS
from qctl.wire.read.snapshot import Counts

DRAINS = Drains(
    dict.fromkeys(OUTCOMES, 1),
    dict.fromkeys(RESULTS, 2),
    LastDrain(
        ended_at=datetime.fromtimestamp(1_700_000_000.5, UTC), outcome="restarted", completed=3,
        failed=0, retried=0, interrupted=1, recovered=1, lost=2, paused_s=4.1, idle_s=0.6,
    ),
)  # fmt: skip
QUEUE = QueueFigures("q", "bull", 1, Counts(5, 3, 1, 4, 2, 6, 7, 8), 12.5, 1, 2, 3, 100, None)
READING = MetricsReading(
    datetime.now(UTC),
    0.25,
    up=True,
    queues=(QUEUE,),
    queues_unreadable=1,
    own_workers=(OwnWorkers("q", "bull", "qctl:w", 2, 10, 3, 24),),
    processes=(ProcessStatus("pm2:w", "0", 42, "online", 60.0, 2, 1.5, 1000, ("q",)),),
    drains=DRAINS,
)
BUCKETS = tuple(range(len(BUCKETS_S) + 1))
FINISHED = FinishedFigures("q", "bull", 9, 1, 2, 3, BUCKETS, 500.5)
FULL = Scrape(READING, (FINISHED,), {"timeout": 4})


def samples(text: str) -> Iterator[Any]:
    for family in text_string_to_metric_families(text):
        yield from family.samples


def value(scrape: Scrape, name: str, **labels: str) -> float | None:
    found = [s.value for s in samples(text_of(scrape)) if (s.name, s.labels) == (name, labels)]
    assert len(found) < 2
    return found[0] if found else None


Q_LABELS = {"queue": "q", "prefix": "bull"}


def test_every_figure_is_there() -> None:
    for name, labels, expected in (
        ("qctl_up", {}, 1),
        ("qctl_scrape_duration_seconds", {}, 0.25),
        ("qctl_scrape_errors_total", {"kind": "timeout"}, 4),
        ("qctl_scrape_errors_total", {"kind": "unreachable"}, 0),
        ("qctl_queues", {}, 1),
        ("qctl_queues_unreadable", {}, 1),
        ("qctl_queue_jobs", {"queue": "q", "prefix": "bull", "state": "active"}, 2),
        ("qctl_queue_jobs", {"queue": "q", "prefix": "bull", "state": "stalled"}, 1),
        ("qctl_queue_jobs", {"queue": "q", "prefix": "bull", "state": "failed"}, 8),
        ("qctl_queue_oldest_waiting_seconds", {"queue": "q", "prefix": "bull"}, 12.5),
        ("qctl_queue_paused", {"queue": "q", "prefix": "bull"}, 1),
        ("qctl_queue_schedulers", {"queue": "q", "prefix": "bull"}, 2),
        ("qctl_queue_workers", {"queue": "q", "prefix": "bull"}, 3),
        (
            "qctl_bullmq_finished_jobs_total",
            {"queue": "q", "prefix": "bull", "result": "completed"},
            100,
        ),
        (
            "qctl_bullmq_finished_jobs_total",
            {"queue": "q", "prefix": "bull", "result": "failed"},
            None,
        ),
        ("qctl_jobs_finished_total", {"queue": "q", "prefix": "bull", "result": "completed"}, 9),
        ("qctl_jobs_finished_total", {"queue": "q", "prefix": "bull", "result": "failed"}, 1),
        ("qctl_jobs_stalled_total", {"queue": "q", "prefix": "bull"}, 2),
        ("qctl_event_gaps_total", {"queue": "q", "prefix": "bull"}, 3),
        ("qctl_job_duration_seconds_bucket", {"queue": "q", "prefix": "bull", "le": "0.5"}, 1),
        ("qctl_job_duration_seconds_bucket", {"queue": "q", "prefix": "bull", "le": "1.0"}, 3),
        ("qctl_job_duration_seconds_count", {"queue": "q", "prefix": "bull"}, sum(BUCKETS)),
        ("qctl_job_duration_seconds_sum", {"queue": "q", "prefix": "bull"}, 500.5),
        ("qctl_process_up", {"target": "pm2:w", "process": "0"}, 1),
        ("qctl_process_restarts", {"target": "pm2:w", "process": "0"}, 2),
        ("qctl_process_uptime_seconds", {"target": "pm2:w", "process": "0"}, 60),
        ("qctl_process_cpu_percent", {"target": "pm2:w", "process": "0"}, 1.5),
        ("qctl_process_resident_memory_bytes", {"target": "pm2:w", "process": "0"}, 1000),
        ("qctl_own_workers", {"queue": "q", "prefix": "bull", "target": "qctl:w"}, 2),
        ("qctl_own_worker_slots", {"queue": "q", "prefix": "bull", "target": "qctl:w"}, 10),
        ("qctl_own_worker_busy", {"queue": "q", "prefix": "bull", "target": "qctl:w"}, 3),
        ("qctl_own_worker_jobs_done", {"queue": "q", "prefix": "bull", "target": "qctl:w"}, 24),
    ):
        assert value(FULL, name, **labels) == expected, (name, labels)


def test_the_page_names_every_metric_with_its_type_and_labels() -> None:
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(qctl_\w+)` \| (\w+) \| (.*?) \| ", page, re.MULTILINE)
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    found = {}
    for family in text_string_to_metric_families(text_of(FULL)):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels}
        found[name] = (family.type, labels - {"le"})
    # An empty cell keeps one blank, which the pattern above needs two of.
    bare = re.findall(r"^\| `(qctl_\w+)` \| (\w+) \| \| ", page, re.MULTILINE)
    assert {**told, **{name: (kind, set()) for name, kind in bare}} == found


def test_the_scrape_that_is_compared_with_the_page_lacks_nothing() -> None:
    """A new kind of figure has to stand in it, or the page could not be seen to lack its rows."""
    # Of a reading that failed; and what is only said on stderr.
    absent = {"error", "remarks"}
    for row in (FULL, READING, FINISHED, DRAINS):
        empty = {f.name for f in fields(row) if not getattr(row, f.name)}
        assert empty <= absent, (type(row).__name__, empty)


def test_the_page_names_no_metric_that_there_is_not() -> None:
    """Neither in a rule nor in a sentence: a rule on a misspelt metric never fires."""
    page = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    there = {sample.name for sample in samples(text_of(FULL))} | {
        family.name for family in text_string_to_metric_families(text_of(FULL))
    }
    assert set(re.findall(r"\bqctl_\w+", page)) <= there


def test_what_is_unknown_is_absent() -> None:
    unknown = replace(QUEUE, workers=None, oldest_waiting_s=None)
    scrape = Scrape(replace(READING, queues=(unknown,)))
    assert value(scrape, "qctl_queue_workers", queue="q", prefix="bull") is None
    # Jobs wait, and nobody could tell since when.
    assert value(scrape, "qctl_queue_oldest_waiting_seconds", queue="q", prefix="bull") is None
    idle = replace(unknown, counts=Counts(0, 0, 0, 0, 0, 0, 0, 0))
    scrape = Scrape(replace(READING, queues=(idle,)))
    assert value(scrape, "qctl_queue_oldest_waiting_seconds", queue="q", prefix="bull") == 0
    assert not [s for s in samples(text_of(scrape)) if s.name.startswith("qctl_jobs_finished")]


def test_a_redis_that_is_away_is_told_and_nothing_else() -> None:
    away = MetricsReading(datetime.now(UTC), 8.0, up=False, error="timeout")
    text = text_of(Scrape(away, (FINISHED,), {"timeout": 1}))
    names = {sample.name for sample in samples(text)}
    assert value(Scrape(away), "qctl_up") == 0
    assert not [name for name in names if name.startswith(("qctl_queue", "qctl_process"))]
    # A counter that vanishes would look like a restart.
    assert "qctl_jobs_finished_total" in names


HOSTILE = ['a"b\\c\nd', "\x1b[31m", "\udcff\udcfe", "ü", "", "(other)"]


def test_labels_of_any_text() -> None:
    rows = tuple(replace(QUEUE, name=name) for name in HOSTILE)
    text = text_of(Scrape(replace(READING, queues=rows)))
    names = [s.labels["queue"] for s in samples(text) if s.name == "qctl_queue_paused"]
    assert names == ['a"b\\c\\nd', "\\x1b[31m", "\\udcff\\udcfe", "ü", "", "(other)"]


def test_no_series_appears_twice_when_names_look_the_same() -> None:
    rows = (replace(QUEUE, name="a\n"), replace(QUEUE, name="a\\n"))
    finished = (replace(FINISHED, queue="a\n"), replace(FINISHED, queue="a\\n"))
    scrape = Scrape(replace(READING, queues=rows), finished, {})
    seen = Counter((s.name, *sorted(s.labels.items())) for s in samples(text_of(scrape)))
    assert set(seen.values()) == {1}
    same = {"queue": "a\\n", "prefix": "bull"}
    assert value(scrape, "qctl_queue_workers", **same) == 6
    assert value(scrape, "qctl_job_duration_seconds_count", **same) == 2 * sum(BUCKETS)
    assert value(scrape, "qctl_bullmq_finished_jobs_total", **same, result="completed") == 200


def test_of_queues_summed_bullmqs_total_is_not_told() -> None:
    """The sum falls while one of them cannot be read, and would seem to begin anew."""
    row = replace(QUEUE, name=OTHER.name, prefix=OTHER.prefix, completed_total=9)
    scrape = Scrape(replace(READING, queues=(row,)), (), {})
    assert value(scrape, "qctl_queue_workers", queue=OTHER.name, prefix="") is not None
    name = "qctl_bullmq_finished_jobs_total"
    assert value(scrape, name, queue=OTHER.name, prefix="", result="completed") is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([5, 9, 9], [5, 9, 9]), ([5, 2, 4], [5, 7, 9]), ([5, None, 6], [5, None, 6])],
)
def test_a_counter_never_falls(
    counts: Sequence[int | None], expected: Sequence[int | None]
) -> None:
    """An obliterated queue counts from 0 again; the server's counter goes on."""
    rows = [replace(QUEUE, completed_total=count) for count in counts]
    scrapes = iter([Scrape(replace(READING, queues=(row,)), (), {}) for row in rows])
    collector = _Collector(lambda: next(scrapes))
    shown = []
    for _ in counts:
        families = {family.name: family for family in collector.collect()}
        told = [s.value for s in families["qctl_bullmq_finished_jobs"].samples]
        shown.append(told[0] if told else None)
    assert shown == expected


def test_totals_of_queues_that_are_gone_are_forgotten_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prometheus, "_MAX_GONE", 3)
    rows: list[tuple[QueueFigures, ...]] = [(replace(QUEUE, name=f"q{n}"),) for n in range(100)]
    # The last of them began anew meanwhile: it is still remembered.
    rows += [(), (replace(QUEUE, name="q99", completed_total=7),)]
    scrapes = iter([Scrape(replace(READING, queues=now), (), {}) for now in rows])
    collector = _Collector(lambda: next(scrapes))
    for _ in rows:
        families = {family.name: family for family in collector.collect()}
        assert len(collector._totals._seen) <= 5
    assert [s.value for s in families["qctl_bullmq_finished_jobs"].samples] == [107]


def test_the_size_is_bounded() -> None:
    rows = tuple(replace(QUEUE, name=f"q{n}") for n in range(200))
    finished = tuple(replace(FINISHED, queue=f"q{n}") for n in range(200))
    text = text_of(Scrape(replace(READING, queues=rows), finished, {}))
    per_queue = Counter(s.labels["queue"] for s in samples(text) if "queue" in s.labels)
    assert {per_queue[f"q{n}"] for n in range(1, 200)} == {30}
