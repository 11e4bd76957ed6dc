"""A bulk run: what it chooses, how it asks, paces itself, stops and tells."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from qctl.connection.address import Arg, Client
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import InterruptedByUserError, PartialError, UnreachableError
from qctl.ops.bulk.actions import (
    Action,
    Confirmation,
    Selection,
    max_changed,
    promoting,
    purging,
    removing,
    required_confirmation,
    retrying,
)
from qctl.ops.bulk.model import BulkReport
from qctl.ops.bulk.queues import BulkQueue, BulkRuns
from qctl.ops.bulk.run import BulkRun
from qctl.ops.jobs.where import Filter, parse_where
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pace import TARGET_S, Pace
from tests.labs.build import Q, events, put, row, scores
from tests.labs.bulk import START, START_MS, Leaving, fill

PLAIN_BOOMS = [n for n in range(0, 60, 2) if n % 3]


def carried_out(
    store: Client, action: Action, selection: Selection, total: int = 60, **options: Any
) -> BulkReport:
    run = BulkRun(store, Q, action, selection, total, **options)
    for _ in run:
        pass
    return run.report()


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, range(60)),
        ({"name": "mail"}, range(1, 60, 2)),
        ({"where": "error ~ timeout"}, range(0, 60, 3)),
        ({"where": "data.user.id = 7"}, range(7, 60, 10)),
        ({"where": "attempts_max > 3 and attempts_made >= 3"}, range(1, 60, 2)),
        ({"where": "not error ~ timeout", "name": "plain"}, PLAIN_BOOMS),
        ({"since": START + timedelta(seconds=50)}, range(50, 60)),
        ({"until": START + timedelta(seconds=9)}, range(10)),
        ({"ids": frozenset({"5", "59"})}, [5, 59]),
        ({"limit": 7}, range(7)),
        ({"limit": 2, "where": "error ~ timeout"}, [0, 3]),
    ],
)
def test_which_jobs(store: Client, selection: dict[str, Any], expected: Sequence[int]) -> None:
    fill(store)
    only = {key: value for key, value in selection.items() if key != "limit"}
    if "where" in only:
        only["where"] = parse_where(only["where"])
    chosen = Selection(state="failed", only=Filter(**only), limit=selection.get("limit"))
    report = carried_out(store, retrying("failed"), chosen)
    ids = [str(n) for n in expected]
    assert row(store, "wait")[::-1] == ids
    assert (report.done, report.matched, report.skipped_count) == (len(ids), len(ids), 0)
    assert len(scores(store, "failed")) == 60 - len(ids)
    assert report.sample == tuple(ids[:10])


def test_another_thread_counts_each_queue_once_at_every_moment(store: Client) -> None:
    """Also at the moments when the run of a queue has ended, and just before its report is kept."""
    seen: list[int] = []

    class Reports(list[BulkReport]):
        def append(self, report: BulkReport, /) -> None:
            seen.append(runs.progress().scanned)
            super().append(report)
            seen.append(runs.progress().scanned)

    fill(store, 20)
    fill(store, 30, other := QueueKeys("bull", "other"))
    queues = [BulkQueue(Q, 20, paused=False), BulkQueue(other, 30, paused=False)]
    runs = BulkRuns(store, queues, retrying("failed"), Selection(state="failed"), dry_run=True)
    runs.reports = Reports()
    list(runs)
    assert seen == [20, 20, 50, 50]


def test_a_purge_is_one_event_however_many_calls_it_takes(store: Client) -> None:
    fill(store, 70)
    chosen = Selection(state="failed")
    assert carried_out(store, purging(), chosen, dry_run=True).done == 70
    assert events(store) == []
    assert carried_out(store, purging(), chosen).done == 70
    assert events(store) == [{"event": "cleaned", "count": "70"}]


def test_a_purge_that_is_interrupted_reports_what_it_deleted(store: Client) -> None:
    fill(store, 700)
    chosen = Selection(state="failed")
    run = BulkRun(store, Q, purging(), chosen, 700, stop=lambda: run.report().done > 0)
    with pytest.raises(InterruptedByUserError):
        list(run)
    done = run.report().done
    assert 0 < done < 700
    assert events(store) == [{"event": "cleaned", "count": str(done)}]


def test_a_dry_run_counts_and_changes_nothing(store: Client) -> None:
    fill(store)
    chosen = Selection(state="failed", only=Filter(where=parse_where("error ~ timeout")))
    report = carried_out(store, retrying("failed"), chosen, dry_run=True)
    assert (report.scanned, report.matched, report.done, report.total) == (60, 20, 20, 60)
    assert report.sample == tuple(str(n) for n in range(0, 30, 3))
    assert len(scores(store, "failed")) == 60
    assert row(store, "wait") == []


def test_a_job_that_fails_again_is_not_retried_twice(store: Client) -> None:
    fill(store, 300)
    run = BulkRun(store, Q, retrying("failed"), Selection(state="failed"), 300)
    for _ in run:
        # A worker takes them at once, and they fail again.
        for job_id in row(store, "wait"):
            store.call("LREM", Q("wait"), 1, job_id)
            store.call("ZADD", Q("failed"), START_MS + 10_000_000, job_id)
    assert run.report().done == 300


def test_named_jobs_wherever_they_are(store: Client) -> None:
    put(store, "w")
    put(store, "d", "delayed", score=4096)
    put(store, "l", "active", lock="t:1")
    report = carried_out(store, removing(), Selection(ids=("w", "d", "l", "never")), 4)
    assert (report.done, report.sample) == (2, ("w", "d"))
    assert [(skipped.id, skipped.reason) for skipped in report.skipped] == [
        ("l", "a worker has it"),
        ("never", "it does not exist, or its data is gone"),
    ]


def test_parents_go_with_all_below_them_or_not_at_all(store: Client) -> None:
    def family(name: str, **child: Any) -> None:
        put(store, name, "waiting-children", score=1)
        put(store, f"{name}-c", parentKey=Q(name), parent=f'{{"id":"{name}"}}', **child)
        store.call("SADD", f"{Q(name)}:dependencies", Q(f"{name}-c"))

    family("a")
    family("b", where="active", lock="t:1")
    assert carried_out(store, removing(), Selection(ids=("a", "b")), 2).done == 0
    report = carried_out(store, removing(with_children=True), Selection(ids=("a", "b")), 2)
    assert report.sample == ("a",)
    assert report.skipped[0].reason == "a worker has one of its children"
    assert store.call("EXISTS", Q("a"), Q("a-c"), f"{Q('a')}:dependencies") == 0
    assert store.call("EXISTS", Q("b"), Q("b-c")) == 2
    assert row(store, "wait") == []


def test_it_stops_between_two_calls_and_tells_what_was_done(store: Client) -> None:
    fill(store, 300)
    asked = itertools.count()
    run = BulkRun(
        store, Q, retrying("failed"), Selection(state="failed"), 300, stop=lambda: next(asked) > 3
    )
    with pytest.raises(InterruptedByUserError) as caught:
        for _ in run:
            pass
    report = run.report()
    assert 0 < report.done < 300
    assert report.complete is False
    assert f"{report.done} jobs were retried before" in caught.value.why
    assert len(row(store, "wait")) == report.done
    assert len(scores(store, "failed")) == 300 - report.done


class Distant(ForwardingClient):
    """A Redis at the end of a slow network."""

    scripts = 0

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        self.scripts += command[0] == "EVALSHA"
        time.sleep(0.005 * (command[0] != "PING"))
        return super().call(*command, timeout_s=timeout_s)


def test_a_slow_network_does_not_make_calls_small(client: Client) -> None:
    fill(client, 300)
    distant = Distant(client)
    report = carried_out(distant, retrying("failed"), Selection(state="failed"), 300)
    assert report.done == 300
    assert distant.scripts < 100


def test_a_redis_that_goes_away_is_partly_done(store: Client) -> None:
    fill(store, 300)
    chosen = Selection(state="failed")
    with pytest.raises(UnreachableError) as gone:
        carried_out(Leaving(store, 0), retrying("failed"), chosen)
    assert "unknown whether the first jobs were changed" in gone.value.why
    run = BulkRun(Leaving(store, 2), Q, retrying("failed"), chosen, 300)
    with pytest.raises(PartialError) as caught:
        list(run)
    assert f"after {run.report().done} jobs were retried" in caught.value.what
    assert "same command again" in caught.value.hint


@pytest.mark.parametrize(("rate", "most"), [(200, 20), (60, 6)])
def test_a_rate_is_kept_in_small_steps(store: Client, rate: float, most: int) -> None:
    fill(store, 60)
    only = Selection(state="failed", limit=30)
    run = BulkRun(store, Q, retrying("failed"), only, 60, rate=rate)
    done = [progress.done for progress in run]
    assert done[-1] == 30
    assert 0 < max(b - a for a, b in itertools.pairwise([0, *done])) <= most


def test_a_slow_rate_does_one_at_a_time_and_can_be_interrupted(store: Client) -> None:
    fill(store, 60)
    told: list[int] = []
    run = BulkRun(
        store,
        Q,
        retrying("failed"),
        Selection(state="failed"),
        60,
        rate=0.5,
        # One in two seconds: it waits, and hears that it shall not.
        stop=lambda: bool(told.append(1)) or len(told) > 5,
    )
    with pytest.raises(InterruptedByUserError) as caught:
        list(run)
    assert run.report().done == 1
    assert caught.value.why == "1 job was retried before"


def test_a_limit_counts_what_was_done(store: Client) -> None:
    """Else those that are left alone would stand before the others for ever."""
    fill(store, 60)
    for n in range(55):
        # Their deduplication ids belong to another job by now.
        store.call("HSET", Q(str(n)), "deid", f"d{n}", "opts", f'{{"de":{{"id":"d{n}"}}}}')
        store.call("SET", Q(f"de:d{n}"), "other")
    put(store, "other")
    report = carried_out(store, retrying("failed"), Selection(state="failed", limit=3))
    assert report.sample == ("55", "56", "57")
    assert (report.matched, report.done, report.skipped_count) == (58, 3, 55)
    assert report.complete


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_may_not_be_all_is_partly_done(
    store: Client, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    monkeypatch.setattr("qctl.wire.write.walk._NOTED", 10)
    for n in range(30):
        put(store, str(n), "failed", score=4 * 10**12 + n, finishedOn=4 * 10**12 + n)
    run = BulkRun(store, Q, retrying("failed"), Selection(state="failed"), 30, dry_run=dry_run)
    with pytest.raises(PartialError) as caught:
        list(run)
    report = run.report()
    assert (report.done, report.complete) == (10, False)
    assert "not all failed jobs were read" in caught.value.what
    assert bool(caught.value.hint) is not dry_run


@pytest.mark.parametrize(
    ("action", "selection", "total", "expected"),
    [
        (retrying(), Selection(ids=("1",)), 1, Confirmation.NONE),
        (removing(), Selection(ids=("1",)), 1, Confirmation.YES),
        (retrying("failed"), Selection(state="failed"), 900, Confirmation.YES),
        (retrying("failed"), Selection(state="failed"), 1001, Confirmation.NAME),
        (retrying("failed"), Selection(state="failed", limit=20), 10**6, Confirmation.YES),
        (retrying("failed"), Selection(state="failed"), 0, Confirmation.NONE),
        (purging(), Selection(state="failed"), 2, Confirmation.NAME),
        (promoting(), Selection(ids=tuple(map(str, range(11)))), 11, Confirmation.YES),
    ],
)
def test_how_firmly_it_asks(
    action: Action, selection: Selection, total: int, expected: Confirmation
) -> None:
    most = max_changed(selection, total)
    assert required_confirmation(action, selection, most) is expected


def test_the_pace_follows_what_calls_take() -> None:
    pace = Pace()
    first = pace.size
    pace.learn(first, TARGET_S / 10)
    assert pace.size == 2 * first
    # Not a full call: nothing is known about more.
    pace.learn(1, TARGET_S / 10)
    assert pace.size == 2 * first
    pace.learn(pace.size, 4 * TARGET_S)
    assert first // 4 < pace.size <= first // 2
    for _ in range(20):
        pace.learn(pace.size, 10)
    assert pace.size == 1
