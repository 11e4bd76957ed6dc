"""A run over many jobs takes as much memory as one over few."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from qctl.connection.address import Client
from qctl.ops.bulk.actions import Action, removing, retrying
from qctl.ops.bulk.run import BulkRun, Selection
from qctl.ops.jobs.where import Filter, parse_where
from tests.labs.build import Q

FILL = """
for n = 1, tonumber(ARGV[1]) do
  local id = "job-" .. n
  redis.call("HSET", KEYS[1] .. id, "name", "n", "data", "{}", "finishedOn", n, "failedReason", "e")
  redis.call("ZADD", KEYS[1] .. "failed", n, id)
  redis.call("LPUSH", KEYS[1] .. "wait", id)
end
"""


def peak(client: Client, action: Action, selection: Selection, count: int) -> int:
    client.call("FLUSHALL")
    client.call("EVAL", FILL, 1, Q(""), count)
    gc.collect()
    tracemalloc.start()
    try:
        run = BulkRun(client, Q, action, selection, count, dry_run=True)
        for _ in run:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert run.report().scanned == count


@pytest.mark.parametrize("state", ["failed", "waiting"])
def test_memory_does_not_grow_with_the_number_of_jobs(
    client: Client, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    # What is remembered of any number of jobs, smaller, so that fewer jobs show the same.
    monkeypatch.setattr("qctl.wire.write.walk._NOTED", 200)
    monkeypatch.setattr("qctl.wire.write.walk._NOTED_A_CALL", 50)
    monkeypatch.setattr("qctl.wire.write.walk._MAX_REMEMBERED", 200)
    # Measuring makes calls slow, which would make them small.
    monkeypatch.setattr("qctl.wire.write.pace.TARGET_S", 60.0)
    monkeypatch.setattr("qctl.wire.write.pace.MAX_SIZE", 50)
    selection = Selection(state=state, only=Filter(where=parse_where("id ~ 7")))
    action = retrying("failed") if state == "failed" else removing()
    # The first one warms up.
    _, few, many = (peak(client, action, selection, count) for count in (100, 2000, 4500))
    assert many < 1.1 * few
