"""Doctor: jobs that nobody will run."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.ops.doctor import jobs
from qctl.wire.checks import integrity, keyspace
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats, lists
from qctl.wire.read.clients import client_name
from tests.labs.build import Q, put
from tests.labs.doctor import diagnose, found, of, result
from tests.labs.workers import BEAT

P = QueueKeys("bull", "parents")


@pytest.fixture
def worker(redis_url: str) -> Iterator[Client]:
    """A connection named like a worker of ``q``."""
    with contextlib.closing(connect(redis_url)[1]) as connection:
        connection.call("CLIENT", "SETNAME", client_name("bull", "q", "w1"))
        yield connection


def test_stalled_jobs_without_a_worker(client: Client) -> None:
    put(client, "1", "active")
    put(client, "2", "active", lock="t")
    (finding,) = found(client, "stalled")
    assert finding.severity == "error"
    assert finding.evidence == {"count": 1, "stalled": ["1"], "workers": 0}
    assert "qctl jobs retry-stalled q" in finding.commands


def test_an_active_id_without_a_job_is_not_told_as_one_to_retry(client: Client) -> None:
    put(client, "1", "completed")
    client.call("RPUSH", Q("active"), "77")
    assert found(client, "stalled") == []
    assert found(client, "missing-hashes")[0].evidence["by_state"] == {"active": 1}


def test_stalled_jobs_that_a_worker_will_notice(client: Client, worker: Client) -> None:
    put(client, "1", "active")
    (finding,) = found(client, "stalled")
    assert finding.severity == "error"
    assert "it is unknown whether a worker notices" in finding.what
    client.call("SET", Q("stalled-check"), round(time.time() * 1000), "PX", 30_000)
    (finding,) = found(client, "stalled")
    assert "workers check for stalls every 30 s" in finding.what
    assert finding.severity == "warning"


def test_jobs_of_a_worker_that_is_not_connected(client: Client, worker: Client) -> None:
    put(client, "1", "active", lock="t", pb="w1")
    assert found(client, "gone-workers") == []
    put(client, "2", "active", lock="t", pb="w2")
    (finding,) = found(client, "gone-workers")
    assert finding.severity == "info"
    assert finding.evidence["jobs"] == ["2"]
    assert 0 < finding.evidence["longest_lock_ttl_ms"] <= 30_000
    assert finding.commands == ("qctl jobs retry-stalled q --wait",)


def test_a_worker_of_qctls_own_whose_process_has_died(client: Client, worker: Client) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    beat = replace(BEAT, owner="own-1", host=socket.gethostname(), pid=os.getpid())
    put(client, "1", "active", lock="own-1:3", pb="w2")
    heartbeats.beat(client, beat, 1)
    assert found(client, "gone-workers")[0].severity == "info"
    client.call("HSET", "qctl:worker:own-1", "pid", "unreadable")
    assert found(client, "gone-workers")[0].severity == "info"
    heartbeats.beat(client, replace(beat, pid=ended.pid), 1)
    (finding,) = found(client, "gone-workers")
    assert finding.severity == "warning"
    assert "its process died" in finding.what
    assert "within 30 s" in finding.what
    # Whether the other worker has died is unknown.
    put(client, "2", "active", lock="t", pb="w3")
    (finding,) = found(client, "gone-workers")
    assert finding.severity == "warning"
    assert "for 1 of them, the worker's process died; the other" in finding.what


def test_one_stall_from_failing(client: Client) -> None:
    put(client, "1", "active", lock="t", stc=1)
    put(client, "2", "active", lock="t")
    put(client, "3", "active", lock="t", stc=4, rjk="s")
    client.call("ZADD", Q("repeat"), 1, "s")
    (finding,) = found(client, "last-stall")
    assert finding.severity == "warning"
    assert finding.evidence["jobs"] == ["1"]
    assert finding.commands == ("qctl drain q",)
    client.call("DEL", Q.lock("1"))
    (finding,) = found(client, "last-stall")
    assert finding.severity == "error"
    assert finding.evidence["stalled_now"] == 1
    assert finding.commands == ("qctl jobs retry-stalled q",)


@pytest.mark.parametrize("full", [False, True])
def test_ids_without_a_hash(client: Client, full: bool) -> None:
    for place in ("wait", "active", "delayed", "completed", "failed"):
        put(client, f"good-{place}", place, lock="t" if place == "active" else "")
    client.call("RPUSH", Q("wait"), "0:0")
    assert found(client, "missing-hashes", full=full) == []
    client.call("ZADD", Q("completed"), 1, "c1", 2, "c2")
    (finding,) = found(client, "missing-hashes", full=full)
    assert finding.severity == "warning"
    # Nobody takes what is done.
    assert finding.what == "2 ids without a job: 2 in completed; none of them would be run"
    client.call("LPUSH", Q("wait"), "w1")
    (finding,) = found(client, "missing-hashes", full=full)
    assert finding.severity == "error"
    assert finding.evidence["by_state"] == {"completed": 2, "wait" if not full else "waiting": 1}
    assert "3 ids without a job" in finding.what
    assert "workers would run 1 of them without a name or data" in finding.what
    assert finding.commands == ("qctl jobs remove q w1 c1 c2",)


def test_how_many_ids_were_looked_at_is_said(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_MAX_PER_END", 2)
    for number in range(9):
        put(client, str(number), "completed", score=number)
    client.call("DEL", Q("4"))
    diagnosis = diagnose(client)
    assert of(diagnosis, "missing-hashes") == []
    assert result(diagnosis, "missing-hashes").why == "4 of 9 ids; --full examines all"
    (finding,) = found(client, "missing-hashes", full=True)
    assert finding.evidence["ids"] == ["4"]


def test_what_has_looked_at_all_does_not_recommend_itself(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        put(client, str(number))
    # As where keys are added while the walk is on.
    monkeypatch.setattr(keyspace, "database_size", lambda _: 10**6)
    assert "--full" in result(diagnose(client), "lost-jobs").why
    checks = diagnose(client, full=True).checks
    assert "of 1,000,000 keys" in "; ".join(check.why for check in checks)
    assert "--full" not in "; ".join(check.why for check in checks)


@pytest.mark.parametrize("full", [False, True])
def test_jobs_in_no_state(client: Client, full: bool) -> None:
    for place in ("wait", "paused", "delayed", "prioritized", "completed", "waiting-children"):
        put(client, f"good-{place}", place)
    put(client, "busy", "active", lock="t")
    client.call("HSET", Q.scheduler("s"), "name", "n", "ic", "1")
    client.call("HSET", Q("dn:x"), "name", "n", "data", "{}")
    client.call("SET", Q("id"), "9")
    assert found(client, "lost-jobs", full=full) == []
    put(client, "lost", "")
    put(client, "ended", "", finishedOn=1_700_000_000_000)
    client.call("HSET", Q("ghost"), "processedOn", "1", "ats", "1")
    (finding,) = found(client, "lost-jobs", full=full)
    assert finding.severity == "error"
    assert finding.evidence["lost"] == ["lost"]
    assert finding.evidence["leftovers"] == 2
    assert finding.commands[0] == "qctl jobs show q lost"
    assert finding.commands[1] == "qctl jobs retry q lost"
    assert finding.commands[2].split()[:4] == ["qctl", "jobs", "remove", "q"]
    assert set(finding.commands[2].split()[4:]) == {"ended", "ghost"}


def test_bullmq_pro_may_keep_jobs_elsewhere(client: Client) -> None:
    put(client, "grouped", "")
    client.call("HSET", Q("meta"), "version", "bullmq-pro:7.0.0")
    diagnosis = diagnose(client)
    assert of(diagnosis, "lost-jobs") == []
    why = result(diagnosis, "lost-jobs").why
    assert why.startswith("not examined: q, ")


def test_other_queues_and_prefixes_are_left_alone(client: Client) -> None:
    put(client, "1")
    put(client, "lost", "", keys=QueueKeys("bull", "other"))
    put(client, "lost", "", keys=QueueKeys("bul", "q"))
    assert found(client, "lost-jobs", "q") == []
    assert [f.subject.name for f in found(client, "lost-jobs")] == ["other"]


def test_the_walk_is_bounded_and_says_how_far_it_went(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace, "SCAN_COUNT", 100)
    monkeypatch.setattr(jobs, "MAX_KEYS", 300)
    monkeypatch.setattr(jobs, "MAX_JOBS", 50)
    client.pipeline([("SET", f"other:{number}", "x") for number in range(1000)])
    for number in range(400):
        put(client, str(number), "completed", score=number)
    put(client, "lost", "")
    why = result(diagnose(client), "lost-jobs").why
    assert why.startswith("50 jobs among about 300 of 1,403 keys")
    (finding,) = found(client, "lost-jobs", full=True)
    assert finding.evidence["lost"] == ["lost"]


def test_a_long_wait_list_is_read_in_part(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_WINDOW", 20)
    monkeypatch.setattr(lists, "_OVERLAP", 5)
    monkeypatch.setattr(keyspace, "MAX_WAITING", 40)
    for number in range(100):
        put(client, str(number))
    put(client, "lost", "")
    diagnosis = diagnose(client)
    assert of(diagnosis, "lost-jobs") == []
    assert "part of the wait list that was not read" in result(diagnosis, "lost-jobs").why
    (finding,) = found(client, "lost-jobs", full=True)
    assert finding.evidence["lost"] == ["lost"]


def test_deduplication_keys_of_vanished_jobs(client: Client) -> None:
    put(client, "1")
    client.call("SET", Q("de:held"), "1")
    client.call("SET", Q("de:passing"), "gone", "PX", 60_000)
    assert found(client, "stale-deduplications") == []
    client.call("SET", Q("de:stale:x"), "gone")
    (finding,) = found(client, "stale-deduplications")
    assert finding.severity == "info"
    assert finding.evidence["deduplication_ids"] == ["stale:x"]
    assert finding.evidence["keys"] == ["bull:q:de:stale:x"]
    client.call("HSET", Q("meta"), "version", "bullmq:5.81.5")
    (finding,) = found(client, "stale-deduplications")
    assert finding.severity == "warning"


def test_parents_that_wait_for_ever(client: Client) -> None:
    put(client, "child-w", "wait", parentKey=P("alive"))
    put(client, "child-f", "failed", parentKey=P("stuck"))
    for parent, children in {
        "alive": ["child-w"],
        "stuck": ["child-f", "child-w"],
        "orphaned": ["child-gone"],
        "alone": [],
    }.items():
        put(client, parent, "waiting-children", keys=P)
        for child in children:
            client.call("SADD", P(f"{parent}:dependencies"), Q(child))
    (finding,) = found(client, "stuck-parents")
    assert finding.severity == "error"
    assert finding.subject.name == "parents"
    assert finding.evidence["count"] == 3
    assert finding.evidence["because"] == {"failed": 1, "gone": 1, "none": 1}
    assert {"queue": "q", "id": "child-f"} in finding.evidence["children"]
    assert finding.commands == ("qctl jobs retry q child-f",)
    # None that is gone can be retried.
    client.call("ZREM", P("waiting-children"), "stuck", "alone")
    (finding,) = found(client, "stuck-parents")
    assert "job.removeUnprocessedChildren()" in finding.remedy
