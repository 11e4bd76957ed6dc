"""What drains came to, as Prometheus' own parser reads it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.ops.metrics.reading import MetricsReading, QueueLabels, read_metrics
from qctl.output.prometheus import Scrape, text_of
from qctl.wire.drain_record import DrainResult, add_drain
from tests.labs.build import put

DRAIN = DrainResult(
    at_ms=1_700_000_000_500, outcome="restarted", completed=3, failed=0, retried=0, interrupted=1,
    recovered=1, lost=2, paused_ms=4100, idle_ms=600,
)  # fmt: skip


def samples(reading: MetricsReading) -> dict[tuple[str, str], float]:
    """Value by name and its one label's value."""
    families = text_string_to_metric_families(text_of(Scrape(reading)))
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if "drain" in sample.name
    }


def test_drains_are_told(client: Client) -> None:
    put(client, "1")
    add_drain(client, "bull", DRAIN)
    add_drain(client, "bull", DRAIN)
    found = samples(read_metrics(client, Address(), Settings(), QueueLabels()))
    assert found["qctl_drains_total", "restarted"] == 2
    assert found["qctl_drains_total", "timeout"] == 0
    assert found["qctl_drain_jobs_total", "lost"] == 4
    assert found["qctl_last_drain_lost_jobs", ""] == 2
    assert found["qctl_last_drain_end_timestamp_seconds", ""] == 1_700_000_000.5
    assert found["qctl_last_drain_paused_seconds", ""] == 4.1


def test_a_figure_that_could_not_be_found_out_is_not_zero(client: Client) -> None:
    put(client, "1")
    add_drain(client, "bull", replace(DRAIN, lost=None, interrupted=None, idle_ms=None))
    reading = read_metrics(client, Address(), Settings(), QueueLabels())
    assert reading.drains is not None
    assert reading.drains.last is not None
    last = reading.drains.last
    assert (last.lost, last.interrupted, last.idle_s) == (None, None, None)
    found = samples(reading)
    assert found["qctl_drain_jobs_total", "lost"] == 0
    assert found["qctl_last_drain_paused_seconds", ""] == 4.1
    assert ("qctl_last_drain_lost_jobs", "") not in found
    assert ("qctl_last_drain_idle_seconds", "") not in found


def test_before_the_first_drain_there_is_no_last_one(client: Client) -> None:
    put(client, "1")
    found = samples(read_metrics(client, Address(), Settings(), QueueLabels()))
    assert found["qctl_drains_total", "drained"] == 0
    assert not [name for name, _ in found if name.startswith("qctl_last")]


def test_a_record_that_cannot_be_read_is_not_zero(client: Client) -> None:
    put(client, "1")
    client.call("SET", "qctl:drains:bull", "something else")
    assert samples(read_metrics(client, Address(), Settings(), QueueLabels())) == {}
    assert samples(MetricsReading(datetime.now(UTC), 0.0, up=True)) == {}
