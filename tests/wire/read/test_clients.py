"""Workers are found by the names of their connections (wire format 7.1)."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.config.prefixes import only, parse_prefixes
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ReplyError
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import (
    WorkerClient,
    client_name,
    list_all_workers,
    list_workers,
    parse_workers,
)
from tests.labs.build import Q
from tests.labs.servers import RedisServer

# Redis allows no blanks and no control characters in a connection's name.
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
QUEUE_NAMES = st.text(min_size=1, max_size=20).filter(lambda name: ":" not in name)


class Listing:
    """A Redis that has nothing but a list of clients."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines

    def call(self, *command: Any, timeout_s: float = 0.0) -> Any:  # noqa: ARG002
        assert command[:2] == ("CLIENT", "LIST")
        return "".join(f"{line}\n" for line in self.lines)

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        assert list(commands) == [("INFO", "replication")]
        return ["role:master"]

    def masters(self) -> Sequence[Client]:
        return [self]

    def close(self) -> None:
        pass


def line(name: str, number: int = 7, db: int = 0) -> str:
    return (
        f"id={number} addr=10.0.0.1:5{number} fd=8 name={name} age=60 idle=2 flags=b db={db} cmd=x"
    )


@given(PRINTABLE, QUEUE_NAMES, st.none() | PRINTABLE)
def test_names_round_trip(prefix: str, queue: str, worker: str | None) -> None:
    found = list_workers(Listing(line(client_name(prefix, queue, worker))), prefix, [queue])
    assert found == [WorkerClient(QueueKeys(prefix, queue), worker, 7, "10.0.0.1:57", 60, 2, "x")]


@given(PRINTABLE)
def test_any_foreign_name_is_read_without_an_error(name: str) -> None:
    list_workers(Listing(line(name), line(f"bull:{name}"), ""), "bull", ["q"])


def test_the_name_is_the_one_that_bullmq_gives() -> None:
    encoded = base64.b64encode(b"mail").decode()
    assert client_name("bull", "mail") == f"bull:{encoded}"
    assert client_name("bull", "mail", "a:b") == f"bull:{encoded}:w:a:b"


@pytest.mark.parametrize("prefix", ["my app", "büll"])
def test_under_some_prefixes_nobody_can_tell(redis_url: str, prefix: str) -> None:
    with contextlib.closing(connect(redis_url)[1]) as client:
        with pytest.raises(ReplyError, match="CLIENT SETNAME"):
            client.call("CLIENT", "SETNAME", client_name(prefix, "q"))
        assert list_workers(client, prefix, ["q"]) is None


def test_only_workers_of_this_prefix_and_database() -> None:
    name = client_name("bull", "mail")
    listing = Listing(
        line(name, 1),
        line(f"{name}:qe", 2),
        line(client_name("other", "mail"), 3),
        line(client_name("bull:x", "mail"), 4),
        line(name, 5, db=1),
        line("", 6),
    )
    found = list_workers(listing, "bull", ["mail"])
    assert found is not None
    assert [worker.client_id for worker in found] == [1]


def test_workers_of_all_prefixes_and_what_no_drain_reaches() -> None:
    mail, raw = QueueKeys("{mail}", "mail"), QueueKeys("h:q", "my_queue")
    listing = Listing(
        line(client_name(*astuple(mail), "w1"), 1),
        line(client_name("host:queue:mail", "mail"), 2),
        line("h:q:my_queue:w:me", 3),
        line("staging:mail", 4),
        line(client_name("bull", "mail"), 5, db=1),
        line(f"{client_name('bull', 'mail')}:qe", 6),
        # What the client of BullMQ uses to learn about changes of a cluster.
        line(f"ioredis-cluster(refresher):{client_name('{mail}', 'mail', 'w1')}", 7),
        line(f"ioredis-cluster(subscriber):{client_name('{mail}', 'mail')}", 8, db=1),
    )
    found = list_all_workers(listing, [raw])
    assert found is not None
    assert [(worker.keys, worker.worker_name) for worker in found.workers] == [
        (mail, "w1"),
        (QueueKeys("host:queue:mail", "mail"), None),
        (raw, "me"),
    ]
    # A plain name of a queue that nobody knows, and another database.
    assert [str(worker) for _, worker in found.foreign] == [
        "staging:mail (database 0)",
        "mail (prefix bull, database 1)",
    ]


@pytest.mark.parametrize("patterns", [["*"], ["stag*"]])
def test_a_plain_name_is_no_worker_of_a_pattern(patterns: list[str]) -> None:
    listing = [f"{line('staging:mail')}\n{line(client_name('staging', 'mail'), 8)}"]
    found = parse_workers(listing, parse_prefixes(patterns))
    assert found is not None
    assert [worker.client_id for worker in found] == [8]


def test_raw_names_of_the_python_port() -> None:
    found = list_workers(Listing(line("bull:my_queue"), line("bull:mail", 8)), "bull", ["my_queue"])
    assert found is not None
    # "mail" happens to be valid base64 of something that is no text; nobody knows that queue.
    assert [worker.queue for worker in found if worker.queue == "my_queue"] == ["my_queue"]


@pytest.mark.parametrize("queue", ["mail", "abcd"])
def test_a_raw_name_that_looks_like_base64(queue: str) -> None:
    found = list_workers(Listing(line(f"bull:{queue}")), "bull", [queue])
    assert found is not None
    assert [worker.queue for worker in found] == [queue]


def test_a_connection_without_a_name_that_waits_for_jobs_may_serve_any_queue() -> None:
    waiting = line("").replace("cmd=x", "cmd=bzpopmin")
    found = parse_workers([f"{waiting}\n{line(client_name('bull', 'mail'), 8)}"], only("bull"))
    assert found is not None
    assert (len(found), found.any_queue) == (1, 1)
    assert found.of(QueueKeys("bull", "sms"), running=0) is None
    # It may serve this queue too, but then the queue has workers in any case.
    mail = found.of(QueueKeys("bull", "mail"), running=1)
    assert mail is not None
    assert [worker.client_id for worker in mail] == [8]


def test_other_connections_without_a_name_are_no_workers() -> None:
    elsewhere = line("", db=1).replace("cmd=x", "cmd=bzpopmin")
    found = parse_workers([f"{line('')}\n{elsewhere}"], only("bull"))
    assert found is not None
    assert (found.any_queue, found.of(Q, running=1)) == (0, [])


def test_a_locked_job_without_a_worker_in_a_cluster() -> None:
    """BullMQ before 5.80 does not name the connections of its workers there."""
    found = parse_workers([line(""), line("", 8)], only("bull"))
    assert found is not None
    assert (found.of(Q, running=1), found.of(Q, running=0)) == (None, [])


@pytest.mark.parametrize("listed", ["", "OK", "id=7 addr=1.2.3.4:5 name= cmd=client"])
def test_an_incomplete_list_shows_nothing(listed: str) -> None:
    assert parse_workers([listed], only("bull")) is None
    assert parse_workers([line(client_name("bull", "q")), listed], only("bull")) is None


def test_real_connections(redis_url: str, client: Client) -> None:
    with contextlib.closing(connect(redis_url)[1]) as worker:
        worker.call("CLIENT", "SETNAME", client_name("bull", "über/queue", "w:1"))
        found = list_workers(client, "bull")
        assert found is not None
        assert [(w.queue, w.worker_name) for w in found] == [("über/queue", "w:1")]
        assert found[0].client_id == worker.call("CLIENT", "ID")
    assert list_workers(client, "other") == []


def test_none_when_redis_does_not_grant_the_list(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    with contextlib.closing(connect(server.url)[1]) as admin:
        admin.call("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+ping", "+scan")
        admin.call("ACL", "SETUSER", "lister", "on", ">pw", "~*", "+client|list")
        admin.call("ACL", "SETUSER", "both", "on", ">pw", "~*", "+client|list", "+info")
    with contextlib.closing(connect(server.url_for("reader", "pw"))[1]) as reader:
        assert list_workers(reader, "bull") is None
    with contextlib.closing(connect(server.url_for("lister", "pw"))[1]) as lister:
        # It may be a replica, to which no worker connects.
        assert list_workers(lister, "bull") is None
    with contextlib.closing(connect(server.url_for("both", "pw"))[1]) as both:
        assert list_workers(both, "bull") == []


def test_other_errors_are_not_swallowed() -> None:
    class Broken(Listing):
        def call(self, *command: Any, timeout_s: float = 0.0) -> Any:  # noqa: ARG002
            raise ReplyError("LOADING Redis is loading the dataset in memory")

    with pytest.raises(ReplyError):
        list_workers(Broken(), "bull")


@pytest.mark.parametrize("field", ["db", "id", "age", "idle"])
def test_a_list_with_a_number_that_cannot_be_read_is_unknown(field: str) -> None:
    text = re.sub(rf"\b{field}=\d+", f"{field}=x", line("bull:cQ=="))
    assert parse_workers([text], only("bull"), [Q]) is None


def test_a_name_of_many_parts_takes_no_quadratic_time() -> None:
    # 10**5 parts: with a copy of the name for each of them, this would take half a minute.
    assert parse_workers([line("a" + ":w:" * 100_000)], only("bull"), [Q]) == []
