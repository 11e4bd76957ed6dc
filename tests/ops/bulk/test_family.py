"""A flow is deleted from the bottom up, and what is left of it after any end is a flow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import InterruptedByUserError, QctlError
from qctl.ops.bulk.actions import Selection, removing
from qctl.ops.bulk.family import MAX_LEVELS
from qctl.ops.bulk.model import BulkReport
from qctl.ops.bulk.run import BulkRun
from qctl.output.bulk import bulk_progress
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q, events, put, row, scores
from tests.labs.bulk import Leaving, child, top

OTHER = QueueKeys("bull", "other")


def tree(store: Client) -> set[str]:
    """Three levels in two queues, with children that wait, have ended, and are the only one."""
    root = top(store)
    kids = [child(store, (OTHER, f"c{n}"), root) for n in range(3)]
    child(store, (Q, "done"), root, "completed", ended="processed")
    child(store, (Q, "ignored"), root, "failed", ended="failed")
    child(store, (Q, "lost"), root, "failed", ended="unsuccessful")
    only = child(store, (OTHER, "only"), root, "waiting-children")
    below = child(store, (Q, "below"), only, "waiting-children")
    child(store, (OTHER, "leaf"), below)
    many = child(store, (Q, "many"), root, "waiting-children")
    more = [child(store, (Q, f"m{n}"), many) for n in range(4)]
    child(store, (Q, "m-done"), many, "completed", ended="processed")
    return {keys(job_id) for keys, job_id in (root, *kids, only, below, many, *more)} | {
        *(Q(name) for name in ("done", "ignored", "lost", "m-done")),
        OTHER("leaf"),
    }


def carried_out(store: Client, *ids: str, **options: Any) -> BulkReport:
    run = BulkRun(store, Q, removing(with_children=True), Selection(ids=ids), len(ids), **options)
    for _ in run:
        pass
    return run.report()


def reached(store: Client, key: str) -> Iterator[str]:
    """The keys of all jobs that are there from one on down."""
    if store.call("EXISTS", key):
        yield key
        for name, command in (("dependencies", "SMEMBERS"), ("processed", "HKEYS")):
            for below in store.call(command, f"{key}:{name}"):
                yield from reached(store, below)
        for below in store.call("HKEYS", f"{key}:failed"):
            yield from reached(store, below)
        for below in store.call("ZRANGE", f"{key}:unsuccessful", 0, -1):
            yield from reached(store, below)


def there(store: Client, jobs: set[str]) -> set[str]:
    return {key for key in jobs if store.call("EXISTS", key)}


def assert_nothing_left(store: Client, jobs: set[str]) -> None:
    assert there(store, jobs) == set()
    for keys in (Q, OTHER):
        assert row(store, "wait", keys) == []
        assert store.call("ZCARD", keys("waiting-children")) == 0
        assert store.call("ZCARD", keys("completed")) == 0
        assert store.call("ZCARD", keys("failed")) == 0
    left = {key for key in store.call("KEYS", "bull:*") if key.rsplit(":", 1)[1] != "meta"}
    assert left <= {Q("events"), OTHER("events")}


def test_all_of_it_goes_bottom_up(store: Client) -> None:
    jobs = tree(store)
    report = carried_out(store, "top")
    assert (report.done, report.below_count, report.skipped_count) == (1, len(jobs) - 1, 0)
    assert_nothing_left(store, jobs)
    told = [*events(store), *events(store, OTHER)]
    assert {event["event"] for event in told} == {"removed"}
    assert len(told) == len(jobs)


@pytest.mark.parametrize("scripts", range(20))
def test_whatever_ends_it_what_is_left_is_a_flow(client: Client, scripts: int) -> None:
    """A kill at each point is the same to Redis as a connection that ends behind each script."""
    jobs = tree(client)
    is_over = False
    try:
        carried_out(Leaving(client, scripts), "top")
        is_over = True
    except QctlError:
        left = there(client, jobs)
        assert left == set(reached(client, Q("top")))
        waiting = {
            Q: scores(client, "waiting-children"),
            OTHER: scores(client, "waiting-children", OTHER),
        }
        for keys, job_id in ((Q, "top"), (Q, "many"), (OTHER, "only"), (Q, "below")):
            # Each parent waits on, for a child that is there, or is gone itself.
            if keys(job_id) in left:
                assert job_id in waiting[keys]
                pending = client.call("SMEMBERS", keys(f"{job_id}:dependencies"))
                assert pending
                assert set(pending) <= left
        assert carried_out(client, "top").done == 1
    assert_nothing_left(client, jobs)
    # It takes fewer scripts than are tried here, so that every end was tried.
    assert is_over or scripts < 19


def test_a_job_that_a_worker_takes_meanwhile_stays_and_its_parents_too(store: Client) -> None:
    jobs = tree(store)

    class Taking(Leaving):
        """A worker takes m2 after the look at all of them."""

        def call(self, *command: Any, timeout_s: float = 0.0) -> Any:
            if command[0] == "EVALSHA":
                self._left -= 1
                if self._left == 1:
                    self.inner.call("LREM", Q("wait"), 1, "m2")
                    self.inner.call("LPUSH", Q("active"), "m2")
                    self.inner.call("SET", Q.lock("m2"), "t:1", "PX", 30_000)
            return self.inner.call(*command, timeout_s=timeout_s)

    report = carried_out(Taking(store, 3), "top")
    assert report.done == 0
    assert report.below_count == len(jobs) - 3
    assert there(store, jobs) == {Q("top"), Q("many"), Q("m2")}
    assert [skipped.id for skipped in report.skipped] == ["top"]
    assert (
        report.skipped[0].reason == "1 job below it could not be deleted: m2 of q (a worker has it)"
    )
    assert store.call("SMEMBERS", Q("top:dependencies")) == [Q("many")]
    # The worker ends, and all goes on as usual: the rest is deleted later.
    store.call("DEL", Q.lock("m2"))
    assert carried_out(store, "top").below_count == 2
    assert_nothing_left(store, jobs)


def test_before_anything_is_touched_all_of_it_is_looked_at(store: Client) -> None:
    root = top(store)
    for n in range(5):
        child(store, (OTHER, f"c{n}"), root)
    inner = child(store, (Q, "inner"), root, "waiting-children")
    child(store, (Q, "busy"), inner, "active", lock="t:1")
    assert carried_out(store, "top").skipped[0].reason == "a worker has one of its children"
    assert len(list(reached(store, Q("top")))) == 8
    # So is the parent itself.
    put(store, "p", "active", lock="t:1")
    child(store, (Q, "p-c"), (Q, "p"))
    assert carried_out(store, "p").skipped[0].reason == "a worker has it"
    assert store.call("EXISTS", Q("p-c")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"parentKey": "bull:q:another", "parent": '{"id":"another","queueKey":"bull:q"}'},
        {"parentKey": "bull:q:top", "parent": '{"id":"q:top","queueKey":"bull"}'},
        {"parentKey": "bull:q:top", "parent": '{"id":"another","queueKey":"bull:q"}'},
    ],
    ids=["none", "another", "same key", "says another"],
)
def test_a_job_that_took_over_a_childs_id_stays(store: Client, fields: dict[str, str]) -> None:
    root = top(store)
    child(store, (Q, "own"), root)
    for noted, command in (("processed", "HSET"), ("failed", "HSET"), ("dependencies", "SADD")):
        put(store, f"new-{noted}", **fields)
        values = [Q(f"new-{noted}"), "1"] if command == "HSET" else [Q(f"new-{noted}")]
        store.call(command, Q(f"top:{noted}"), *values)
    report = carried_out(store, "top")
    is_own = fields.get("parent") == '{"id":"q:top","queueKey":"bull"}'
    assert (report.done, report.below_count) == (1, 4 if is_own else 1)
    left = {Q(f"new-{name}") for name in ("processed", "failed", "dependencies")}
    assert there(store, left | {Q("top"), Q("own")}) == (set() if is_own else left)


def test_the_parent_of_the_whole_goes_on_without_it(store: Client) -> None:
    above = top(store, "above")
    root = child(store, (Q, "top"), above, "waiting-children")
    child(store, (Q, "c"), root)
    assert carried_out(store, "top").done == 1
    assert row(store, "wait") == ["above"]


def test_a_long_chain_goes_and_a_longer_one_is_told(client: Client) -> None:
    def chain(name: str, length: int) -> None:
        parent = top(client, name)
        for n in range(length):
            where = "waiting-children" if n < length - 1 else "wait"
            parent = child(client, (Q, f"{name}-{n}"), parent, where)

    chain("short", MAX_LEVELS)
    chain("long", MAX_LEVELS + 2)
    report = carried_out(client, "short", "long")
    assert (report.sample, report.below_count) == (("short",), MAX_LEVELS)
    assert report.skipped[0].reason == "jobs below it are nested more than 100 deep"
    assert row(client, "wait") == [f"long-{MAX_LEVELS + 1}"]


def test_parents_of_each_other_are_no_endless_flow(store: Client) -> None:
    child(store, (Q, "a"), (Q, "b"), "waiting-children")
    child(store, (Q, "b"), (Q, "a"), "waiting-children")
    report = carried_out(store, "a")
    assert report.done + report.skipped_count == 1


def test_it_ends_between_two_calls_and_tells_what_is_gone(client: Client) -> None:
    root = top(client)
    for n in range(300):
        child(client, (Q, f"c{n}"), root)
    run: BulkRun

    def stop() -> bool:
        return run.report().below_count > 20

    run = BulkRun(client, Q, removing(with_children=True), Selection(ids=("top",)), 1, stop=stop)
    with pytest.raises(InterruptedByUserError) as caught:
        list(run)
    gone = run.report().below_count
    assert 20 < gone < 300
    assert f"{gone} jobs were removed before" in caught.value.why
    assert client.call("SCARD", Q("top:dependencies")) == 300 - gone == len(row(client, "wait"))
    assert carried_out(client, "top").below_count == 300 - gone


def test_children_that_are_gone_count_whenever_it_ends(client: Client) -> None:
    """It ends between two calls for the children of one parent, of which the first was all."""
    root = top(client)
    for n in range(60):
        child(client, (Q, f"c{n}"), root)
    run = BulkRun(
        client, Q, removing(with_children=True), Selection(ids=("top",)), 1,
        stop=lambda: len(row(client, "wait")) < 60,
    )  # fmt: skip
    with pytest.raises(InterruptedByUserError) as caught:
        list(run)
    gone = 60 - len(row(client, "wait"))
    assert run.report().below_count == gone
    # Shown while the flow is still being deleted.
    assert bulk_progress(run.progress()) == f"1 of 1 scanned, 0 match, 0 done, {gone} below them"
    assert f"{gone} job" in caught.value.why


def test_flows_that_are_gone_count_whenever_it_ends(store: Client) -> None:
    tops = [f"top{n}" for n in range(4)]
    for job_id in tops:
        put(store, job_id, "waiting-children")
        child(store, (Q, f"{job_id}-child"), (Q, job_id))
    run = BulkRun(
        store, Q, removing(with_children=True), Selection(state="waiting-children"), 4,
        stop=lambda: store.call("ZCARD", Q("waiting-children")) == 2,
    )  # fmt: skip
    with pytest.raises(InterruptedByUserError) as caught:
        list(run)
    report = run.report()
    assert (report.done, report.below_count, report.matched) == (2, 2, 2)
    assert caught.value.why == "4 jobs were removed before"


def test_a_dry_run_tells_the_same(store: Client) -> None:
    jobs = tree(store)
    foreseen = carried_out(store, "top", dry_run=True)
    assert there(store, jobs) == jobs
    done = carried_out(store, "top")
    assert foreseen.below_count == done.below_count == len(jobs) - 1
    assert foreseen.sample == done.sample == ("top",)
