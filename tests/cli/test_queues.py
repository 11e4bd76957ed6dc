"""``qctl queues`` alone, ``queues set`` and ``queues delete``, as typed."""

from __future__ import annotations

import json

import pytest

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict
from tests.labs.build import Q, put
from tests.labs.bulk import child
from tests.labs.cli import Ran, qctl


def limits(client: Client) -> dict[str, str]:
    fields = to_dict(client.call("HGETALL", Q("meta")))
    return {name: fields[name] for name in ("concurrency", "max", "duration") if name in fields}


def test_without_a_command_the_names_are_listed(redis_url: str, client: Client) -> None:
    put(client, "1")
    put(client, "1", keys=QueueKeys("bull", "set"))
    put(client, "1", keys=QueueKeys("my", "other"))
    assert qctl(redis_url, "queues").out == "q\nset\n"
    assert json.loads(qctl(redis_url, "queues", "--json").out) == {
        "queues": ["q", "set"],
        "by_prefix": {"bull": ["q", "set"]},
    }
    assert qctl(redis_url, "queues", "--all-prefixes").out == "q@bull\nset@bull\nother@my\n"
    assert qctl(redis_url, "--prefix", "my", "queues").out == "other\n"
    ran = qctl(redis_url, "queues", "emails")
    assert (ran.code, "no command 'emails'" in ran.err) == (2, True)


def test_limits_are_set_shown_and_removed(redis_url: str, client: Client) -> None:
    put(client, "1")
    ran = qctl(redis_url, "queues", "set", "q", "--concurrency", "5", "--rate-limit", "100/1m")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "q: global concurrency 5 (was none)",
        "q: global rate limit 100 jobs in 1 min (was none)",
    ]
    assert limits(client) == {"concurrency": "5", "max": "100", "duration": "60000"}
    # What is not named stays.
    ran = qctl(redis_url, "queues", "set", "q", "--concurrency", "none", "--json")
    assert json.loads(ran.out) == {
        "queue": "q", "prefix": "bull", "concurrency": None, "was_concurrency": 5,
        "rate_limit": {"max": 100, "duration_ms": 60000},
        "was_rate_limit": {"max": 100, "duration_ms": 60000}, "dry_run": False, "remarks": [],
    }  # fmt: skip
    assert limits(client) == {"max": "100", "duration": "60000"}
    ran = qctl(redis_url, "queues", "set", "q", "--rate-limit", "none", "--dry-run")
    assert ran.out.splitlines()[1] == "q: global rate limit none (was 100 jobs in 1 min) (dry run)"
    assert limits(client) == {"max": "100", "duration": "60000"}
    assert qctl(redis_url, "queues", "set", "q", "--rate-limit", "none").code == 0
    assert limits(client) == {}


@pytest.mark.parametrize(
    ("text", "stored"),
    [("10/s", ("10", "1000")), ("1/500ms", ("1", "500")), ("7/1.5h", ("7", "5400000"))],
)
def test_rate_limits(redis_url: str, client: Client, text: str, stored: tuple[str, str]) -> None:
    put(client, "1")
    assert qctl(redis_url, "queues", "set", "q", "--rate-limit", text).code == 0
    assert limits(client) == dict(zip(("max", "duration"), stored, strict=True))


@pytest.mark.parametrize(
    "words",
    [
        (),
        *(
            ("--concurrency", text)
            for text in ("0", "-1", "1.5", "", "many", "9" * 17, "None", "٣")
        ),
        *(("--rate-limit", text) for text in ("10", "10/", "/1s", "0/1s", "1/0s", "10/5", "a/1s")),
    ],
)
def test_what_is_no_limit_is_a_usage_error(
    redis_url: str, client: Client, words: tuple[str, ...]
) -> None:
    put(client, "1")
    assert qctl(redis_url, "queues", "set", "q", *words).code == 2
    assert limits(client) == {}


def test_remarks_of_set(redis_url: str, client: Client) -> None:
    for n in range(3):
        put(client, str(n), "active", lock="t")
    client.call("HSET", Q("meta"), "version", "bullmq:5.8.0", "concurrency", "oops")
    ran = qctl(redis_url, "queues", "set", "q", "--concurrency", "2", "--rate-limit", "1/1s")
    assert ran.out.splitlines()[0] == "q: global concurrency 2 (was oops (not a number))"
    assert "3 jobs run now and go on: no job starts until fewer than 2 run" in ran.err
    assert "workers before 5.9 ignore the global concurrency" in ran.err
    assert "workers before 5.60 ignore the global rate limit" in ran.err


def test_set_creates_no_queue(redis_url: str, client: Client) -> None:
    put(client, "1")
    ran = qctl(redis_url, "queues", "set", "nosuch", "--concurrency", "1")
    assert ran.code == 3
    assert client.call("EXISTS", "bull:nosuch:meta") == 0


def delete(redis_url: str, *words: str, stdin: str = "", terminal: bool = False) -> Ran:
    return qctl(redis_url, "queues", "delete", "q", *words, stdin=stdin, terminal=terminal)


def test_a_dry_run_counts_and_mentions(redis_url: str, client: Client) -> None:
    other = QueueKeys("bull", "q2")
    put(client, "up", "waiting-children", keys=other, score=1)
    child(client, (Q, "1"), (other, "up"))
    client.call("ZADD", Q("repeat"), 1, "daily")
    put(client, "r", "active", lock="t")
    before = sorted(client.call("KEYS", "*"))
    ran = delete(redis_url, "--dry-run")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "q: 7 keys would be deleted (dry run)"
    assert "2 jobs (dry run)" in ran.out
    assert "1 job has a parent in another queue" in ran.err
    assert "with 1 scheduler" in ran.err
    assert "1 active job has a lock" in ran.err
    assert sorted(client.call("KEYS", "*")) == before
    ran = delete(redis_url, "--ignore-workers")
    assert (ran.code, "1 job has a parent in another queue" in ran.err) == (2, True)
    report = json.loads(delete(redis_url, "--dry-run", "--json").out)
    assert (report["total"], report["deleted"], report["dry_run"]) == (7, 0, True)
    assert (report["keys"]["jobs"], report["parents_elsewhere"]) == (2, 1)


def test_the_name_confirms(redis_url: str, client: Client) -> None:
    put(client, "1")
    ran = delete(redis_url)
    assert (ran.code, "--yes" in ran.err) == (2, True)
    ran = delete(redis_url, stdin="y\n", terminal=True)
    assert (ran.code, "nothing was done\nthe answer was not q\n" in ran.err) == (5, True)
    assert client.call("EXISTS", Q("meta"), Q("wait"), Q("1")) == 3
    ran = delete(redis_url, stdin="q\n", terminal=True)
    assert (ran.code, ran.out) == (0, "q is deleted: 3 keys\n")
    assert client.call("DBSIZE") == 0
    assert delete(redis_url, "--yes").code == 3


def test_a_running_job_refuses_unless_the_flag_says_otherwise(
    redis_url: str, client: Client
) -> None:
    put(client, "1", "active", lock="t")
    ran = delete(redis_url, "--yes")
    assert (ran.code, "--ignore-workers" in ran.err) == (5, True)
    assert client.call("EXISTS", Q("1")) == 1
    ran = delete(redis_url, "--yes", "--ignore-workers", "--json")
    assert (ran.code, json.loads(ran.out)["complete"]) == (0, True)
    assert client.call("DBSIZE") == 0


@pytest.mark.parametrize("words", [("set", "q", "--concurrency", "1"), ("delete", "q", "--yes")])
def test_queues_of_bull_are_never_changed(
    redis_url: str, client: Client, words: tuple[str, ...]
) -> None:
    client.call("SET", Q("id"), 1)
    client.call("LPUSH", Q("wait"), 1)
    client.call("HSET", Q("1"), "name", "n", "timestamp", 1)
    assert qctl(redis_url, "queues", *words).code == 5
    assert client.call("DBSIZE") == 3
