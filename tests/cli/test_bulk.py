"""Jobs in bulk as typed: what is asked, said and left alone."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.write import cancelling, walk
from tests.labs.build import Q, put, row, scores
from tests.labs.bulk import fill
from tests.labs.cli import qctl
from tests.labs.workers import BEAT


def test_named_jobs_run_again_without_a_question(redis_url: str, client: Client) -> None:
    fill(client, 5)
    ran = qctl(redis_url, "jobs", "retry", "q", "3", "1", "3")
    assert (ran.code, ran.out, ran.err) == (0, "q: 2 jobs retried: 3, 1\n", "")
    assert row(client, "wait") == ["1", "3"]


def test_some_of_the_named_jobs_is_exit_7_and_none_is_exit_3(
    redis_url: str, client: Client
) -> None:
    fill(client, 2)
    ran = qctl(redis_url, "jobs", "retry", "q", "1", "never")
    assert ran.code == 7
    assert ran.out.splitlines()[1] == "never left alone: it does not exist, or its data is gone"
    ran = qctl(redis_url, "jobs", "retry", "q", "1")
    assert ran.code == 3
    assert ran.err.splitlines() == [
        "error: nothing was changed",
        "1: it is not finished",
        "try: qctl jobs show q 1",
    ]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_jobs_of_a_state_that_were_left_alone_are_exit_7(
    redis_url: str, client: Client, dry_run: tuple[str, ...]
) -> None:
    fill(client, 3)
    client.call("DEL", Q("1"))
    words = ("jobs", "retry-failed", "q", "--yes", "--json", *dry_run)
    ran = qctl(redis_url, *words)
    assert ran.code == 7
    report = json.loads(ran.out)
    assert (report["done"], report["skipped_count"], report["moved_on_count"]) == (2, 1, 0)


def test_jobs_that_have_left_the_state_are_not_meant(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker took one in the moment between the look and the call."""
    for job_id in "abc":
        put(client, job_id)
    taken = walk.ShortWalk(["a", "b", "c"])
    monkeypatch.setattr("qctl.ops.bulk.run.start_walk", lambda *_, **__: taken)
    client.call("LREM", Q("wait"), 1, "a")
    put(client, "a", "active", lock="t")
    client.call("DEL", Q("c"))
    client.call("LREM", Q("wait"), 1, "c")
    ran = qctl(redis_url, "purge", "q", "--state", "waiting", "--yes", "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert (report["done"], report["skipped_count"], report["moved_on_count"]) == (1, 2, 2)


def test_what_is_left_to_type_can_be_typed(redis_url: str, client: Client) -> None:
    put(client, "a b", keys=QueueKeys("bull", "my mails"))
    ran = qctl(redis_url, "jobs", "retry", "my mails", "a b")
    assert (ran.code, ran.err.splitlines()[-1]) == (3, "try: qctl jobs show 'my mails' 'a b'")


@pytest.mark.parametrize("rate", ["inf", "nan"])
def test_a_rate_is_a_number(redis_url: str, client: Client, rate: str) -> None:
    fill(client, 1)
    ran = qctl(redis_url, "jobs", "retry-failed", "q", "--rate", rate, "--yes")
    assert (ran.code, ran.err.splitlines()[0]) == (2, f"error: --rate {rate} is not a number")


def test_ids_of_a_state_that_are_not_in_it_are_told(redis_url: str, client: Client) -> None:
    fill(client, 3)
    put(client, "w")
    words = ("--id", "1", "--id", "w", "--id", "2", "--name", "mail")
    ran = qctl(redis_url, "jobs", "retry-failed", "q", *words)
    # 2 has another name, so it was not meant.
    assert ran.code == 0
    assert ran.out.splitlines() == ["q: 1 job retried: 1", "3 of 3 failed scanned"]
    ran = qctl(redis_url, "jobs", "retry-failed", "q", "--id", "2", "--id", "w")
    assert ran.code == 7
    assert ran.out.splitlines()[-1] == "w left alone: it is not failed"


@pytest.mark.parametrize("filters", [(), ("--name", "mail"), ("--where", "error ~ boom")])
def test_an_id_that_is_nowhere_is_told_whatever_the_filters(
    redis_url: str, client: Client, filters: tuple[str, ...]
) -> None:
    fill(client, 3)
    ran = qctl(redis_url, "jobs", "retry-failed", "q", "--id", "nosuch", *filters)
    assert ran.code == 3
    assert "nosuch: it does not exist" in ran.err
    ran = qctl(redis_url, "jobs", "retry-failed", "q", "--id", "nosuch", "--id", "1", *filters)
    assert ran.code == 7


def test_a_list_takes_the_same_filters(redis_url: str, client: Client) -> None:
    fill(client, 9)
    words = ("--where", "error ~ timeout", "--until", "2026-01-01T00:00:05Z", "--json")
    found = json.loads(qctl(redis_url, "jobs", "list", "q", "--state", "failed", *words).out)
    assert [job["id"] for job in found["jobs"]] == ["3", "0"]


def test_it_says_how_many_it_looked_at(redis_url: str, client: Client) -> None:
    fill(client)
    ran = qctl(redis_url, "jobs", "retry-failed", "q", "--where", "error ~ timeout", "--yes")
    assert ran.out.splitlines() == [
        "q: 20 jobs retried: 0, 3, 6, 9, 12, 15, 18, 21, 24, 27 and 10 more",
        "60 of 60 failed scanned",
    ]


def test_a_dry_run_says_so_on_every_line(redis_url: str, client: Client) -> None:
    fill(client, 3)
    ran = qctl(redis_url, "purge", "q", "--state", "failed", "--dry-run")
    assert ran.out.splitlines() == [
        "q: 3 jobs would be deleted: 0, 1, 2 (dry run)",
        "3 of 3 failed scanned (dry run)",
    ]
    assert len(scores(client, "failed")) == 3


@pytest.mark.parametrize(("answer", "code"), [("q\n", 0), ("y\n", 5), ("", 5)])
def test_a_purge_wants_the_queues_name(
    redis_url: str, client: Client, answer: str, code: int
) -> None:
    fill(client, 3)
    ran = qctl(redis_url, "purge", "q", "--state", "failed", stdin=answer, terminal=True)
    assert ran.code == code
    assert "Delete 3 failed jobs of q; that cannot be undone." in ran.err
    assert "Type q to go on: " in ran.err
    assert len(scores(client, "failed")) == (0 if code == 0 else 3)


def test_the_question_names_the_jobs_below(redis_url: str, client: Client) -> None:
    fill(client, 3)
    words = ("jobs", "remove", "q", "1", "--with-children")
    ran = qctl(redis_url, *words, stdin="n\n", terminal=True)
    assert ran.code == 5
    assert "Delete 1 job of q and all jobs below it? That cannot be undone. [y/N]" in ran.err


def test_without_anybody_to_ask_nothing_is_done(redis_url: str, client: Client) -> None:
    fill(client, 3)
    ran = qctl(redis_url, "jobs", "retry-failed", "q")
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == "try: the same command with --yes"
    assert qctl(redis_url, "jobs", "remove", "q", "--state", "failed", "--json").code == 2
    assert len(scores(client, "failed")) == 3


def test_json_and_ndjson(redis_url: str, client: Client) -> None:
    fill(client, 3)
    put(client, "d", "delayed", score=4096)
    found = json.loads(qctl(redis_url, "jobs", "promote", "q", "--yes", "--json").out)
    assert found == {
        "queue": "q",
        "prefix": "bull",
        "action": "promote",
        "state": "delayed",
        "total": 1,
        "scanned": 1,
        "matched": 1,
        "done": 1,
        "skipped_count": 0,
        "skipped": [],
        "moved_on_count": 0,
        "sample": ["d"],
        "below_count": 0,
        "dry_run": False,
        "complete": True,
        "error": None,
    }
    ran = qctl(redis_url, "jobs", "retry-failed", "q", "--yes", "--output", "ndjson")
    steps = [json.loads(line) for line in ran.out.splitlines()]
    assert [step["step"] for step in steps][-1] == "report"
    assert {step["step"] for step in steps[:-1]} == {"progress"}
    assert steps[-1]["done"] == steps[-2]["done"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("jobs", "remove", "q"), "--state"),
        (("jobs", "remove", "q", "1", "--name", "x"), "these jobs are named"),
        (("jobs", "promote", "q", "1", "--where", "id = 1"), "these jobs are named"),
        (("jobs", "retry-failed", "q", "--until", "soon"), "--until 'soon' is not a time"),
        (("jobs", "retry-failed", "q", "--where", "x = 1"), "no such field"),
    ],
)
def test_what_is_not_understood(
    redis_url: str, client: Client, words: tuple[str, ...], said: str
) -> None:
    fill(client, 1)
    ran = qctl(redis_url, *words)
    assert ran.code == 2
    assert said in ran.err


def test_no_such_queue(redis_url: str) -> None:
    assert qctl(redis_url, "jobs", "retry-failed", "nope", "--yes").code == 3


def test_a_paused_queue_is_mentioned(redis_url: str, client: Client) -> None:
    fill(client, 1)
    client.call("HSET", Q("meta"), "paused", "1")
    ran = qctl(redis_url, "jobs", "retry-failed", "q", "--yes")
    assert ran.out.splitlines()[-1].startswith("q is paused: ")


def scene(client: Client) -> None:
    """Jobs of all kinds that are left alone, and some that are not."""
    fill(client, 4)
    put(client, "w")
    put(client, "d", "delayed", score=4096)
    put(client, "held", "active", lock="t:1")
    put(client, "held-delayed", "delayed", score=8192, lock="t:1")
    put(client, "parent", "waiting-children", score=1)
    put(client, "child", parentKey=Q("parent"), parent='{"id":"parent","queueKey":"bull:q"}')
    client.call("SADD", Q("parent:dependencies"), Q("child"))
    put(client, "repeat:s:1700000000000", "delayed", score=9999, rjk="s")
    client.call("ZADD", Q("repeat"), 1_700_000_000_000, "s")
    for name in ("twin", "other-twin"):
        put(client, name, "failed", score=9e15, deid="x", opts='{"de":{"id":"x"}}')
    put(client, "taken", "failed", score=9e15, deid="y", opts='{"de":{"id":"y"}}')
    put(client, "owner", "prioritized", score=1, deid="y")
    client.call("SET", Q.dedup("y"), "owner")


SCHEDULED = "repeat:s:1700000000000"
# More ids than one call takes at first.
NEVER = tuple(f"never-{number}" for number in range(20))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("retry", "1", "w", "never", "twin", "other-twin", "taken", "held"), 7),
        (("retry", "1", "2"), 0),
        (("retry", "w", "never"), 3),
        (("promote", "d", "w", "never", "held"), 7),
        (("promote", "w"), 3),
        (("remove", "1", "w", "d", "held", "held-delayed", "never", "parent", SCHEDULED), 7),
        (("remove", "child", "parent"), 0),
        (("remove", "child", *NEVER, "parent"), 7),
        (("remove", "parent", "child"), 7),
        (("remove", "parent", "--with-children"), 0),
        (("remove", "held"), 3),
        (("remove", "meta", "wait"), 3),
        (("remove", "1", "w", "--state", "failed"), 7),
        (("remove", "w", "1", "--state", "waiting"), 7),
        (("remove", "--state", "delayed"), 7),
        (("remove", "--state", "prioritized"), 0),
        (("remove", "--state", "waiting-children"), 7),
        (("retry-failed",), 7),
        (("cancel", "w", "d", "1", "never", "parent", SCHEDULED), 7),
        (("cancel", "w", "d"), 0),
        (("cancel", "1"), 3),
    ],
)
def test_a_dry_run_foresees_all_that_happens(
    redis_url: str, client: Client, words: tuple[str, ...], code: int
) -> None:
    scene(client)
    command = ("jobs", words[0], "q", *words[1:], "--json", "--yes")
    before = {key: client.call("DUMP", key) for key in client.call("KEYS", "*")}
    dry = qctl(redis_url, *command, "--dry-run")
    assert {key: client.call("DUMP", key) for key in client.call("KEYS", "*")} == before
    real = qctl(redis_url, *command)
    assert (dry.code, real.code) == (code, code)
    foreseen, done = json.loads(dry.out), json.loads(real.out)
    assert (foreseen.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert foreseen == done
    assert dry.err == real.err.replace("nothing was", "nothing would be")


def test_a_dry_run_says_what_would_be_left_alone(redis_url: str, client: Client) -> None:
    put(client, "l", "active", lock="t:1")
    put(client, "a")
    ran = qctl(redis_url, "jobs", "remove", "q", "a", "l", "--dry-run")
    assert ran.code == 7
    assert ran.out.splitlines() == [
        "q: 1 job would be deleted: a (dry run)",
        "l left alone: a worker has it (dry run)",
    ]
    ran = qctl(redis_url, "jobs", "promote", "q", "never", "--dry-run")
    assert ran.code == 3
    assert ran.err.splitlines()[0] == "error: nothing would be changed"


def test_jobs_are_cancelled(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "ANSWER_S", 0.3)
    put(client, "a")
    put(client, "node", "active", lock="t:1")
    ran = qctl(redis_url, "jobs", "cancel", "q", "a", "node")
    assert ran.code == 2, "without a terminal and --yes, nothing is cancelled"
    assert client.call("EXISTS", Q("a")) == 1
    dry = qctl(redis_url, "jobs", "cancel", "q", "a", "node", "--dry-run", "--json")
    (skipped,) = json.loads(dry.out)["skipped"]
    assert (dry.code, skipped["id"]) == (7, "node")
    assert "it is unknown whether it can be cancelled" in skipped["reason"]
    # A qctl worker, which may be asked.
    heartbeats.beat(client, replace(BEAT, owner="t"), int(time.time() * 1000))
    dry = qctl(redis_url, "jobs", "cancel", "q", "node", "--dry-run")
    assert (dry.code, dry.out) == (0, "q: 1 job would be cancelled: node (dry run)\n")
    ran = qctl(redis_url, "jobs", "cancel", "q", "a", "node", "--yes")
    assert ran.code == 7
    done, left_alone = ran.out.splitlines()
    assert done == "q: 1 job cancelled: a"
    assert "worker.cancelJob" in left_alone
    assert client.call("EXISTS", Q("a"), Q.cancel_requests) == 0


def test_a_flow_of_which_a_part_stays_is_exit_7(redis_url: str, client: Client) -> None:
    put(client, "parent", "waiting-children", score=1)
    for name in ("c", SCHEDULED):
        put(client, name, parentKey=Q("parent"), rjk="s")
        client.call("SADD", Q("parent:dependencies"), Q(name))
    client.call("ZADD", Q("repeat"), 1_700_000_000_000, "s")
    words = ("jobs", "remove", "q", "parent", "--with-children", "--yes")
    for flag, would in (("--dry-run", "would be "), ("--no-color", "")):
        ran = qctl(redis_url, *words, flag)
        assert ran.code == 7
        mark = " (dry run)" if would else ""
        assert ran.out.splitlines() == [
            f"q: 0 jobs {would}deleted{mark}",
            f"1 job below {would}deleted{mark}",
            f"parent left alone: 1 job below it could not be deleted: {SCHEDULED} of q (it is the "
            f"next run of a scheduler; `qctl schedules remove` removes the scheduler){mark}",
        ]
    assert client.call("SMEMBERS", Q("parent:dependencies")) == [Q(SCHEDULED)]
    assert list(scores(client, "waiting-children")) == ["parent"]


def test_a_local_time_is_said_on_stderr(redis_url: str, client: Client) -> None:
    fill(client, 1)
    client.call("XADD", Q("events"), "*", "event", "added", "jobId", "1")
    for words in (
        ("jobs", "list", "q", "--state", "failed"),
        ("jobs", "retry-failed", "q", "--dry-run"),
        ("jobs", "failures", "q"),
        ("events", "q"),
    ):
        ran = qctl(redis_url, *words, "--since", "yesterday")
        assert "--since yesterday is " in ran.err, words
        assert "00:00:00 local time (UTC" in ran.err, words
        assert "local time" not in qctl(redis_url, *words, "--since", "2h").err
        assert qctl(redis_url, *words, "--since", "yesterday", "--json").err == ""
    ran = qctl(redis_url, "jobs", "list", "q", "--state", "failed", "--until", "today")
    assert "--until today is " in ran.err


def test_a_beginning_after_the_end_is_refused(redis_url: str, client: Client) -> None:
    fill(client, 1)
    words = ("jobs", "retry-failed", "q", "--since", "today", "--until", "yesterday", "--yes")
    ran = qctl(redis_url, *words)
    assert ran.code == 2
    assert "--since today is later than --until yesterday" in ran.err
