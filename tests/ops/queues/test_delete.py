"""The deletion of a queue: all its keys, nothing of any other, in short steps."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.connection.address import Address, Client, parse_url
from qctl.connection.connect import connect
from qctl.errors import (
    InterruptedByUserError,
    PartialError,
    RefusedError,
    ReplyError,
    UnreachableError,
)
from qctl.ops.queues.delete import Deletion
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import client_name
from qctl.wire.write.pausing import hold_lease, pause
from tests.labs.build import Q, holder, put
from tests.labs.bulk import child, top
from tests.labs.clients import Spy

# Their names begin like this queue's, or have characters with a meaning in patterns.
NEIGHBOURS = [
    QueueKeys("bull", "q2"),
    QueueKeys("bull", "q-old"),
    QueueKeys("bul", "q"),
    QueueKeys("bull", "[q]*"),
    QueueKeys("other", "q"),
]


def fill(client: Client, keys: QueueKeys, jobs: int = 3) -> None:
    """A queue with a key of every kind."""
    for n in range(jobs):
        put(client, f"j{n}", "wait", keys=keys)
        client.call("RPUSH", keys.logs(f"j{n}"), "row")
    put(client, "held", "active", keys=keys, lock="")
    put(client, "a:b", "delayed", keys=keys, score=1)
    put(client, "repeat:daily:1700000000000", "delayed", keys=keys, score=1)
    client.call("ZADD", keys("repeat"), 1, "daily")
    client.call("HSET", keys("repeat:daily"), "name", "n")
    client.call("SET", keys("de:once"), "j1")
    client.call("HSET", keys("metrics:completed"), "count", 1)
    client.call("RPUSH", keys("metrics:completed:data"), 1)
    client.call("XADD", keys("events"), "*", "event", "added")
    client.call("SET", keys("id"), 9)


def everything(client: Client) -> dict[str, Any]:
    return {key: client.call("DUMP", key) for key in client.call("KEYS", "*")}


@pytest.fixture
def address(redis_url: str) -> Address:
    return parse_url(redis_url)


def deletion(client: Client, address: Address, name: str = "q") -> Deletion:
    found = Deletion(client, address, "bull", name)
    for _ in found.count():
        pass
    return found


@pytest.mark.parametrize("name", ["q", "[q]*"])
def test_all_its_keys_are_deleted_and_no_other(client: Client, address: Address, name: str) -> None:
    for keys in {Q, *NEIGHBOURS} - {QueueKeys("bull", name)}:
        fill(client, keys)
    client.call("SET", "foreign", 1)
    client.call("SET", "bull:q", 1)
    before = everything(client)
    fill(client, QueueKeys("bull", name), jobs=1200)
    pause(client, QueueKeys("bull", name), holder("me"))
    found = deletion(client, address, name)
    list(found.delete())
    assert everything(client) == before
    report = found.report(dry_run=False)
    assert report.complete
    assert report.deleted == report.total


def test_keys_are_counted_by_kind(client: Client, address: Address) -> None:
    fill(client, Q)
    parent = top(client)
    child(client, (Q, "inside"), parent)
    report = deletion(client, address).report(dry_run=True)
    assert report.keys == {
        "jobs": 8, "logs": 3, "children": 1, "schedulers": 2, "deduplication": 1, "metrics": 2,
        "queue": 7,
    }  # fmt: skip
    assert (report.total, report.deleted, report.schedulers) == (24, 0, 1)
    assert (report.parents_elsewhere, report.children_elsewhere) == (0, 0)
    assert report.complete is False


def test_flows_that_reach_into_other_queues_are_counted(client: Client, address: Address) -> None:
    other = QueueKeys("bull", "q2")
    parent = top(client)
    child(client, (other, "down"), parent)
    put(client, "up", "waiting-children", keys=other, score=1)
    for n in range(3):
        child(client, (Q, f"c{n}"), (other, "up"))
    report = deletion(client, address).report(dry_run=True)
    assert (report.parents_elsewhere, report.children_elsewhere) == (3, 1)


@pytest.mark.parametrize("sign", ["meta", "id"])
def test_a_queue_whose_keys_begin_like_ours_is_refused(
    client: Client, address: Address, sign: str
) -> None:
    fill(client, Q)
    if sign == "meta":
        client.call("HSET", "bull:q:inner:meta", "version", "bullmq:6.7.0")
    else:
        client.call("SET", "bull:q:inner:id", 4)
    before = everything(client)
    with pytest.raises(RefusedError, match="queue inner@bull:q has keys that begin like those"):
        deletion(client, address)
    assert everything(client) == before


def test_a_job_whose_id_looks_like_a_queue_is_a_job(client: Client, address: Address) -> None:
    put(client, "x:meta")
    put(client, "x:id")
    list(deletion(client, address).delete())
    assert everything(client) == {}


def test_workers_are_refused(redis_url: str, client: Client, address: Address) -> None:
    put(client, "1")
    found = deletion(client, address)
    found.require_no_workers()
    _, worker = connect(redis_url)
    worker.call("CLIENT", "SETNAME", client_name("bull", "q", "w:1"))
    with pytest.raises(RefusedError, match="1 worker is connected to queue q") as refused:
        found.require_no_workers()
    assert "--ignore-workers" in refused.value.hint
    worker.close()


def test_a_running_job_is_refused_and_a_stalled_one_is_not(
    client: Client, address: Address
) -> None:
    put(client, "stalled", "active")
    deletion(client, address).require_no_workers()
    put(client, "runs", "active", lock="token")
    with pytest.raises(RefusedError, match="1 job of queue q may be running") as refused:
        deletion(client, address).require_no_workers()
    assert "until the locks of their jobs run out" in refused.value.hint


def test_unknown_workers_are_refused(
    client: Client, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1")
    monkeypatch.setattr("qctl.ops.queues.delete.list_workers", lambda *_: None)
    with pytest.raises(RefusedError, match="it is unknown whether workers"):
        deletion(client, address).require_no_workers()


def test_a_queue_that_a_drain_works_on_is_refused(client: Client, address: Address) -> None:
    put(client, "1")
    found = deletion(client, address)
    hold_lease(client, Q, holder("a drain", "drain"))
    for check in (found.require_no_workers, lambda: deletion(client, address)):
        with pytest.raises(RefusedError, match="queue q is being drained"):
            check()


def test_every_step_is_short(client: Client, address: Address) -> None:
    fill(client, Q, jobs=3000)
    spy = Spy(client)
    list(deletion(spy, address).delete())
    scans = [words for words in spy.sent if words[0] == "SCAN"]
    assert {words[-1] for words in scans} == {500}
    assert len(scans) > 10
    assert {words[0] for words in spy.sent}.isdisjoint({"KEYS", "DEL", "HGETALL", "SMEMBERS"})
    assert {len(words) for words in spy.sent if words[0] == "UNLINK"} == {2}


def test_an_interrupted_deletion_can_go_on(client: Client, address: Address) -> None:
    fill(client, Q, jobs=2000)
    polls = iter([False, False, False, True])
    found = deletion(client, address)
    with pytest.raises(InterruptedByUserError, match="interrupted"):
        list(found.delete(lambda: next(polls)))
    report = found.report(dry_run=False)
    assert 0 < report.deleted < report.total
    assert not report.complete
    # No worker takes a job any more, and the queue can still be found.
    assert client.call("EXISTS", Q("wait"), Q("active"), Q("delayed")) == 0
    assert client.call("EXISTS", Q("meta")) == 1
    list(deletion(client, address).delete())
    assert everything(client) == {}


def test_a_queue_that_others_create_again_is_reported(client: Client, address: Address) -> None:
    fill(client, Q)
    steps = (put(client, "new") for _ in deletion(client, address).delete())
    with pytest.raises(PartialError, match="was deleted, but exists again") as again:
        list(steps)
    assert "meta" in again.value.why
    assert "wait" in again.value.why


def test_an_outage_leaves_a_queue_that_can_be_deleted(client: Client, address: Address) -> None:
    fill(client, Q, jobs=2000)

    class Leaving(Spy):
        unlinks = 0

        def pipeline(self, commands: Any) -> list[Any]:
            self.unlinks += commands[0][0] == "UNLINK"
            if self.unlinks > 3:
                raise UnreachableError("Redis cannot be reached")
            return super().pipeline(commands)

    found = deletion(Leaving(client), address)
    with pytest.raises(PartialError, match="keys were deleted: Redis cannot be reached") as cut:
        list(found.delete())
    assert cut.value.hint == "run the same command again to delete the rest"
    list(deletion(client, address).delete())
    assert everything(client) == {}


def test_a_user_who_may_not_delete_deletes_nothing(
    redis_url: str, client: Client, address: Address
) -> None:
    fill(client, Q)
    before = everything(client)
    client.call("ACL", "SETUSER", "limited", "on", ">x", "~*", "&*", "+@all", "-unlink")
    try:
        _, limited = connect(redis_url.replace("redis://", "redis://limited:x@"))
        with pytest.raises(ReplyError) as refused:
            list(deletion(limited, address).delete())
        limited.close()
    finally:
        client.call("ACL", "DELUSER", "limited")
    assert refused.value.code == "NOPERM"
    assert everything(client) == before
