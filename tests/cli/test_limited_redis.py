"""Every command on a Redis that refuses CLIENT LIST or INFO, or leaves fields out of them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.read.clients import client_name
from tests.labs.build import put
from tests.labs.cli import Ran, run
from tests.labs.proxy import Answer, answering_proxy, bulk
from tests.labs.servers import RedisServer

SYNTAX = b"-ERR syntax error\r\n"


def refuses(*refused: str, reply: bytes = SYNTAX) -> Answer:
    def answer(words: Sequence[str], ask: Callable[[], bytes]) -> bytes:
        is_refused = [word.upper() for word in words[: len(refused)]] == [*refused]
        return reply if is_refused else ask()

    return answer


def without(*fields: str) -> Answer:
    """Leaves these fields out of CLIENT LIST."""

    def answer(words: Sequence[str], ask: Callable[[], bytes]) -> bytes:
        reply = ask()
        if [word.upper() for word in words[:2]] != ["CLIENT", "LIST"]:
            return reply
        text = reply.partition(b"\r\n")[2].decode().removesuffix("\r\n")
        return bulk(re.sub(rf" ({'|'.join(fields)})=\S*", "", text))

    return answer


NO_WORKERS = {
    "no CLIENT LIST": refuses("CLIENT", "LIST", reply=b"-ERR unknown command 'CLIENT'\r\n"),
    "no db in CLIENT LIST": without("db"),
    "no name in CLIENT LIST": without("name"),
    "an empty CLIENT LIST": refuses("CLIENT", "LIST", reply=b"$0\r\n\r\n"),
}
LIMITS = {
    **NO_WORKERS,
    "no TYPE": refuses("CLIENT", "LIST", "TYPE"),
    "no INFO": refuses("INFO", reply=b"-NOPERM no permissions to run 'info'\r\n"),
    "only a version in INFO": refuses("INFO", reply=bulk("redis_version:7.0.0\r\n")),
    "an empty INFO": refuses("INFO", reply=b"$0\r\n\r\n"),
}
# The limits under which each command is tried.
TRIED = ("no CLIENT LIST", "no db in CLIENT LIST", "no TYPE", "no INFO", "only a version in INFO")
# Commands that need to know the workers: they fail, and say why and what to do.
NEED_WORKERS = (
    ("workers",),
    ("drain", "q", "--ready-timeout", "100ms", "--", "true"),
    ("drain", "q", "--then-restart"),
)
COMMANDS = (
    ("status",),
    ("queues",),
    ("impact",),
    ("impact", "q"),
    ("doctor",),
    ("metrics",),
    ("jobs", "list", "q", "--state", "active"),
    ("jobs", "list", "q", "--state", "stalled"),
    ("jobs", "show", "q", "a-stalled"),
    ("jobs", "failures", "q"),
    ("jobs", "tree", "q", "a-failed"),
    ("jobs", "logs", "q", "a-failed"),
    ("jobs", "retry", "q", "a-failed", "--yes"),
    ("jobs", "retry-stalled", "q", "--yes"),
    ("queues", "set", "q", "--concurrency", "3"),
    ("queues", "delete", "q", "--yes"),
    ("jobs", "retry-failed", "q", "--yes"),
    ("jobs", "promote", "q", "a-delayed"),
    ("jobs", "remove", "q", "a-failed", "--yes"),
    ("jobs", "cancel", "q", "a-delayed", "--yes"),
    ("jobs", "add", "q", "welcome"),
    ("purge", "q", "--state", "completed", "--yes"),
    ("pause", "q"),
    ("resume", "q"),
    ("events", "q"),
    ("schedules", "list"),
    ("wait", "q", "--for", "idle", "--timeout", "0"),
    ("wait", "q", "--for", "job=a-done"),
    ("drain", "q"),
    ("drain", "q", "--no-expect", "--", "true"),
    *NEED_WORKERS,
)


@pytest.fixture
def worker(redis_server: RedisServer, client: Client) -> Iterator[Client]:
    """A worker of the queue, as Redis shows it."""
    with contextlib.closing(connect(redis_server.url)[1]) as worker:
        worker.call("CLIENT", "SETNAME", client_name("bull", "q", "w"))
        yield worker


def fill(client: Client, words: Sequence[str] = ()) -> None:
    client.call("FLUSHALL")
    put(client, "a-waiting")
    if "drain" not in words:
        # A drain would wait until the lock expires.
        put(client, "a-running", "active", lock="token:1", processedOn=1)
    put(client, "a-stalled", "active", processedOn=1)
    put(client, "a-delayed", "delayed", score=2**52)
    put(client, "a-failed", "failed", score=1, failedReason="on purpose")
    put(client, "a-done", "completed", score=1, returnvalue="1")


def qctl(url: str, *words: str) -> Ran:
    return run(*words, QCTL_REDIS_URL=url, PM2_HOME="/nonexistent")


def answer_of(redis_server: RedisServer, limit: str, *words: str) -> Ran:
    with answering_proxy(redis_server.port, LIMITS[limit]) as url:
        return qctl(url, *words)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command(
    redis_server: RedisServer, client: Client, worker: Client, words: tuple[str, ...]
) -> None:
    """The exit code is that of an unlimited Redis, except where the workers must be known."""
    fill(client, words)
    usual = qctl(redis_server.url, *words)
    for limit in TRIED:
        fill(client, words)
        ran = answer_of(redis_server, limit, *words)
        if words in NEED_WORKERS and limit in NO_WORKERS:
            assert ran.code in {1, 5}, (limit, ran)
            assert "CLIENT LIST" in ran.err, (limit, ran)
            assert "try: " in ran.err, (limit, ran)
        else:
            assert ran.code == usual.code, (limit, ran, usual)
        assert "no worker is connected" not in ran.out + ran.err, (limit, ran)


@pytest.mark.parametrize("limit", LIMITS)
def test_the_workers(redis_server: RedisServer, client: Client, worker: Client, limit: str) -> None:
    fill(client)
    ran = answer_of(redis_server, limit, "status", "--json")
    (queue,) = json.loads(ran.out)["queues"]
    assert queue["workers"] == (None if limit in NO_WORKERS else 1)
    ran = answer_of(redis_server, limit, "metrics", "--json")
    (queue,) = json.loads(ran.out)["queues"]
    assert queue["workers"] == (None if limit in NO_WORKERS else 1)


@pytest.mark.parametrize("limit", [limit for limit in LIMITS if limit != "no TYPE"])
def test_impact_never_says_safe(
    redis_server: RedisServer, client: Client, worker: Client, limit: str
) -> None:
    """The queue has only completed jobs, so a restart would be safe if all were known."""
    put(client, "a-done", "completed", score=1, returnvalue="1")
    usual = qctl(redis_server.url, "impact", "q", "--json")
    assert json.loads(usual.out)["verdict"]["word"] == "safe"
    ran = answer_of(redis_server, limit, "impact", "q", "--json")
    verdict = json.loads(ran.out)["verdict"]
    assert verdict["word"] != "safe", verdict


def test_a_worker_without_a_name(redis_server: RedisServer, client: Client) -> None:
    """Not 0 workers, not safe, and no proof of a restart."""
    put(client, "a-done", "completed", score=1, returnvalue="1")
    with contextlib.closing(connect(redis_server.url)[1]) as nameless:
        nameless.call("BZPOPMIN", "bull:q:marker", "0.01")
        ran = qctl(redis_server.url, "status", "--json")
        assert json.loads(ran.out)["queues"][0]["workers"] is None
        ran = qctl(redis_server.url, "workers")
        assert "without a name" in ran.err
        ran = qctl(redis_server.url, "impact", "q", "--json")
        assert json.loads(ran.out)["verdict"]["word"] == "drain first"
        ran = qctl(redis_server.url, "impact", "--json")
        assert json.loads(ran.out)["verdict"]["word"] == "drain first"
        ran = qctl(redis_server.url, "drain", "q", "--", "true")
        assert (ran.code, "without a name" in ran.err) == (5, True)
    ran = qctl(redis_server.url, "status", "--json")
    assert json.loads(ran.out)["queues"][0]["workers"] == 0
