"""Jobs that a resume by BullMQ 5 loses, and the way back (wire format 10.2)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.labs.build import row
from tests.labs.cli import qctl
from tests.labs.node import NodeBull, ids_of, runs
from tests.labs.servers import wait_until

Q = QueueKeys("bull", "q")


def test_jobs_that_a_resume_has_lost_are_put_back_as_doctor_says(
    node_bull: Callable[..., NodeBull], client: Client, redis_url: str
) -> None:
    bull = node_bull(5)
    before = [bull.add("q") for _ in range(3)]
    # As BullMQ 6 pauses.
    client.call("HSET", Q("meta"), "paused", "1")
    during = bull.add("q")
    assert (row(client, "wait"), row(client, "paused")) == (before[::-1], [during])
    bull.resume("q")
    assert row(client, "wait") == [during]
    found = json.loads(qctl(redis_url, "doctor", "q", "--full", "--json").out)["findings"]
    (finding,) = [each for each in found if each["check"] == "lost-jobs"]
    assert finding["evidence"]["all_lost"] == before
    (command,) = [each for each in finding["commands"] if "retry" in each]
    for code in (0, 3):
        ran = qctl(redis_url, *shlex.split(command)[1:])
        assert ran.code == code, ran
    # In their order, behind the one that waits already.
    assert row(client, "wait") == [*before[::-1], during]
    handle = bull.start_worker("q")
    wait_until(lambda: len(runs(client, "q")) >= 8, "four jobs to start and end")
    wait_until(lambda: bull.counts("q")["active"] == 0, "the last job to be settled")
    bull.close_worker(handle)
    assert sorted(ids_of(runs(client, "q"))) == sorted([*before, during])
