"""Doctor: a backlog that grows, jobs that fail, clocks that disagree."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from qctl.connection.address import Client
from qctl.ops.doctor import trends
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q, put
from tests.labs.doctor import diagnose, found, of, result

Row = tuple[float, str, dict[str, str]]


def now_ms() -> int:
    return int(time.time() * 1000)


def happen(client: Client, rows: Iterable[Row], keys: QueueKeys = Q) -> None:
    """Events so many seconds ago, the oldest first."""
    now = now_ms()
    client.pipeline(
        [
            (
                *("XADD", keys("events"), f"{now - round(ago_s * 1000)}-{number}", "event", name),
                *(word for item in fields.items() for word in item),
            )
            for number, (ago_s, name, fields) in enumerate(sorted(rows, key=lambda row: -row[0]))
        ]
    )


def jobs_in_and_out(came_at: Iterable[float], left_at: Iterable[float]) -> list[Row]:
    came = [(ago_s, "waiting", {"jobId": str(n)}) for n, ago_s in enumerate(came_at)]
    left = [
        (ago_s, "active", {"jobId": str(n), "prev": "waiting"}) for n, ago_s in enumerate(left_at)
    ]
    return [*came, *left]


def evenly(number: int, begin_s: float = 300.0, end_s: float = 0.0) -> list[float]:
    return [begin_s - (begin_s - end_s) * n / number for n in range(number)]


def waiting(client: Client, number: int) -> None:
    for n in range(number):
        put(client, f"w{n}")


def test_a_backlog_that_grows(client: Client) -> None:
    waiting(client, 60)
    happen(client, jobs_in_and_out(evenly(100), evenly(40)))
    (finding,) = found(client, "growing-backlog")
    assert finding.severity == "warning"
    assert finding.what == (
        "its backlog grows: in the last 5 min 100 jobs came and 40 left; 60 jobs wait"
    )
    assert finding.evidence["came"] - finding.evidence["left"] == 60
    client.call("HSET", Q("meta"), "paused", "1")
    assert found(client, "growing-backlog") == []


@pytest.mark.parametrize(
    ("came", "left"),
    [
        # Worked off as fast as they come.
        (evenly(100), evenly(98)),
        # One burst, and then it shrinks.
        ([299.0] * 100, evenly(40)),
        # One burst just now.
        ([*evenly(30), *[1.0] * 100], evenly(30)),
    ],
)
def test_a_burst_is_no_growth(client: Client, came: list[float], left: list[float]) -> None:
    waiting(client, 60)
    happen(client, jobs_in_and_out(came, left))
    assert found(client, "growing-backlog") == []


def test_jobs_that_were_removed_have_left(client: Client) -> None:
    waiting(client, 60)
    removed: list[Row] = [(ago_s, "removed", {"prev": "wait"}) for ago_s in evenly(60)]
    happen(client, [*jobs_in_and_out(evenly(100), evenly(40)), *removed])
    assert found(client, "growing-backlog") == []


def test_what_the_events_do_not_tell_is_unknown(client: Client) -> None:
    waiting(client, 60)
    happen(client, jobs_in_and_out(evenly(100, 5), evenly(40, 5)))
    diagnosis = diagnose(client)
    assert of(diagnosis, "growing-backlog") == []
    why = result(diagnosis, "growing-backlog").why
    assert why == "unknown for 1 queue whose events reach back less than 20 s: q"
    client.call("DEL", Q("events"))
    assert "unknown" in result(diagnose(client), "growing-backlog").why


def ended(completed: int, failed: int, ago_s: float = 60.0) -> list[Row]:
    good = [(ago_s, "completed", {"jobId": f"c{n}"}) for n in range(completed)]
    bad = [
        (ago_s, "failed", {"jobId": f"f{n}", "failedReason": f"no host {n}\nat x.js"})
        for n in range(failed)
    ]
    return [*good, *bad]


def test_jobs_that_fail(client: Client) -> None:
    put(client, "1", "completed")
    happen(client, [*ended(60, 39), *ended(0, 1, 600)])
    (finding,) = found(client, "failure-rate")
    assert finding.severity == "warning"
    assert finding.what == (
        "40 of the 100 jobs that ended in the last 10 min failed for good (40%), 40 of them with "
        "'no host <number>'"
    )
    assert finding.commands == ("qctl jobs failures q",)


@pytest.mark.parametrize(
    "rows",
    [
        ended(90, 10),
        # Too few to speak of a rate.
        ended(2, 4),
        # Long ago.
        ended(0, 50, 3600),
    ],
)
def test_failures_that_are_few_or_old(client: Client, rows: list[Row]) -> None:
    put(client, "1", "completed")
    happen(client, rows)
    assert found(client, "failure-rate") == []


def test_failures_of_which_no_events_are_kept_are_unknown(client: Client) -> None:
    put(client, "1", "failed")
    why = result(diagnose(client), "failure-rate").why
    assert why == "unknown for 1 queue whose events reach back less than 20 s: q"
    # As with a small maxLen: what is kept is of the last seconds.
    happen(client, ended(3, 2, 5))
    assert result(diagnose(client), "failure-rate").why == why
    client.call("DEL", Q("events"))
    happen(client, [*ended(0, 1, 3600), *ended(3, 2, 5)])
    assert result(diagnose(client), "failure-rate").why == ""


def test_a_backlog_in_which_nothing_happens_does_not_grow(client: Client) -> None:
    waiting(client, 60)
    happen(client, jobs_in_and_out([3600.0], []))
    assert result(diagnose(client), "growing-backlog").why == ""


def test_the_clock_of_a_producer(client: Client) -> None:
    rows: list[Row] = []
    for number in range(4):
        ago_s = 5.0 + 10 * number
        told_ms = now_ms() - round(ago_s * 1000) - 3_595_000
        put(client, f"own{number}", timestamp=told_ms, opts='{"timestamp":1}')
        rows.append((ago_s, "added", {"jobId": f"own{number}", "name": "job"}))
    happen(client, rows)
    # A time of the job's own choice says nothing about a clock.
    assert found(client, "host-clocks") == []
    for number in range(4):
        client.call("HSET", Q(f"own{number}"), "opts", "{}")
    (finding,) = found(client, "host-clocks")
    assert finding.what.startswith("the clock of a producer is 59 min 55 s behind that of Redis")
    assert finding.evidence["is_producer"] is True


def ran(
    client: Client, jobs: Iterable[tuple[float, float]], *, fetch_ms: int = 0, end_ms: int = 0
) -> None:
    """Jobs of one worker, fetched and ended so many seconds ago by the clock of Redis.

    Args:
        fetch_ms, end_ms: how far ahead the worker's own times of it are.
    """
    rows: list[Row] = []
    for number, (fetched_s, ended_s) in enumerate(jobs):
        told = {
            "processedOn": now_ms() - round(fetched_s * 1000) + fetch_ms,
            "finishedOn": now_ms() - round(ended_s * 1000) + end_ms,
        }
        put(client, str(number), "completed", pb="w", **told)
        rows.append((fetched_s, "active", {"jobId": str(number)}))
        rows.append((ended_s, "completed", {"jobId": str(number)}))
    happen(client, rows)


def test_the_clock_of_a_worker_that_is_behind(client: Client) -> None:
    ran(client, [(60, 50), (50, 40)], fetch_ms=-5000, end_ms=-5000)
    assert found(client, "host-clocks") == []
    client.call("FLUSHALL")
    # One of them waited for Redis besides.
    ran(client, [(60, 50), (50, 40), (40, 30)], fetch_ms=-5000, end_ms=-9000)
    (finding,) = found(client, "host-clocks")
    assert finding.what.startswith("the clock of worker 'w' is 5.")
    assert finding.what.endswith("s behind that of Redis, as 3 of its last jobs show")
    assert -5900 < finding.evidence["ahead_ms"] < -4900


def test_calls_that_waited_for_redis_are_no_wrong_clock(client: Client) -> None:
    # All were fetched before Redis went away and ended meanwhile; or the fetch came late.
    for late in ({"end_ms": -5200}, {"fetch_ms": -5200}):
        ran(client, [(40 + n / 10, 10 + n / 100) for n in range(10)], **late)
        assert found(client, "host-clocks") == []
        client.call("FLUSHALL")
    # Their fetch is not among the events any more.
    ran(client, [(4000, 10)] * 10, end_ms=-5200)
    assert found(client, "host-clocks") == []
    client.call("FLUSHALL")
    # A producer's jobs that waited for Redis arrive at one moment.
    for number in range(10):
        put(client, str(number), timestamp=now_ms() - 15_200)
    happen(client, [(10.0, "added", {"jobId": str(n)}) for n in range(10)])
    assert found(client, "host-clocks") == []


def test_a_worker_that_may_be_gone_has_no_clock(client: Client) -> None:
    ran(client, [(400, 390)] * 5, fetch_ms=75_000, end_ms=75_000)
    assert found(client, "host-clocks") == []


def test_a_thousand_queues_cost_a_bounded_look(client: Client) -> None:
    for number in range(120):
        keys = QueueKeys("bull", f"q{number}")
        put(client, "1", "failed", keys=keys)
    keys = QueueKeys("bull", "bad")
    for number in range(3):
        put(client, str(number), "failed", keys=keys)
    happen(client, ended(0, 30), keys)
    diagnosis = diagnose(client)
    assert [f.subject.name for f in of(diagnosis, "failure-rate")] == ["bad"]
    why = result(diagnosis, "failure-rate").why
    assert why.startswith("the 50 of 121 queues with the most jobs waiting or failed; unknown")


def test_events_of_a_long_stream_are_read_in_windows(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(client, 200)
    happen(client, jobs_in_and_out(evenly(900), evenly(500)))
    (finding,) = found(client, "growing-backlog")
    assert finding.evidence["came"] == 900
    monkeypatch.setattr(trends, "MAX_EVENTS_OF_ONE", 500)
    (finding,) = found(client, "growing-backlog")
    assert finding.evidence["came"] < 400
    assert finding.evidence["window_s"] < 120
