"""``schedules migrate``: from the repeatables of a real BullMQ 5 to workers of both versions."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from qctl.connection.address import Client
from tests.labs.build import Q, scores
from tests.labs.cli import run
from tests.labs.node import NodeBull, runs
from tests.labs.servers import wait_until


@pytest.mark.parametrize("version", [5, 6])
def test_workers_go_on_with_the_schedulers(
    node_bull: Callable[..., NodeBull], client: Client, redis_url: str, version: int
) -> None:
    five = node_bull(5)
    digest = {"repeat": {"pattern": "0 7 * * *", "tz": "Europe/Berlin", "limit": 9}, "attempts": 3}
    five.queue("q", "add", "digest", {"returns": "all"}, digest)
    five.queue("q", "add", "poll", {"returns": 7}, {"repeat": {"every": 1000}, "jobId": "x"})
    due = dict(scores(client, "repeat"))
    ran = run("schedules", "migrate", "q", "--yes", "--json", QCTL_REDIS_URL=redis_url)
    assert ran.code == 0, ran.err
    new_ids = {row["key"]: row["id"] for row in json.loads(ran.out)["repeatables"]}
    assert set(new_ids.values()) == {"digest", "poll"}
    assert scores(client, "repeat") == {new_ids[key]: ms for key, ms in due.items()}
    (first,) = [each for each in scores(client, "delayed") if ":poll:" in each]
    (pending,) = [each for each in scores(client, "delayed") if ":digest:" in each]
    bull = node_bull(version)
    if version == 5:
        repeatables = bull.queue("q", "getRepeatableJobs")
        assert {each["key"]: str(each["next"]) for each in repeatables} == scores(client, "repeat")
    listed = {each["key"]: each for each in bull.queue("q", "getJobSchedulers", 0, -1, True)}
    assert listed["digest"]["template"]["data"] == {"returns": "all"}
    bull.job("q", pending, "promote")
    bull.start_worker("q")
    wait_until(lambda: len(runs(client, "q")) >= 8, "four runs")
    rows = [row for row in runs(client, "q") if row["ev"] == "end"]
    assert {row["name"] for row in rows} == {"digest", "poll"}
    assert all(row["id"].startswith(f"repeat:{row['name']}:") for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert first in {row["id"] for row in rows}
    polls = [row["id"] for row in rows if row["name"] == "poll"]

    def values() -> set[str | None]:
        return {client.call("HGET", Q(job_id), "returnvalue") for job_id in polls}

    # A job is settled a moment after its row.
    wait_until(lambda: values() == {"7"}, "the value of each poll")
    wait_until(lambda: client.call("ZCARD", Q("delayed")) == 2, "the next jobs")
    (following,) = [each for each in scores(client, "delayed") if ":digest:" in each]
    opts = json.loads(client.call("HGET", Q(following), "opts"))
    assert (opts["attempts"], opts["repeat"]["limit"], opts["repeat"]["count"]) == (3, 9, 2)
    assert client.call("HGET", Q(following), "data") == '{"returns":"all"}'
    assert set(scores(client, "repeat")) == {"digest", "poll"}
    assert bull.send("problems") == []
