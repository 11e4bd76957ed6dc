"""Nothing is reported as lost in a queue in which everything happens at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.ops.drain import proof
from qctl.ops.drain.proof import Verdict, prove, take_inventory
from qctl.ops.patience import PatientClient
from qctl.wire.events import last_event_id
from qctl.wire.notes import this_process
from qctl.wire.read.active import read_active
from qctl.wire.write.pausing import pause, resume
from qctl.wire.write.transitions import promote, remove_jobs, retry_finished
from tests.labs.build import Q
from tests.labs.drain_context import tracker_of
from tests.labs.node import NodeBull, NodeError

FLOW_OPTIONS: list[dict[str, Any]] = [
    {},
    {"failParentOnFailure": True},
    {"ignoreDependencyOnFailure": True},
    {"removeOnComplete": True},
]
DEDUPLICATIONS: list[dict[str, Any]] = [
    {"id": "x"},
    {"id": "y", "ttl": 300},
    {"id": "z", "ttl": 500, "extend": True, "replace": True},
    {"id": "k", "keepLastIfActive": True},
]


class Traffic:
    """Adds jobs of all kinds and does all that may be done to them, as fast as it can."""

    def __init__(self, bull: NodeBull, redis_url: str, chance: Random) -> None:
        self._bull = bull
        self._random = chance
        self._redis_url = redis_url
        self._ids: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(connect(self._redis_url)[1]) as client:
            while not self._over.is_set():
                # Some are about jobs that have gone, or are elsewhere.
                with contextlib.suppress(NodeError):
                    self._random.choice([self._add, self._add, self._do, self._schedule])(client)

    def _add(self, _: Client) -> None:
        chance, bull = self._random, self._bull
        data: dict[str, Any] = {"ms": chance.choice([0, 0, 5, 20])}
        if chance.random() < 0.2:
            data["fail_times"] = chance.choice([1, 5])
        options = {
            "attempts": chance.choice([1, 2, 3]),
            "removeOnComplete": chance.choice([True, False]),
            "removeOnFail": chance.choice([True, False, 3]),
            "backoff": chance.choice([0, 5, 50]),
        }
        kind = chance.choice(["plain", "delay", "priority", "deduplication", "flow"])
        if kind == "flow":
            child = {"name": "c", "queueName": "q", "data": data}
            children = [{**child, "opts": chance.choice(FLOW_OPTIONS)} for _ in range(2)]
            bull.add_flow({"name": "p", "queueName": "q", "data": {}, "children": children})
            return
        own: dict[str, dict[str, Any]] = {
            "plain": {},
            "delay": {"delay": chance.choice([10, 300, 5000])},
            "priority": {"priority": chance.randint(1, 3)},
            "deduplication": {"deduplication": chance.choice(DEDUPLICATIONS), "delay": 50},
        }
        self._ids.append(bull.add("q", data, **options, **own[kind]))

    def _schedule(self, _: Client) -> None:
        chance, name = self._random, f"s{self._random.randint(1, 3)}"
        if chance.random() < 0.3:
            self._bull.queue("q", "removeJobScheduler", name)
        else:
            repeat = {"every": chance.choice([100, 300, 2000])}
            self._bull.queue("q", "upsertJobScheduler", name, repeat, {"name": "it", "data": {}})

    def _do(self, client: Client) -> None:
        if not self._ids:
            return
        job_id = self._random.choice(self._ids[-100:])
        bull = self._bull
        does: list[Callable[[], object]] = [
            lambda: bull.queue("q", "remove", job_id),
            lambda: bull.job("q", job_id, "retry"),
            lambda: bull.job("q", job_id, "promote"),
            lambda: bull.job("q", job_id, "changePriority", {"priority": 2}),
            lambda: bull.queue("q", "retryJobs", {}),
            lambda: bull.queue("q", "promoteJobs"),
            lambda: remove_jobs(client, Q, [job_id]),
            lambda: promote(client, Q, [job_id]),
            lambda: retry_finished(client, Q, [job_id]),
        ]
        self._random.choice(does)()


def drain_and_prove(client: Client, *, pauses: bool) -> Verdict:
    """What a drain does to a queue, but for the restart; or a roll, which does not pause."""
    holder = this_process("drain")
    patient = PatientClient(client)
    tracker = tracker_of(patient, Q, owner=holder.owner)
    tracker.cursors[Q] = last_event_id(client, Q)
    if pauses:
        tracker.cursors[Q] = pause(client, Q, holder).event_id
        tracker.pauses.paused(Q, tracker.cursors[Q])
    take_inventory(patient, tracker, Q)
    active = read_active(client, [Q])
    tracker.inventory.begin_active(job.key for job in active)
    tracker.ledger.begin(active, backlog=0, at_ms=0)
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        tracker.follow(wait=True)
    if pauses:
        resume_id = resume(client, Q, owner=holder.owner).event_id
        tracker.pauses.resumed_by_us(Q, resume_id, at_ms=0)
    return prove(patient, tracker)


@pytest.mark.parametrize("most_ids", [10_000, 10])
def test_nothing_is_reported_as_lost_under_traffic(
    bullmq: NodeBull,
    client: Client,
    redis_url: str,
    chance: Random,
    most_ids: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proof, "MAX_IDS", most_ids)
    bullmq.start_worker("q", concurrency=4)
    # Something to count at the start.
    bullmq.add_bulk("q", [{"name": "job", "data": {}, "opts": {"delay": 600_000}}] * 30)
    with Traffic(bullmq, redis_url, chance):
        verdicts = [drain_and_prove(client, pauses=bool(turn % 2)) for turn in range(6)]
    assert [(verdict.lost, verdict.proof.why) for verdict in verdicts] == [(0, "")] * 6
    how = "all ids" if most_ids > 10 else "counts and a sample"
    assert all(verdict.proof.checked.startswith(how) for verdict in verdicts)
    assert sum(verdict.proof.ids for verdict in verdicts) > 6 * 10
