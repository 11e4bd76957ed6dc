"""``jobs failures`` as typed, and the commands that it recommends, typed again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qctl.connection.address import Client
from qctl.ops.jobs.failures import FailureGroup, FailureReport
from qctl.output import failures as view
from qctl.wire.keys import QueueKeys
from tests.labs import screens
from tests.labs.build import Q, put, row, scores
from tests.labs.cli import qctl

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
# Reasons that are hard to quote, in the shell and in --where.
REASONS = [
    "Timeout of 30000ms exceeded",
    "Timeout of 500ms exceeded",
    r"""it's "quoted" and \ back`ticked` $HOME $(id)""",
    "a \\ b and can't",
    "--limit 1",
    "null",
    "true",
    "404",
    "escape \x1b[31m bell \x07 bidi \u202e",
    "naïve 数",
    "",
    "and or not ( ) = ~",
]


def failed_ids(client: Client) -> set[str]:
    return set(scores(client, "failed"))


def typed(command: str) -> list[str]:
    """The words of a command as bash passes them to qctl."""
    script = "shift 0; printf '%s\\0' " + command.removeprefix("qctl ")
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    return [word.decode("utf-8", "surrogateescape") for word in out.split(b"\0")[:-1]]


@pytest.mark.parametrize("by", ["reason", "name", "data.tenant"])
def test_each_command_retries_its_group_and_nothing_else(
    redis_url: str, client: Client, by: str
) -> None:
    values = [
        '"a"',
        '"it\'s \\"b\\""',
        "7",
        '"7"',
        '"07"',
        "true",
        "null",
        '"null"',
        "1.5",
        '"x y"',
    ]
    group_of: dict[str, str] = {}
    for n in range(36):
        reason, value = REASONS[n % len(REASONS)], values[n % len(values)]
        put(client, f"j{n}", "failed", score=n, finishedOn=n, failedReason=reason,
            name=f"name {reason}", data=f'{{"tenant":{value}}}')  # fmt: skip
        key = {"reason": reason, "name": reason, "data.tenant": value}[by]
        # Two of each kind belong together.
        key = {"Timeout of 500ms exceeded": REASONS[0]}.get(key, key) if by == "reason" else key
        group_of[f"j{n}"] = {'"7"': "7"}.get(key, key) if by == "data.tenant" else key
    report = json.loads(qctl(redis_url, "jobs", "failures", "q", "--by", by, "--json").out)
    assert report["counted"] == 36
    assert len(report["groups"]) == len(set(group_of.values()))
    for group in report["groups"]:
        before = failed_ids(client)
        wanted = {i for i, key in group_of.items() if key == group_of[group["example_id"]]}
        assert group["count"] == len(wanted)
        ran = qctl(redis_url, *typed(group["command"]), "--yes")
        assert (ran.code, ran.err) == (0, "")
        assert before - failed_ids(client) == wanted
    assert failed_ids(client) == set()
    assert len(row(client, "wait")) == 36


def test_with_since_the_command_leaves_older_failures_alone(redis_url: str, client: Client) -> None:
    now = datetime.now(UTC)
    for job_id, hours in (("old", 3), ("new", 1)):
        at = int((now - timedelta(hours=hours)).timestamp() * 1000)
        put(client, job_id, "failed", score=at, finishedOn=at, failedReason="boom")
    ran = qctl(redis_url, "jobs", "failures", "q", "--since", "2h", "--json")
    (group,) = json.loads(ran.out)["groups"]
    assert (group["count"], group["example_id"]) == (1, "new")
    assert qctl(redis_url, *typed(group["command"]), "--yes").code == 0
    assert failed_ids(client) == {"old"}


def test_a_queue_with_an_odd_name_under_another_prefix(redis_url: str, client: Client) -> None:
    keys = QueueKeys("my app", "-it's")
    put(client, "1", "failed", keys=keys, score=1, finishedOn=1, failedReason="boom 1")
    words = ("jobs", "failures", "--prefix", "my app", "--json", "--", "-it's")
    (group,) = json.loads(qctl(redis_url, *words).out)["groups"]
    ran = qctl(redis_url, *typed(group["command"])[:-2], "--yes", "--", "-it's")
    assert (ran.code, row(client, "wait", keys)) == (0, ["1"])


def test_a_pipe_gets_a_line_for_each_group(redis_url: str, client: Client) -> None:
    for n in range(3):
        put(client, str(n), "failed", score=n, finishedOn=n, failedReason=f"no user {n % 2 or 'x'}")
    ran = qctl(redis_url, "jobs", "failures", "q")
    heading, *lines = ran.out.splitlines()
    assert heading.split() == ["COUNT", "SHARE", "FIRST", "LAST", "EXAMPLE", "REASON", "RETRY"]
    assert lines[0].split()[:3] == ["2", "66.7", "%"]
    assert lines[0].endswith("qctl jobs retry-failed q --where 'shape = \"no user x\"'")
    assert (len(lines), ran.err) == (2, "")


def test_ndjson_ends_with_what_the_groups_do_not_say(redis_url: str, client: Client) -> None:
    for n in range(3):
        put(client, str(n), "failed", score=n, finishedOn=n, failedReason="xyz"[n])
    ran = qctl(redis_url, "jobs", "failures", "q", "--limit", "2", "--output", "ndjson")
    first, second, report = map(json.loads, ran.out.splitlines())
    assert {first["value"], second["value"]} < {"x", "y", "z"}
    assert (report["step"], report["groups"], report["other_count"]) == ("report", [], 1)


def test_nothing_failed_is_said_and_no_queue_is_an_error(redis_url: str, client: Client) -> None:
    put(client, "1")
    ran = qctl(redis_url, "jobs", "failures", "q")
    assert (ran.code, ran.out, ran.err) == (0, "", "no failed jobs in queue q\n")
    assert qctl(redis_url, "jobs", "failures", "nosuch").code == 3


def test_a_queue_of_bull_has_no_command(redis_url: str, client: Client) -> None:
    put(client, "1", "failed", score=1, finishedOn=1, failedReason="boom")
    client.call("DEL", Q("meta"))
    client.call("SET", Q("id"), 1)
    (group,) = json.loads(qctl(redis_url, "jobs", "failures", "q", "--json").out)["groups"]
    assert (group["count"], group["command"]) == (1, None)


def test_ctrl_c_shows_what_was_counted_and_says_that_it_is_partial(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qctl.wire.write.pace.MAX_SIZE", 10)
    for n in range(30):
        put(client, str(n), "failed", score=n, finishedOn=n, failedReason="boom")

    @contextmanager
    def after_a_read(*_: object, **__: object) -> Iterator[Callable[[], bool]]:
        polls = iter([False, True])
        yield lambda: next(polls)

    monkeypatch.setattr("qctl.cli.failures.stop_on_signals", after_a_read)
    ran = qctl(redis_url, "jobs", "failures", "q", "--json")
    report = json.loads(ran.out)
    assert (ran.code, report["counted"], report["complete"]) == (130, 10, False)
    assert "the figures are partial: 10 of 30 failed jobs were read" in ran.err
    ran = qctl(redis_url, "jobs", "failures", "q", terminal=True)
    assert ran.code == 130
    assert "qctl jobs retry-failed q --where 'shape = boom'" in ran.out.replace('"', "")
    assert "the figures are partial" in ran.err


def _group(value: object, where: str | None, jobs: int, *, is_least: bool = False) -> FailureGroup:
    command = None if where is None else f"qctl jobs retry-failed emails --where '{where}'"
    return FailureGroup(
        value=value, where=where, count=jobs, is_least=is_least, share=jobs / 20_000,
        first_at=NOW - timedelta(days=3), last_at=NOW - timedelta(minutes=2, seconds=5),
        example_id="order-" + "4711" * 12, command=command,
    )  # fmt: skip


def test_the_groups_on_a_terminal() -> None:
    long = "upstream answered with a text that is far longer than any terminal is wide " * 2
    report = FailureReport(
        queue="emails", prefix="bull", by="reason", since_at=None, total=1_000_000, scanned=20_000,
        counted=20_000, missing=2, other_count=2_000, other_groups=None, complete=False,
        groups=(
            _group("connect ECONNREFUSED <address>",
                   'shape = "connect ECONNREFUSED <address>"', 12_345),
            _group(long[:120], 'shape = "upstream"', 5_000, is_least=True),
            _group(None, "shape = null", 655),
        ),
    )  # fmt: skip
    rows = view.rows(report, NOW)

    screens.compare(
        Path(__file__).with_name("failures.txt"),
        lambda width, _, colour: view.blocks(rows, width=width, colour=colour).splitlines(),
    )


def test_remarks_say_what_the_groups_do_not() -> None:
    report = FailureReport(
        queue="emails", prefix="bull", by="name", since_at=None, total=9, scanned=5, counted=4,
        missing=1, groups=(), other_count=4, other_groups=None, complete=False,
    )  # fmt: skip
    merged, missing = view.remarks(report, held=1000)
    assert "more than 1,000 groups" in merged
    assert "1 id in 'failed' without a record" in missing
