"""The same jobs, run by a BullMQ 6 worker under one prefix and by a qctl worker under another:
they leave the same keys.

What may differ, and is taken out before the comparison: points in time and what is counted by the
minute, the marker (a qctl worker that stops may leave one, which wakes another for nothing), ids in
the event stream, the text of stack traces (not their number), the worker's name in ``pb`` (qctl's
always have one), and the words of the two failures that the worker itself finds.

With delays in play the order of different jobs depends on the clock; then the events are compared
job by job, and ``drained``, which depends on it too, is left out.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from qctl import Worker
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import to_dict
from tests.interop import py_worker as py
from tests.labs.node import NodeBull
from tests.labs.servers import wait_until

TIMES = {"timestamp", "processedOn", "finishedOn", "prevTS", "prevCount"}
BY_TIME = {"completed", "failed", "waiting-children", "delayed"}
OWN_WORDS = {
    "cannot complete: it has pending children": (
        r"Job \S+ has pending dependencies\. moveToFinished"
    ),
    "cannot complete: it has failed children": (
        r"Cannot complete job \S+ because it has at least one failed child\. moveToFinished"
    ),
}
QUEUES = ("children", "q")
# Parents that fail with a child do not sleep, so two of them may end in one millisecond; then it is
# chance which of them a count keeps.
TRIES = 30
_numbers = itertools.count()

keep = [None, True, False, 0, 1, {"count": 2}, {"age": 3600}, "true", ""]
backoffs = [None, 0, {"type": "fixed", "delay": 3}, {"type": "exponential", "delay": 1}]
CONTINUE = "continueParentOnFailure"
policies = [
    None, CONTINUE, "failParentOnFailure", "ignoreDependencyOnFailure", "removeDependencyOnFailure",
]  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.just("progress"), st.sampled_from([5, "half", {"a": [1]}, None])),
        st.tuples(st.just("log"), st.sampled_from(["a row", "ü", ""])),
        st.tuples(st.just("data"), st.sampled_from([{"ms": 1}, {"fail_times": 1}])),
    ),
    max_size=3,
)


@st.composite
def payloads(draw: st.DrawFn) -> dict[str, Any]:
    data: dict[str, Any] = {"fail_times": draw(st.sampled_from([0, 0, 0, 1, 2, 9]))}
    # Some time, so that no two jobs end in one millisecond: what a count keeps would be chance.
    data["steps"] = [["sleep", 2], *map(list, draw(steps))]
    if draw(st.integers(0, 5)) == 0:
        data["steps"].append(["unrecoverable", "never again"])
    data["returns"] = draw(st.sampled_from([None, 1, "x/y", {"b": [], "a": {}}, "ü\n\x01", 0.5]))
    return data


@st.composite
def options(draw: st.DrawFn, mode: str) -> dict[str, Any]:
    # Where it is chance which job ends first, so is what a count keeps.
    keeps = st.sampled_from(keep if mode == "counts" else keep[:4])
    timed = mode == "times"
    chosen = {
        "attempts": draw(st.sampled_from([None, 0, 1, 2, 3])),
        "backoff": draw(st.sampled_from(backoffs if timed else backoffs[:2])),
        "priority": draw(st.sampled_from([None, None, 1, 1, 7])),
        "delay": draw(st.sampled_from([None, None, 4] if timed else [None])),
        "lifo": draw(st.sampled_from([None, None, True])),
        "removeOnComplete": draw(keeps),
        "removeOnFail": draw(keeps),
        "stackTraceLimit": draw(st.sampled_from([None, None, 0, 1])),
        "keepLogs": draw(st.sampled_from([None, 1])),
    }
    return {key: value for key, value in chosen.items() if value is not None}


@st.composite
def plain_jobs(draw: st.DrawFn, mode: str) -> dict[str, Any]:
    opts = draw(options(mode))
    dedup = draw(st.sampled_from([None, None, None, {"id": "d"}, {"id": "e", "ttl": 60_000},
                                  {"id": "d", "keepLastIfActive": True}]))  # fmt: skip
    if dedup:
        opts["deduplication"] = dedup
    return {"name": draw(st.sampled_from(["a", "b"])), "data": draw(payloads()), "opts": opts}


@st.composite
def flows(draw: st.DrawFn, mode: str, depth: int = 2) -> dict[str, Any]:
    node = {
        "name": "node", "queueName": draw(st.sampled_from(QUEUES)) if depth < 2 else "q",
        "data": draw(payloads()), "opts": draw(options(mode)),
    }  # fmt: skip
    allowed = [policy for policy in policies if mode != "times" or policy != CONTINUE]
    if depth < 2 and (policy := draw(st.sampled_from(allowed))):
        node["opts"][policy] = True
    if depth and (depth == 2 or draw(st.booleans())):
        children = draw(st.lists(flows(mode, depth - 1), min_size=1, max_size=3))
        node["children"] = children
        # Children of a node in "children" are there too, as that queue is worked off first.
        if node["queueName"] == "children":
            for child in children:
                child["queueName"] = "children"
    return node


# What is in play besides the rest: counts to keep and parents that go on early, or points in time.
MODES = ("counts", "times")


def some_jobs(mode: str) -> st.SearchStrategy[tuple[str, list[dict[str, Any]]]]:
    """A mode and jobs of it."""
    each = st.one_of(plain_jobs(mode), plain_jobs(mode), flows(mode))
    return st.tuples(st.just(mode), st.lists(each, min_size=1, max_size=5))


def named(node: dict[str, Any], ids: Any) -> dict[str, Any]:
    """A flow with ids of its own instead of random ones."""
    return {
        **node,
        "opts": {**node["opts"], "jobId": f"n{next(ids)}"},
        "children": [named(child, ids) for child in node.get("children", [])],
    }


def add_all(bull: NodeBull, prefix: str, rows: list[dict[str, Any]]) -> None:
    ids = itertools.count()
    for row in rows:
        if "queueName" in row:
            bull.add_flow(named(row, ids), prefix=prefix)
        else:
            bull.queue("q", "add", row["name"], row["data"], row["opts"], prefix=prefix)


def is_idle(client: Client, keys: QueueKeys) -> bool:
    # The marker goes when the worker has looked once more.
    places = ("wait", "active", "prioritized", "delayed", "marker")
    return not client.call("EXISTS", *map(keys, places))


def work_off(bull: NodeBull, client: Client, prefix: str, queue: str) -> None:
    handle = bull.start_worker(
        queue, prefix=prefix, drainDelay=1, metrics={"maxDataPoints": 60}, concurrency=1
    )
    wait_until(lambda: is_idle(client, QueueKeys(prefix, queue)), "Node to be idle", every_s=0.002)
    bull.close_worker(handle)


async def work_off_here(url: str, client: Client, prefix: str, queue: str) -> None:
    worker = Worker(queue, prefix=prefix, redis_url=url, metrics_minutes=60)
    worker.task()(py.scripted(client))
    await worker.start()
    async with asyncio.timeout(20):
        while not is_idle(client, QueueKeys(prefix, queue)):
            await asyncio.sleep(0.002)
    await worker.stop()


def dump(client: Client, prefix: str, *, by_job: bool) -> dict[str, Any]:
    """All that is there under a prefix, without what may differ."""
    found: dict[str, Any] = {}
    for key in client.call("KEYS", f"{prefix}:*"):
        queue, _, suffix = key.removeprefix(f"{prefix}:").partition(":")
        match client.call("TYPE", key):
            case "hash":
                value: Any = fields(to_dict(client.call("HGETALL", key)))
            case "list":
                value = client.call("LRANGE", key, 0, -1)
            case "set":
                value = sorted(client.call("SMEMBERS", key))
            case "zset" if suffix in BY_TIME or suffix.endswith(":unsuccessful"):
                value = sorted(client.call("ZRANGE", key, 0, -1))
            case "zset":
                value = client.call("ZRANGE", key, 0, -1, "WITHSCORES")
            case "stream":
                rows = [to_dict(flat) for _, flat in client.call("XRANGE", key, "-", "+")]
                value = events(rows, by_job=by_job)
            case _ if suffix == "stalled-check":
                continue
            case _:
                value = client.call("GET", key)
        if suffix == "marker" or (suffix.startswith("metrics:") and suffix.endswith(":data")):
            continue
        text = json.dumps(value).replace(f"{prefix}:", "P:")
        for ours, theirs in OWN_WORDS.items():
            text = re.sub(theirs, ours, text)
        found[f"{queue}:{suffix}"] = json.loads(text)
    return found


def fields(record: dict[str, str]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: record[key] for key in record if key not in TIMES | {"pb"}}
    if "stacktrace" in record:
        kept["stacktrace"] = len(json.loads(record["stacktrace"]))
    return kept


def events(rows: list[dict[str, str]], *, by_job: bool) -> Any:
    rows = [{key: row[key] for key in row if key != "delay"} for row in rows]
    if not by_job:
        return releases_last(rows)
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["event"] != "drained":
            found.setdefault(row["jobId"], []).append(row)
    return found


def releases_last(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Releases of parents behind what else the same call wrote.

    A parent may be released because a child of it is removed to make room for a job that has just
    ended. BullMQ removes before it writes that job's event, qctl when all jobs of a call are done.
    """
    ordered: list[dict[str, str]] = []
    releases: list[dict[str, str]] = []
    for row in rows:
        if row.get("prev") == "waiting-children":
            releases.append(row)
            continue
        if row["event"] in {"active", "drained"}:
            ordered += releases
            releases.clear()
        ordered.append(row)
    return ordered + releases


def test_the_same_jobs_leave_the_same_keys(
    node_bull: Callable[..., NodeBull], client: Client, redis_url: str
) -> None:
    bull = node_bull(6)

    @settings(
        max_examples=80, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(MODES).flatmap(some_jobs))
    def compare(example: tuple[str, list[dict[str, Any]]]) -> None:
        mode, rows = example
        for _ in range(TRIES):
            expected, got = run_both(rows, by_job=mode != "counts")
            if got == expected:
                return
        for key in sorted(expected.keys() | got.keys()):
            if expected.get(key) != got.get(key):
                note(f"{key}\n  node {expected.get(key)}\n  qctl {got.get(key)}")
        assert got == expected

    def run_both(rows: list[dict[str, Any]], *, by_job: bool) -> list[dict[str, Any]]:
        client.call("FLUSHALL")
        number = next(_numbers)
        theirs, ours = f"node{number}", f"qctl{number}"
        for prefix in (theirs, ours):
            add_all(bull, prefix, rows)
        for queue in QUEUES:
            if client.call("EXISTS", QueueKeys(theirs, queue)("id")):
                work_off(bull, client, theirs, queue)
                asyncio.run(work_off_here(redis_url, client, ours, queue))
        return [dump(client, prefix, by_job=by_job) for prefix in (theirs, ours)]

    compare()
