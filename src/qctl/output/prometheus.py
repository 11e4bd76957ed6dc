"""Metrics in Prometheus' text format, printed or served. docs/metrics.md lists every metric."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from typing import TypeVar

# This import takes 125 ms, so only `qctl metrics` imports this module.
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
from qctl.ops.queues.status import ProcessStatus
from qctl.output.text import visible

T = TypeVar("T")
# How many totals of missing or unreadable queues are remembered; each queue has two.
_MAX_GONE = 2000


@dataclass(frozen=True, slots=True)
class Scrape:
    """The content of one scrape.

    Args:
        finished: what the server has counted from events; None when metrics are printed once.
        errors: how many readings failed so far, by kind; None when metrics are printed once.
    """

    reading: MetricsReading
    finished: tuple[FinishedFigures, ...] | None = None
    errors: Mapping[str, int] | None = None


def text_of(scrape: Scrape) -> str:
    """The metrics in the text format."""
    return generate_latest(registry_of(lambda: scrape)).decode()


def serve(host: str, port: int, scrape: Callable[[], Scrape]) -> Callable[[], None]:
    """Serve the metrics over HTTP. Call the returned function to stop.

    Args:
        scrape: called for each request, in the request's own thread.

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
    # Print nothing when a request fails, for example because the client hangs up.
    server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


def registry_of(scrape: Callable[[], Scrape]) -> CollectorRegistry:
    """A registry that calls ``scrape`` for each collection, and remembers BullMQ's last totals."""
    registry = CollectorRegistry()
    registry.register(_Collector(scrape))
    return registry


class _Collector:
    """Turns each scrape into metrics."""

    def __init__(self, scrape: Callable[[], Scrape]) -> None:
        self._scrape = scrape
        self._totals = _Totals()

    def collect(self) -> Iterator[Metric]:
        scrape = self._scrape()
        reading = scrape.reading
        yield from _about(scrape)
        if reading.up:
            yield from _queues(reading.queues)
            yield self._totals.family(reading.queues)
            of_process = {"target": lambda p: p.target, "process": lambda p: p.key}
            yield from _of_each(reading.processes, of_process, _OF_A_PROCESS)
            of_workers = {
                "queue": lambda g: g.queue,
                "prefix": lambda g: g.prefix,
                "target": lambda g: g.target,
            }
            yield from _of_each(reading.own_workers, of_workers, _OF_OWN_WORKERS)
            if reading.drains is not None:
                yield from _drains(reading.drains)
        if scrape.finished is not None:
            yield from _finished(scrape.finished)


class _Totals:
    """Keeps BullMQ's totals from falling when BullMQ starts at 0 again after an obliterate."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def family(self, queues: Sequence[QueueFigures]) -> Metric:
        samples: list[Sample] = []
        with self._lock:
            # Leave out OTHER, a sum over queues, because it falls when a queue cannot be read.
            for queue in (q for q in queues if (q.prefix, q.name) != (OTHER.prefix, OTHER.name)):
                for result, now in (
                    ("completed", queue.completed_total),
                    ("failed", queue.failed_total),
                ):
                    if now is not None:
                        key = (queue.name, queue.prefix, result)
                        # Reinsert each total at the end: the totals seen longest ago come first.
                        total, last = self._seen.pop(key, (0, 0))
                        total += now - last if now >= last else now
                        self._seen[key] = (total, now)
                        samples.append((key, total))
            # Forget the totals seen longest ago. ``_MAX_GONE`` totals of queues that are unreadable
            # now are kept, because these queues may be readable later.
            for key in list(self._seen)[: -2 * len(queues) - _MAX_GONE]:
                del self._seen[key]
        return _counter(
            "qctl_bullmq_finished_jobs",
            "Jobs finished since BullMQ began to keep metrics of the queue; absent when the "
            "workers keep no metrics (the worker option metrics).",
            ("queue", "prefix", "result"),
            samples,
        )


# The values of the labels, and the figure, which is None if unknown.
Sample = tuple[tuple[str, ...], float | None]
# For each metric: its name, its description, and a function that returns the figure of an item.
Figures = Sequence[tuple[str, str, Callable[[T], float | None]]]


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    about: str,
    labels: Sequence[str],
    samples: Iterable[Sample],
) -> Metric:
    """A metric. Unknown figures are left out, because 0 would look healthy. Samples with the same
    visible labels are added up.
    """
    sums: dict[tuple[str, ...], float] = {}
    for values, figure in samples:
        if figure is not None:
            shown = tuple(map(visible, values))
            sums[shown] = sums.get(shown, 0.0) + figure
    family = kind(name, about, labels=labels)
    for shown, total in sums.items():
        family.add_metric(shown, total)
    return family


_gauge = partial(_family, GaugeMetricFamily)
_counter = partial(_family, CounterMetricFamily)


def _single(name: str, about: str, figure: float | None) -> Metric:
    return _gauge(name, about, (), [((), figure)])


def _of_each(
    items: Iterable[T], labels: Mapping[str, Callable[[T], str]], figures: Figures[T]
) -> Iterator[Metric]:
    """One gauge for each entry of ``figures``, with one sample for each item."""
    of_items = [(tuple(label_of(item) for label_of in labels.values()), item) for item in items]
    for name, about, figure_of in figures:
        yield _gauge(name, about, [*labels], ((of, figure_of(item)) for of, item in of_items))


def _about(scrape: Scrape) -> Iterator[Metric]:
    reading = scrape.reading
    yield _gauge("qctl_info", "The version of qctl.", ["version"], [((__version__,), 1)])
    yield _single("qctl_up", "1 when Redis answered in time and could be read, else 0.", reading.up)
    about = "How long the reading behind this scrape took."
    yield _single("qctl_scrape_duration_seconds", about, reading.duration_s)
    if scrape.errors is not None:
        kinds = {"unreachable", "timeout", "failed", "events", *scrape.errors}
        yield _counter(
            "qctl_scrape_errors",
            "Readings that failed, by kind; events: reads of event streams that failed.",
            ["kind"],
            [((kind,), scrape.errors.get(kind, 0)) for kind in sorted(kinds)],
        )
    if reading.up:
        queues = sum(queue.queues for queue in reading.queues)
        yield _single("qctl_queues", "Queues that could be read.", queues)
        about = "Queues that exist and could not be read: nothing is known of them."
        yield _single("qctl_queues_unreadable", about, reading.queues_unreadable)


_OF_A_QUEUE: Figures[QueueFigures] = (
    ("qctl_queue_paused", "1 when the queue is paused.", lambda q: q.paused),
    ("qctl_queue_schedulers", "Job schedulers.", lambda q: q.schedulers),
    ("qctl_queue_workers", "Connected workers; absent when unknown.", lambda q: q.workers),
)
_OF_A_PROCESS: Figures[ProcessStatus] = (
    ("qctl_process_up", "1 when its manager reports it online.", lambda p: p.status == "online"),
    (
        "qctl_process_restarts",
        "Restarts as its manager counts them (`pm2 reset` sets them to 0).",
        lambda p: p.restarts,
    ),
    ("qctl_process_uptime_seconds", "Time since its start.", lambda p: p.uptime_s),
    ("qctl_process_cpu_percent", "CPU, 100 is one core.", lambda p: p.cpu_percent),
    ("qctl_process_resident_memory_bytes", "Memory (RSS).", lambda p: p.rss_bytes),
)
_OF_OWN_WORKERS: Figures[OwnWorkers] = (
    ("qctl_own_workers", "Live workers of qctl's own, by their heartbeats.", lambda g: g.workers),
    ("qctl_own_worker_slots", "Jobs that these workers can run at once.", lambda g: g.slots),
    ("qctl_own_worker_busy", "Jobs that these workers run.", lambda g: g.busy),
    (
        "qctl_own_worker_jobs_done",
        "Jobs that have ended in the workers that run now.",
        lambda g: g.done,
    ),
)


def _queues(queues: Sequence[QueueFigures]) -> Iterator[Metric]:
    jobs: list[Sample] = []
    oldest: dict[tuple[str, str], float] = {}
    for queue in queues:
        counts = queue.counts
        # A stalled job is counted once, as stalled and not as active.
        by_state = asdict(counts) | {"active": counts.active - counts.stalled}
        jobs += [((queue.name, queue.prefix, state), number) for state, number in by_state.items()]
        label, oldest_s = (visible(queue.name), visible(queue.prefix)), queue.oldest_waiting_s
        if oldest_s is not None or counts.waiting + counts.prioritized == 0:
            oldest[label] = max(oldest.get(label, 0.0), oldest_s or 0.0)
    yield _gauge(
        "qctl_queue_jobs",
        "Jobs by state. An active job without a lock counts as stalled.",
        ("queue", "prefix", "state"),
        jobs,
    )
    yield _gauge(
        "qctl_queue_oldest_waiting_seconds",
        "How long the oldest waiting job has waited; 0 when none waits.",
        ("queue", "prefix"),
        oldest.items(),
    )
    of_queue = {"queue": lambda q: q.name, "prefix": lambda q: q.prefix}
    yield from _of_each(queues, of_queue, _OF_A_QUEUE)


def _drains(record: Drains) -> Iterator[Metric]:
    yield _counter(
        "qctl_drains",
        "Drains that ended, by outcome, since the record under these prefixes began.",
        ["outcome"],
        (((outcome,), number) for outcome, number in record.drains.items()),
    )
    yield _counter(
        "qctl_drain_jobs",
        "Jobs that drains followed, by result; a job can count twice, as interrupted and as "
        "recovered.",
        ["result"],
        (((result,), number) for result, number in record.jobs.items()),
    )
    if (last := record.last) is None:
        return
    ended_s = None if last.ended_at is None else last.ended_at.timestamp()
    for name, about, figure in (
        ("end_timestamp_seconds", "When it ended, by its host's clock.", ended_s),
        ("paused_seconds", "From its first pause to its last resume.", last.paused_s),
        ("idle_seconds", "Longest time with jobs waiting and none running.", last.idle_s),
        ("lost_jobs", "Jobs that it could not account for.", last.lost),
    ):
        yield _single(f"qctl_last_drain_{name}", f"Of the last drain. {about}", figure)


def _finished(queues: Sequence[FinishedFigures]) -> Iterator[Metric]:
    yield _counter(
        "qctl_jobs_finished",
        "Jobs that finished since this server began, from the queue's events.",
        ("queue", "prefix", "result"),
        (
            ((queue.queue, queue.prefix, result), number)
            for queue in queues
            for result, number in (("completed", queue.completed), ("failed", queue.failed))
        ),
    )
    yield _counter(
        "qctl_jobs_stalled",
        "Times a job was found stalled since this server began, from the queue's events.",
        ("queue", "prefix"),
        (((queue.queue, queue.prefix), queue.stalls) for queue in queues),
    )
    yield _counter(
        "qctl_event_gaps",
        "How often events may have been trimmed before this server read them; its counts are "
        "then too low.",
        ("queue", "prefix"),
        (((queue.queue, queue.prefix), queue.gaps) for queue in queues),
    )
    family = HistogramMetricFamily(
        "qctl_job_duration_seconds",
        "How long the last attempt of each finished job ran, if this server saw its start and its "
        "end in the queue's events.",
        labels=["queue", "prefix"],
    )
    buckets: dict[tuple[str, str], list[int]] = {}
    sums: dict[tuple[str, str], float] = {}
    for queue in queues:
        label = (visible(queue.queue), visible(queue.prefix))
        before = buckets.get(label, [0] * len(queue.buckets))
        buckets[label] = [a + b for a, b in zip(before, queue.buckets, strict=True)]
        sums[label] = sums.get(label, 0.0) + queue.duration_sum_s
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for label, counts in buckets.items():
        # A queue without durations would take thirteen lines that say nothing.
        if any(counts):
            totals = accumulate(map(float, counts))
            family.add_metric(label, list(zip(bounds, totals, strict=True)), sums[label])
    yield family
