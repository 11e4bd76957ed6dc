"""Reading with few rights, and next to BullMQ's own view of its workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from qctl.config.prefixes import EVERY_PREFIX
from qctl.connection.connect import connect
from qctl.errors import ReplyError
from qctl.wire.events import last_event_id, read_events
from qctl.wire.jobs import read_jobs
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import this_process
from qctl.wire.read.clients import list_workers
from qctl.wire.read.discovery import survey
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from qctl.wire.write.pausing import pause
from tests.labs.jobs import discovered
from tests.labs.node import NodeBull
from tests.labs.servers import RedisServer, wait_until

Q = QueueKeys("bull", "q")
READER = ("+@read", "+ping", "+scan")


@pytest.fixture
def guarded(
    start_redis: Callable[..., RedisServer], node_bull: Callable[..., NodeBull]
) -> RedisServer:
    """A Redis with users, a queue with a running, a waiting and a delayed job, and two workers."""
    server = start_redis()
    bull = node_bull(6, port=server.port)
    bull.start_worker("q", name="mailer")
    running = bull.add("q", {"ms": 60_000})
    wait_until(lambda: bull.state("q", running) == "active", "a running job")
    bull.add("q", delay=3_600_000)
    bull.start_worker("other")
    with contextlib.closing(connect(server.url)[1]) as admin:
        for name, *rules in (
            ("reader", "~*", *READER),
            ("lister", "~*", *READER, "+client|list"),
            ("fenced", "~bull:*", *READER),
            ("blind", "~nothing:*", *READER),
        ):
            admin.call("ACL", "SETUSER", name, "on", ">pw", *rules)
    return server


@pytest.mark.parametrize("user", ["reader", "lister", "fenced"])
def test_a_user_who_may_only_read(guarded: RedisServer, user: str) -> None:
    with contextlib.closing(connect(guarded.url_for(user, "pw"))[1]) as client:
        assert discovered(client, "bull") == ["other", "q"]
        assert {queue.prefix for queue in survey(client, EVERY_PREFIX).queues} == {"bull"}
        (found,) = read_snapshots(client, [Q])
        assert isinstance(found, QueueSnapshot), found
        assert (found.counts.active, found.counts.stalled, found.counts.delayed) == (1, 0, 1)
        (job,) = read_jobs(client, Q, found.active_ids)
        assert job is not None
        assert job.lock_ttl_ms
        assert job.record.worker == "mailer"
        assert last_event_id(client, Q) != "0-0"
        assert read_events(client, {Q: "0-0"})
        workers = list_workers(client, "bull")
        if user == "lister":
            assert workers is not None
            assert sorted(worker.queue for worker in workers) == ["other", "q"]
        else:
            assert workers is None
        with pytest.raises(ReplyError) as caught:
            pause(client, Q, this_process("pause"))
        assert caught.value.code == "NOPERM"
        assert caught.value.hint


def test_a_user_without_these_keys(guarded: RedisServer) -> None:
    with contextlib.closing(connect(guarded.url_for("blind", "pw"))[1]) as client:
        (found,) = read_snapshots(client, [Q])
        assert isinstance(found, ReplyError)
        assert found.code == "NOPERM"


@pytest.mark.parametrize("name", [None, "mailer", "a:b/c", "w:w:w"])
def test_workers_are_those_that_bullmq_sees(
    name: str | None, bullmq: NodeBull, redis_url: str
) -> None:
    queue = "über/queue+name"
    options = {} if name is None else {"name": name}
    handles = [bullmq.start_worker(queue, **options) for _ in range(2)]
    bullmq.start_worker("another")
    bullmq.listen(queue)
    with contextlib.closing(connect(redis_url)[1]) as client:
        wait_until(lambda: len(bullmq.workers(queue)) == 2, "BullMQ to list both workers")
        theirs = {(row["addr"], int(row["id"])) for row in bullmq.workers(queue)}
        found = [w for w in list_workers(client, "bull") or [] if w.queue == queue]
        assert {(worker.address, worker.client_id) for worker in found} == theirs
        assert {worker.worker_name for worker in found} == {name}
        assert list_workers(client, "other") == []
        bullmq.close_worker(handles[0])
        wait_until(
            lambda: sum(w.queue == queue for w in list_workers(client, "bull") or []) == 1,
            "one worker to leave the list",
        )
