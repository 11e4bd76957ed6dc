"""Failed jobs in groups: every job is counted once, and memory is bounded."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import Counter
from datetime import UTC, datetime

import pytest

from qctl.connection.address import Client
from qctl.connection.forwarding import ForwardingClient
from qctl.errors import InterruptedByUserError, PartialError, UnreachableError, UsageError
from qctl.ops.jobs.failures import FailureReport, FailureScan
from tests.labs.build import Q, put

START_MS = 1_767_225_600_000

# Failed jobs whose reasons all have another shape: the number is spelled in letters.
DISTINCT = """
for n = 1, tonumber(ARGV[1]) do
  local word = string.gsub(tostring(n), "%d", function(d) return string.char(97 + tonumber(d)) end)
  redis.call("HSET", KEYS[1] .. n, "name", "n", "data", "{}", "finishedOn", n,
    "failedReason", "no such " .. word .. string.rep(" thing", 20))
  redis.call("ZADD", KEYS[1] .. "failed", n, n)
end
"""


def fail(
    client: Client, job_id: str, reason: str | None = "boom", at: int = 0, **more: str
) -> None:
    reasons = {} if reason is None else {"failedReason": reason}
    at += START_MS
    put(client, job_id, "failed", score=at, finishedOn=at, **reasons, **more)


def scan(
    client: Client, by: str = "reason", *, max_held: int = 1000, limit: int = 20
) -> FailureReport:
    found = FailureScan(client, Q, by, 0, max_held=max_held)
    for _ in found:
        pass
    return found.report(limit)


def test_reasons_of_one_shape_are_one_group(client: Client) -> None:
    for n in range(5):
        fail(client, f"t{n}", f"Timeout of {n}00ms exceeded", at=n * 1000)
    fail(client, "b", "boom", at=500)
    fail(client, "n", None, at=600)
    report = scan(client)
    assert [(g.value, g.count, g.share, g.example_id) for g in report.groups] == [
        ("Timeout of <number>ms exceeded", 5, 0.7143, "t4"),
        ("boom", 1, 0.1429, "b"),
        (None, 1, 0.1429, "n"),
    ]
    first = report.groups[0]
    assert first.first_at == datetime.fromtimestamp(START_MS / 1000, UTC)
    assert first.last_at == datetime.fromtimestamp(START_MS / 1000 + 4, UTC)
    assert (report.counted, report.scanned, report.total) == (7, 7, 7)
    assert (report.other_count, report.other_groups, report.complete) == (0, 0, True)


def test_values_that_where_does_not_distinguish_are_one_group(client: Client) -> None:
    values = [
        "42",
        '"42"',
        "42.0",
        '"42.0"',
        '"007"',
        "7",
        "true",
        '"true"',
        "null",
        '{"a":1}',
        "[]",
    ]
    for n, value in enumerate(values):
        fail(client, str(n), data=f'{{"x":{{"y":{value}}}}}')
    fail(client, "missing", data="{}")
    fail(client, "text", data="no JSON")
    fail(client, "long", data=f'{{"x":{{"y":"{"z" * 201}"}}}}')
    groups = {group.where: group.count for group in scan(client, "data.x.y").groups}
    assert groups == {
        "data.x.y = 42": 3,
        'data.x.y = "42.0"': 1,
        'data.x.y = "007"': 1,
        "data.x.y = 7": 1,
        "data.x.y = true": 1,
        'data.x.y = "true"': 1,
        "data.x.y = null": 3,
        None: 3,
    }


def test_an_id_without_a_record_is_not_counted(client: Client) -> None:
    fail(client, "a")
    fail(client, "gone")
    client.call("DEL", Q("gone"))
    report = scan(client)
    assert (report.counted, report.missing, report.scanned) == (1, 1, 2)


def test_groups_that_are_not_shown_are_counted_as_other(client: Client) -> None:
    for n in range(6):
        fail(client, str(n), "abcdef"[n])
    report = scan(client, limit=2)
    assert (len(report.groups), report.other_count, report.other_groups) == (2, 4, 4)


def test_merged_groups_lose_no_job_and_claim_no_exact_count(
    client: Client, chance: random.Random
) -> None:
    reasons = [f"common {'xyz'[n % 3]}" for n in range(90)]
    reasons += [f"rare {'abcdefghijklmnopqrstuvwxyz'[n % 26]}{chr(97 + n % 17)}" for n in range(60)]
    chance.shuffle(reasons)
    for n, reason in enumerate(reasons):
        fail(client, str(n), reason, at=n)
    truth = Counter(reasons)
    report = scan(client, max_held=8)
    assert report.other_groups is None
    assert len(report.groups) <= 8
    assert report.other_count + sum(group.count for group in report.groups) == len(reasons)
    for group in report.groups:
        assert group.count == truth[group.value] or group.is_least
        assert group.count <= truth[group.value]


def test_a_group_from_before_the_first_merge_has_its_exact_count(client: Client) -> None:
    for n in range(3):
        fail(client, f"c{n}", "common", at=n)
    for n in range(20):
        fail(client, f"r{n}", f"rare {'abcdefghijklmnopqrst'[n]}", at=10 + n)
    fail(client, "last", "common", at=100)
    first, *others = scan(client, max_held=4).groups
    assert (first.value, first.count, first.is_least) == ("common", 4, False)
    assert any(group.is_least for group in others)


def test_memory_does_not_grow_with_the_number_of_reasons(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is remembered of any number of jobs, smaller, so that fewer jobs show the same.
    monkeypatch.setattr("qctl.wire.write.walk._NOTED", 100)
    monkeypatch.setattr("qctl.wire.write.walk._NOTED_A_CALL", 50)
    monkeypatch.setattr("qctl.wire.write.pace.MAX_SIZE", 50)

    def peak(count: int) -> int:
        client.call("FLUSHALL")
        client.call("EVAL", DISTINCT, 1, Q(""), count)
        gc.collect()
        tracemalloc.start()
        try:
            report = scan(client, max_held=40)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert report.counted == count
            assert report.other_groups is None

    # The first one warms up; the second is long enough to fill the caches of texts.
    _, few, many = map(peak, (100, 2200, 4400))
    assert many < 1.1 * few


def test_a_scan_that_is_stopped_or_cut_off_reports_what_it_has(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qctl.wire.write.pace.MAX_SIZE", 10)
    for n in range(40):
        fail(client, str(n), at=n)
    polls = iter([False, False, True])
    stopped = FailureScan(client, Q, "reason", 40, stop=lambda: next(polls))
    with pytest.raises(InterruptedByUserError, match="interrupted") as interrupted:
        list(stopped)
    assert "partial: 20 of 40 failed jobs were read" in interrupted.value.why
    assert (stopped.report().counted, stopped.report().complete) == (20, False)

    class Leaving(ForwardingClient):
        """A client whose Redis is away after three reads of jobs."""

        left = 3

        def pipeline(self, commands: object) -> list[object]:
            if commands and commands[0][0] == "HMGET":  # type: ignore[index]
                self.left -= 1
                if self.left < 0:
                    raise UnreachableError("Redis cannot be reached")
            return super().pipeline(commands)  # type: ignore[arg-type]

    cut_off = FailureScan(Leaving(client), Q, "reason", 40)
    with pytest.raises(PartialError, match="Redis cannot be reached") as cut:
        list(cut_off)
    assert "partial: 30 of 40 failed jobs were read" in cut.value.why
    assert cut_off.report().counted == 30


@pytest.mark.parametrize(
    "by", ["", "reasons", "data", "data.", "data..x", "data.a b", 'data."a"', "id"]
)
def test_what_cannot_group_jobs_is_a_usage_error(client: Client, by: str) -> None:
    with pytest.raises(UsageError, match="is no way to group failed jobs"):
        FailureScan(client, Q, by, 0)
