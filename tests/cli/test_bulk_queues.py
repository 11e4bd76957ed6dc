"""``retry-failed``, ``promote`` and ``retry-stalled`` over several queues."""

from __future__ import annotations

import json

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q, put, row
from tests.labs.bulk import fill
from tests.labs.cli import qctl

OTHER = QueueKeys("bull", "other")
APP = QueueKeys("app", "q")
RETRY = ("jobs", "retry-failed")


def test_one_question_with_the_sum(redis_url: str, client: Client) -> None:
    fill(client, 6)
    fill(client, 3, OTHER)
    ran = qctl(redis_url, *RETRY, "q", "other", stdin="n\n", terminal=True)
    assert ran.code == 5
    assert ran.err.startswith("Retry 9 failed jobs in 2 queues? ")
    ran = qctl(redis_url, *RETRY, "q", "other", "--name", "mail", stdin="y\n", terminal=True)
    assert "Retry 4 of 9 failed jobs in 2 queues? " in ran.err
    assert "q: 3 of 6\n" in ran.err
    assert ran.code == 0
    assert "retried 4 jobs in 2 queues" in ran.out.replace("\x1b[0m", "")
    assert (len(row(client, "wait")), len(row(client, "wait", OTHER))) == (3, 1)


def test_many_jobs_of_several_queues_want_their_number(redis_url: str, client: Client) -> None:
    fill(client, 900)
    fill(client, 300, OTHER)
    words = (*RETRY, "--all-queues")
    ran = qctl(redis_url, *words, stdin="q\n", terminal=True)
    assert ran.code == 5
    assert "Type 1200 to go on: " in ran.err
    assert qctl(redis_url, *words, stdin="1200\n", terminal=True).code == 0


def test_a_pipe_has_a_fact_a_line(redis_url: str, client: Client) -> None:
    fill(client, 2)
    fill(client, 1, OTHER)
    client.call("HSET", OTHER("meta"), "paused", "1")
    put(client, "w", keys=QueueKeys("bull", "quiet"))
    client.call("DEL", Q("1"))
    ran = qctl(redis_url, *RETRY, "--all-queues", "--yes")
    assert ran.code == 7
    assert ran.out.splitlines() == [
        "other: 1 job retried: 0",
        "other: 1 of 1 failed scanned",
        "other is paused: the jobs run after `qctl resume`",
        "q: 1 job retried: 0",
        "q: 2 of 2 failed scanned",
        "q: 1 left alone: it does not exist, or its data is gone",
        "nothing to retry in 1 queue",
        "3 queues: 2 jobs retried, 1 left alone",
    ]


@pytest.mark.parametrize(
    ("words", "names"),
    [(("q", "other"), ["q", "other"]), (("--all-queues",), ["other", "q"])],
)
def test_json_of_several_queues(
    redis_url: str, client: Client, words: tuple[str, ...], names: list[str]
) -> None:
    fill(client, 2)
    fill(client, 1, OTHER)
    found = json.loads(qctl(redis_url, *RETRY, *words, "--yes", "--json").out)
    assert [*found] == ["queues"]
    assert [each["queue"] for each in found["queues"]] == names
    assert sum(each["done"] for each in found["queues"]) == 3


def test_json_of_all_queues_is_a_list_even_of_one(redis_url: str, client: Client) -> None:
    fill(client, 2)
    found = json.loads(qctl(redis_url, *RETRY, "--all-queues", "--yes", "--json").out)
    assert [each["done"] for each in found["queues"]] == [2]
    assert json.loads(qctl(redis_url, *RETRY, "q", "--dry-run", "--json").out)["queue"] == "q"


def test_ndjson_has_a_report_for_each_queue(redis_url: str, client: Client) -> None:
    fill(client, 2)
    fill(client, 1, OTHER)
    ran = qctl(redis_url, *RETRY, "q", "other", "--yes", "--output", "ndjson")
    steps = [json.loads(line) for line in ran.out.splitlines()]
    reports = [(step["queue"], step["done"]) for step in steps if step["step"] == "report"]
    assert reports == [("q", 2), ("other", 1)]
    # The progress is that of its queue.
    assert [step["done"] for step in steps if step["step"] == "progress"][-1] == 1


def test_the_queues_of_several_prefixes(redis_url: str, client: Client) -> None:
    fill(client, 2)
    fill(client, 1, APP)
    ran = qctl(redis_url, *RETRY, "q", "--all-prefixes", "--yes")
    assert ran.code == 0
    assert "q@app: 1 job retried: 0" in ran.out
    assert "q@bull: 2 jobs retried: 0, 1" in ran.out
    ran = qctl(redis_url, *RETRY, "q@app", "q@bull", "--dry-run", "--json")
    assert [each["prefix"] for each in json.loads(ran.out)["queues"]] == ["app", "bull"]
    # Ids are of one queue.
    ran = qctl(redis_url, *RETRY, "q", "--all-prefixes", "--id", "1", "--yes")
    assert ran.code == 2
    assert "2 queues are called 'q'" in ran.err


def test_a_queue_that_fails_does_not_stop_the_others(redis_url: str, client: Client) -> None:
    fill(client, 2)
    fill(client, 1, OTHER)
    # The script refuses a queue whose keys have the wrong type.
    client.call("SET", OTHER("events"), "no stream")
    ran = qctl(redis_url, *RETRY, "other", "q", "--yes", "--json")
    assert ran.code == 7
    other, q = json.loads(ran.out)["queues"]
    assert (other["done"], other["complete"], bool(other["error"])) == (0, False, True)
    assert (q["done"], q["complete"], q["error"]) == (2, True, None)
    assert "1 of 2 queues could not be done in full" in ran.err
    assert "other: " in ran.err


def test_a_queue_that_cannot_be_read_is_exit_7(redis_url: str, client: Client) -> None:
    fill(client, 2)
    client.call("SET", OTHER("failed"), "no set")
    put(client, "w", keys=OTHER)
    ran = qctl(redis_url, *RETRY, "--all-queues", "--yes")
    assert ran.code == 7
    assert "q: 2 jobs retried" in ran.out
    assert "1 of 2 queues cannot be read" in ran.err


def test_the_limit_is_that_of_all_queues(redis_url: str, client: Client) -> None:
    fill(client, 5)
    fill(client, 5, OTHER)
    ran = qctl(redis_url, *RETRY, "q", "other", "--limit", "7", "--yes", "--json")
    assert [each["done"] for each in json.loads(ran.out)["queues"]] == [5, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (RETRY, "no queue is named"),
        (("jobs", "promote"), "no queue is named"),
        ((*RETRY, "q", "--all-queues"), "exclude each other"),
        (("jobs", "retry-stalled", "q", "--all-queues"), "exclude each other"),
        ((*RETRY, "q", "other", "--id", "1"), "ids name jobs of one queue"),
        (("jobs", "promote", "q", "1", "--queue", "other"), "ids name jobs of one queue"),
    ],
)
def test_what_is_refused(redis_url: str, client: Client, words: tuple[str, ...], said: str) -> None:
    fill(client, 1)
    fill(client, 1, OTHER)
    ran = qctl(redis_url, *words)
    assert ran.code == 2
    assert said in ran.err


def test_promote_takes_more_queues_by_an_option(redis_url: str, client: Client) -> None:
    put(client, "a", "delayed", score=4096)
    put(client, "b", "delayed", score=4096, keys=OTHER)
    ran = qctl(redis_url, "jobs", "promote", "q", "--queue", "other", "--yes", "--json")
    assert [each["sample"] for each in json.loads(ran.out)["queues"]] == [["a"], ["b"]]
    put(client, "c", "delayed", score=4096, keys=OTHER)
    ran = qctl(redis_url, "jobs", "promote", "--queue", "other", "--yes", "--json")
    assert json.loads(ran.out)["sample"] == ["c"]


def test_a_queue_of_bull_3_is_left_out_of_all_and_refused_by_name(
    redis_url: str, client: Client
) -> None:
    fill(client, 1)
    client.call("SET", "bull:old:id", "4")
    client.call("ZADD", "bull:old:failed", 1, "1")
    client.call("HSET", "bull:old:1", "name", "x", "timestamp", "1", "delay", "0", "opts", "{}")
    assert qctl(redis_url, *RETRY, "--all-queues", "--yes").code == 0
    assert qctl(redis_url, *RETRY, "old", "--yes").code == 5


def test_retry_stalled_goes_on_after_a_queue_that_fails(redis_url: str, client: Client) -> None:
    put(client, "a", "active")
    put(client, "b", "active", keys=OTHER)
    client.call("SET", OTHER("events"), "no stream")
    ran = qctl(redis_url, "jobs", "retry-stalled", "--all-queues", "--yes", "--json")
    assert ran.code == 7
    other, q = json.loads(ran.out)["queues"]
    assert (other["retried"], bool(other["error"])) == ([], True)
    assert (q["retried"], q["error"]) == (["a"], None)
    assert "1 of 2 queues could not be done in full" in ran.err
