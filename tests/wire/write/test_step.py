"""A worker's step: the faster path for jobs whose hash has only the usual fields."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.wire import scripts
from qctl.wire.write import worker_calls
from tests.labs.build import Q, job, put

NOW = 1_700_000_000_000
PARENT = "bull:parents:top"


def step(client: Client, name: str, wanted: int, *done: str) -> Any:
    """A step that completes ``done``, which were fetched with only the usual fields."""
    groups = (1, "t", "-1||", 1, "", "1", len(done)) if done else (0,)
    jobs = [word for job_id in done for word in (job_id, "null")]
    options = worker_calls.step_options(name, None, None)
    words = (NOW, "t", 30_000, wanted, 0, *options, *groups, *jobs)
    return client.call(*worker_calls.step_head(Q), *words)


@pytest.mark.parametrize("name", ["", "w"])
@pytest.mark.parametrize(
    ("meanwhile", "code"),
    [
        ((), None),
        ([("HSET", Q("1"), "progress", "5")], None),
        ([("DEL", Q("1"))], worker_calls.MISSING),
        ([("SADD", Q("1:dependencies"), "bull:q:kid")], worker_calls.PENDING_CHILDREN),
        (
            [("ZADD", Q("1:unsuccessful"), 1, "bull:q:kid"), ("HSET", Q("1"), "defa", "failed")],
            worker_calls.FAILED_CHILDREN,
        ),
        # Left over from an earlier job with this id: the child's failure has not marked this job.
        ([("ZADD", Q("1:unsuccessful"), 1, "bull:q:kid")], None),
    ],
    ids=["nothing", "a field", "deleted", "a child", "a failed child", "a child of another"],
)
def test_what_happened_to_a_plain_job_while_it_ran(
    client: Client, name: str, meanwhile: list[tuple[str, ...]], code: int | None
) -> None:
    client.call("SCRIPT", "LOAD", scripts.source("settle_and_fetch"))
    put(client, "1")
    (_, (_, row), *_) = step(client, name, 1)
    assert len(row) == 6
    for command in meanwhile:
        client.call(*command)
    codes, *_ = step(client, name, 0, "1")
    assert codes == ([] if code is None else [1, code])
    assert client.call("ZRANGE", Q("completed"), 0, -1) == ([] if code else ["1"])


def test_a_plain_job_that_got_a_parent_while_it_ran_tells_the_parent(client: Client) -> None:
    client.call("SCRIPT", "LOAD", scripts.source("settle_and_fetch"))
    put(client, "1")
    step(client, "w", 1)
    client.call("HSET", PARENT, "name", "top")
    client.call("SADD", f"{PARENT}:dependencies", Q("1"))
    parent = '{"id":"top","queueKey":"bull:parents"}'
    client.call("HSET", Q("1"), "parentKey", PARENT, "parent", parent)
    assert step(client, "w", 0, "1")[0] == []
    assert job(client, "1")["returnvalue"] == "null"
    assert client.call("HGETALL", f"{PARENT}:processed") == [Q("1"), "null"]


def test_old_markers_among_the_ids_are_dropped(client: Client) -> None:
    for job_id in ("1", "0:17", "2", "0:0", "3", "07"):
        put(client, job_id)
    client.call("SCRIPT", "LOAD", scripts.source("settle_and_fetch"))
    fetched = step(client, "w", 5)[1]
    assert fetched[::2] == ["1", "2", "3"]
    assert client.call("LRANGE", Q("active"), 0, -1) == ["3", "2", "1"]
