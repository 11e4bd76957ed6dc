"""Options of kinds that nobody should give, and some do: qctl's workers read them as BullMQ's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.wire.encoding import parse_backoff
from qctl.wire.keys import QueueKeys
from tests.interop import py_worker as py
from tests.labs.node import NodeBull, runs, wait_ended

py_worker = py.py_worker

TRIES: list[dict[str, Any]] = [
    {"attempts": attempts}
    for attempts in (2**53 - 1, 2**53, 1e21, 1.7976931348623157e308, "3", 2.5, 0.5, "x", None, -1)
] + [
    {"attempts": 3, "backoff": backoff}
    for backoff in (0, -1, -5, 2.5, None, {"type": "fixed", "delay": -1},
                    {"type": "fixed", "delay": "5"}, {"type": "exponential", "delay": -3})
] + [
    {"attempts": 3, "stackTraceLimit": limit} for limit in ("1", "x", -1, 2.5, True, 1e21)
]  # fmt: skip
ENDS: list[dict[str, Any]] = [
    {"removeOnComplete": rule}
    for rule in ("true", "false", "100", "0", "", True, None, -5, 1e21, [1], {"count": -1})
] + [{"kl": 0}, {"kl": None}]  # fmt: skip
# Every text is true, but the empty one.
AT_ONCE = ("true", "false", "100", "0", True)


def test_the_same_becomes_of_the_jobs(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    jobs = [{"name": "j", "data": {"fail_times": 4}, "opts": opts} for opts in TRIES]
    logs = {"steps": [["log", "a"], ["log", "b"]]}
    jobs += [{"name": "j", "data": logs, "opts": opts} for opts in ENDS]
    for queue in ("n", "q"):
        bullmq.add_bulk(queue, jobs)
    bullmq.start_worker("n")
    py_worker()
    removed = sum(opts.get("removeOnComplete") in AT_ONCE for opts in ENDS)
    for name in ("n", "q"):
        wait_ended(client, len(jobs) - removed, QueueKeys("bull", name))
    for number, job in enumerate(jobs, 1):
        ours, theirs = (outcome(client, name, str(number)) for name in ("q", "n"))
        assert ours == theirs, job["opts"]


def outcome(client: Client, queue: str, job_id: str) -> tuple[Any, ...]:
    """Runs, state, rows of the log, stack traces."""
    keys = QueueKeys("bull", queue)
    ran = sum(row["id"] == job_id and row["ev"] == "start" for row in runs(client, queue))
    traces = client.call("HGET", keys(job_id), "stacktrace")
    states = [s for s in ("completed", "failed") if client.call("ZSCORE", keys(s), job_id)]
    rows = client.call("LLEN", keys(f"{job_id}:logs"))
    return ran, states, rows, len(json.loads(traces or "[]"))


@pytest.mark.parametrize("backoff", [5, 2.5, None, ["fixed", 5], {"type": "fixed", "delay": 5}])
def test_a_backoff_of_no_kind_is_refused(backoff: Any) -> None:
    with pytest.raises(UsageError, match="is not understood"):
        parse_backoff(backoff)
