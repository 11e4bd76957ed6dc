"""Readings in Prometheus' text format, printed or served. docs/metrics.md lists every metric."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

# Not imported anywhere else, and this module only by `qctl metrics`: it costs 125 ms.
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from qctl import __version__
from qctl.errors import FailedError
from qctl.ops.metrics.finished import BUCKETS_S, FinishedFigures
from qctl.ops.metrics.reading import OTHER, Drains, MetricsReading, OwnWorkers, QueueFigures
from qctl.output.text import visible

# Totals kept of queues that are gone.
_MAX_GONE = 2000

Samples = dict[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The content of one scrape.

    Args:
        finished: what the server has counted from events; None when metrics are printed once.
        errors: failures of the server so far, by kind; None when metrics are printed once.
    """

    reading: MetricsReading
    finished: tuple[FinishedFigures, ...] | None = None
    errors: Mapping[str, int] | None = None


def text_of(scrape: Scrape) -> str:
    """The text format, with its last line end."""
    return generate_latest(registry_of(lambda: scrape)).decode()


def serve(host: str, port: int, scrape: Callable[[], Scrape]) -> Callable[[], None]:
    """Serve the metrics over HTTP until the function that is returned is called.

    Args:
        scrape: called in the thread of each request.

    Raises:
        FailedError: qctl cannot listen on this address.
    """
    try:
        server, thread = start_http_server(port, host, registry_of(scrape))
    except OSError as error:
        raise FailedError(
            f"cannot listen on {host}:{port}",
            why=error.strerror or str(error),
            hint="use another address: --serve :9121",
        ) from None
    # A client that hangs up is not an event.
    server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


def registry_of(scrape: Callable[[], Scrape]) -> CollectorRegistry:
    """A registry that asks for a scrape each time; its counters only rise."""
    registry = CollectorRegistry()
    registry.register(_Collector(scrape))
    return registry


class _Collector:
    """Asked for metrics at every scrape."""

    def __init__(self, scrape: Callable[[], Scrape]) -> None:
        self._scrape = scrape
        self._totals = _Totals()

    def collect(self) -> Iterator[Metric]:
        scrape = self._scrape()
        reading = scrape.reading
        yield from _about(scrape)
        if reading.up:
            yield from _queues(reading.queues)
            yield from self._totals.families(reading.queues)
            yield from _processes(reading)
            yield from _own_workers(reading.own_workers)
            yield from _drains(reading.drains)
        if scrape.finished is not None:
            yield from _finished(scrape.finished)


class _Totals:
    """BullMQ's own totals, kept rising where BullMQ starts again after an obliterate."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def families(self, queues: Sequence[QueueFigures]) -> Iterator[Metric]:
        samples: Samples = defaultdict(float)
        with self._lock:
            # The sum (other) falls when one of its queues cannot be read; that is not a reset.
            for queue in (queue for queue in queues if queue.name != OTHER):
                for result, now in (
                    ("completed", queue.completed_total),
                    ("failed", queue.failed_total),
                ):
                    if now is not None:
                        key = (queue.name, result)
                        # Moved to the end: the first ones are those not seen for longest.
                        total, last = self._seen.pop(key, (0, 0))
                        self._seen[key] = (total + (now - last if now >= last else now), now)
                        samples[visible(queue.name), result] += self._seen[key][0]
            # Queues that cannot be read for a while are remembered; many gone queues are not.
            for key in list(self._seen)[: -2 * len(queues) - _MAX_GONE]:
                del self._seen[key]
        yield _counter(
            "qctl_bullmq_finished_jobs",
            "Jobs finished since BullMQ's metrics of the queue began; only of queues whose workers "
            "keep them (the worker option metrics).",
            ("queue", "result"),
            samples,
        )


def _gauge(name: str, help_text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, value in samples.items():
        family.add_metric(values, value)
    return family


def _counter(name: str, help_text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, value in samples.items():
        family.add_metric(values, value)
    return family


def _about(scrape: Scrape) -> Iterator[Metric]:
    reading = scrape.reading
    yield _gauge("qctl_info", "The version of qctl.", ["version"], {(__version__,): 1})
    yield _gauge(
        "qctl_up", "1 when Redis answered in time and could be read, else 0.", (), {(): reading.up}
    )
    yield _gauge(
        "qctl_scrape_duration_seconds",
        "How long the reading behind this scrape took.",
        (),
        {(): reading.duration_s},
    )
    if scrape.errors is not None:
        kinds = {"unreachable", "timeout", "failed", "events", *scrape.errors}
        yield _counter(
            "qctl_scrape_errors",
            "Readings that failed, by kind; events: reads of event streams that failed.",
            ["kind"],
            {(kind,): scrape.errors.get(kind, 0) for kind in sorted(kinds)},
        )
    if reading.up:
        queues = sum(queue.queues for queue in reading.queues)
        yield _gauge("qctl_queues", "Queues that could be read.", (), {(): queues})
        yield _gauge(
            "qctl_queues_unreadable",
            "Queues that exist and could not be read: nothing is known of them.",
            (),
            {(): reading.queues_unreadable},
        )


_OF_A_QUEUE: tuple[tuple[str, str, Callable[[QueueFigures], float | None]], ...] = (
    ("qctl_queue_paused", "1 when the queue is paused.", lambda q: q.paused),
    ("qctl_queue_schedulers", "Job schedulers.", lambda q: q.schedulers),
    (
        "qctl_queue_workers",
        "Connected workers; absent when unknown.",
        lambda q: q.workers,
    ),
)


def _queues(queues: Sequence[QueueFigures]) -> Iterator[Metric]:
    jobs: Samples = defaultdict(float)
    oldest: Samples = {}
    for queue in queues:
        name = visible(queue.name)
        for item in fields(queue.counts):
            # Stalled jobs are not counted as active.
            value = getattr(queue.counts, item.name)
            if item.name == "active":
                value -= queue.counts.stalled
            jobs[name, item.name] += value
        if queue.oldest_waiting_s is not None:
            oldest[name,] = max(oldest.get((name,), 0.0), queue.oldest_waiting_s)
        elif queue.counts.waiting + queue.counts.prioritized == 0:
            oldest.setdefault((name,), 0.0)
    yield _gauge(
        "qctl_queue_jobs",
        "Jobs by state; stalled: in active, and no lock exists.",
        ("queue", "state"),
        jobs,
    )
    yield _gauge(
        "qctl_queue_oldest_waiting_seconds",
        "How long the oldest waiting job has waited; 0 when none waits.",
        ["queue"],
        oldest,
    )
    for name, help_text, value_of in _OF_A_QUEUE:
        yield _gauge(name, help_text, ["queue"], _by_queue(queues, value_of))


def _by_queue(
    queues: Iterable[QueueFigures], value_of: Callable[[QueueFigures], float | None]
) -> Samples:
    samples: Samples = defaultdict(float)
    for queue in queues:
        value = value_of(queue)
        if value is not None:
            samples[visible(queue.name),] += value
    return samples


def _processes(reading: MetricsReading) -> Iterator[Metric]:
    metrics: tuple[tuple[str, str, Callable[[Any], float | None]], ...] = (
        ("qctl_process_up", "1 when the manager says it runs.", lambda p: p.status == "online"),
        (
            "qctl_process_restarts",
            "Restarts as its manager counts them (`pm2 reset` sets them to 0).",
            lambda p: p.restarts,
        ),
        ("qctl_process_uptime_seconds", "Since its start.", lambda p: p.uptime_s),
        ("qctl_process_cpu_percent", "CPU, 100 is one core.", lambda p: p.cpu_percent),
        ("qctl_process_resident_memory_bytes", "Memory (RSS).", lambda p: p.rss_bytes),
    )
    for name, help_text, value_of in metrics:
        samples: Samples = {
            (visible(process.target), visible(process.key)): float(value)
            for process in reading.processes
            if (value := value_of(process)) is not None
        }
        yield _gauge(name, help_text, ("target", "process"), samples)


def _own_workers(groups: Sequence[OwnWorkers]) -> Iterator[Metric]:
    metrics: tuple[tuple[str, str, Callable[[OwnWorkers], float]], ...] = (
        (
            "qctl_own_workers",
            "Live workers of qctl's own, by their heartbeats.",
            lambda g: g.workers,
        ),
        ("qctl_own_worker_slots", "Jobs that they can run at once.", lambda g: g.slots),
        ("qctl_own_worker_busy", "Jobs that they run.", lambda g: g.busy),
        (
            "qctl_own_worker_jobs_done",
            "Jobs that ended in the workers alive now.",
            lambda g: g.done,
        ),
    )
    for name, help_text, value_of in metrics:
        samples: Samples = defaultdict(float)
        for group in groups:
            samples[visible(group.queue), visible(group.target)] += value_of(group)
        yield _gauge(name, help_text, ("queue", "target"), samples)


def _drains(record: Drains | None) -> Iterator[Metric]:
    if record is None:
        return
    yield _counter(
        "qctl_drains",
        "Drains that ended, by outcome, since the record under this prefix began.",
        ["outcome"],
        {(name,): count for name, count in record.drains.items()},
    )
    yield _counter(
        "qctl_drain_jobs",
        "Jobs that drains followed, by result; one can count twice, as interrupted and as "
        "recovered.",
        ["result"],
        {(name,): count for name, count in record.jobs.items()},
    )
    last = record.last
    if last is None:
        return
    for name, help_text, value in (
        (
            "end_timestamp_seconds",
            "When it ended, by its host's clock.",
            None if last.ended_at is None else last.ended_at.timestamp(),
        ),
        ("paused_seconds", "From its first pause to its last resume.", last.paused_s),
        ("idle_seconds", "Longest time with jobs waiting and none running.", last.idle_s),
        ("lost_jobs", "Jobs that it could not account for.", last.lost),
    ):
        # An unknown figure is left out: 0 would look healthy.
        samples: Samples = {} if value is None else {(): float(value)}
        yield _gauge(f"qctl_last_drain_{name}", f"Of the last drain. {help_text}", (), samples)


def _finished(queues: Sequence[FinishedFigures]) -> Iterator[Metric]:
    results: Samples = defaultdict(float)
    stalls: Samples = defaultdict(float)
    gaps: Samples = defaultdict(float)
    buckets: dict[str, list[int]] = {}
    sums: dict[str, float] = defaultdict(float)
    for queue in queues:
        name = visible(queue.queue)
        results[name, "completed"] += queue.completed
        results[name, "failed"] += queue.failed
        stalls[name,] += queue.stalls
        gaps[name,] += queue.gaps
        before = buckets.get(name, [0] * len(queue.buckets))
        buckets[name] = [a + b for a, b in zip(before, queue.buckets, strict=True)]
        sums[name] += queue.duration_sum_s
    yield _counter(
        "qctl_jobs_finished",
        "Jobs that finished since this server began, from the queue's events.",
        ("queue", "result"),
        results,
    )
    yield _counter(
        "qctl_jobs_stalled",
        "Times a job was found stalled since this server began, from the queue's events.",
        ["queue"],
        stalls,
    )
    yield _counter(
        "qctl_event_gaps",
        "Times that events may have been trimmed before this server read them; its counts are then "
        "too low.",
        ["queue"],
        gaps,
    )
    family = HistogramMetricFamily(
        "qctl_job_duration_seconds",
        "How long the last attempt of finished jobs ran; of jobs whose start and end this server "
        "saw in the queue's events.",
        labels=["queue"],
    )
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for name, counts in buckets.items():
        if not any(counts):
            # Thirteen lines without information.
            continue
        family.add_metric(
            [name], list(zip(bounds, accumulate(map(float, counts)), strict=True)), sums[name]
        )
    yield family
