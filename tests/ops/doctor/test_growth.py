"""Doctor: what grows without a bound."""

from __future__ import annotations

import time

import pytest

from qctl.connection.address import Client
from qctl.ops.doctor import growth
from tests.labs.build import Q, put
from tests.labs.doctor import found


def test_a_stream_that_nobody_trims(client: Client) -> None:
    put(client, "1", "completed")
    client.call("HSET", Q("meta"), "opts.maxLenEvents", "100")
    commands = [("XADD", Q("events"), "*", "event", "x") for _ in range(1200)]
    client.pipeline(commands)
    assert found(client, "event-streams") == []
    client.pipeline(commands[:100])
    (finding,) = found(client, "event-streams")
    assert finding.severity == "warning"
    assert finding.evidence == {"events": 1300, "limit": 100}


def test_a_stream_with_hardly_a_limit(client: Client) -> None:
    put(client, "1", "completed")
    client.call("HSET", Q("meta"), "opts.maxLenEvents", "50000000")
    (finding,) = found(client, "event-streams")
    assert finding.severity == "info"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MANY", 30)
    monkeypatch.setattr(growth, "VERY_MANY", 50)
    monkeypatch.setattr(growth, "_ROUND", 10)


@pytest.mark.parametrize("state", ["completed", "failed"])
@pytest.mark.usefixtures("many")
def test_kept_jobs_without_a_bound(client: Client, state: str) -> None:
    option = "removeOnComplete" if state == "completed" else "removeOnFail"
    for number in range(29):
        put(client, str(number), state, score=1_700_000_000_000 + number * 3_600_000)
    assert found(client, "kept-finished-jobs") == []
    for number in range(29, 35):
        put(client, str(number), state, score=1_700_000_000_000 + number * 3_600_000)
    (finding,) = found(client, "kept-finished-jobs")
    assert finding.severity == "info"
    assert finding.evidence["count"] == 35
    # The newest is from years ago.
    assert finding.evidence["per_day"] == 0
    assert "24 hours" not in finding.what
    assert f"none of the newest has {option}" in finding.what
    for number in range(35, 52):
        put(client, str(number), state, score=1_700_000_000_000 + number * 3_600_000)
    assert found(client, "kept-finished-jobs")[0].severity == "warning"
    # The workers' own option keeps a round number.
    for number in range(52, 60):
        put(client, str(number), state, score=1_700_000_000_000 + number * 3_600_000)
    assert found(client, "kept-finished-jobs") == []


@pytest.mark.usefixtures("many")
def test_the_pace_is_counted_and_not_extrapolated(client: Client) -> None:
    now = int(time.time() * 1000)
    # A burst: all within 32 ms, 23 minutes ago.
    for number in range(32):
        put(client, str(number), "failed", score=now - 1_380_000 + number)
    (finding,) = found(client, "kept-finished-jobs")
    assert finding.evidence["per_day"] is None
    assert "it keeps 32 failed jobs, all from the last 23 min" in finding.what
    put(client, "old", "failed", score=now - 90_000_000)
    (finding,) = found(client, "kept-finished-jobs")
    assert finding.evidence["per_day"] == 32
    assert "it keeps 33 failed jobs, 32 of them from the last 24 hours" in finding.what


@pytest.mark.parametrize(
    ("keep", "bounded"),
    [
        ("true", True),
        ("false", False),
        ("100", True),
        ("0", True),
        ("-1", False),
        ('{"count":100}', True),
        ('{"age":3600}', True),
        ("{}", False),
    ],
)
@pytest.mark.usefixtures("many")
def test_what_bounds_them(client: Client, keep: str, bounded: bool) -> None:
    for number in range(31):
        opts = f'{{"removeOnComplete":{keep}}}' if number == 30 else "{}"
        put(client, str(number), "completed", score=number, opts=opts)
    assert bool(found(client, "kept-finished-jobs")) != bounded
