"""Doctor on real BullMQ and PM2: it finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.ops.doctor import schedulers, workers
from qctl.ops.doctor.findings import Diagnosis, Finding
from qctl.ops.doctor.run import examine
from qctl.wire.keys import QueueKeys
from tests.labs.doctor import SETTINGS
from tests.labs.node import HERE, NodeBull, node, node_env
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

Q = QueueKeys("bull", "q")
Start = Callable[..., NodeBull]


@pytest.fixture
def durable(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """A Redis as BullMQ wants it."""
    return start_redis("--appendonly", "yes")


@pytest.fixture
def there(durable: RedisServer) -> Iterator[Client]:
    with contextlib.closing(connect(durable.url)[1]) as client:
        yield client


def doctor(
    client: Client, server: RedisServer, *names: str, settings: Settings = SETTINGS, **how: object
) -> Diagnosis:
    options = {"sleep": lambda _: None, **how}
    return examine(client, parse_url(server.url), settings, names, **options)  # type: ignore[arg-type]


def of(diagnosis: Diagnosis, check: str) -> list[Finding]:
    failed = [each for each in diagnosis.checks if each.status == "failed"]
    assert not failed
    return [finding for finding in diagnosis.findings if finding.check == check]


@pytest.mark.parametrize("version", [5, 6])
def test_healthy_queues_under_load_give_no_warning(
    node_bull: Start, durable: RedisServer, there: Client, version: int
) -> None:
    bull = node_bull(version, port=durable.port)
    bull.start_worker("q", name="w1", concurrency=3)
    bull.start_worker("q", name="w2", concurrency=3)
    bull.start_worker("children", name="w1")
    template = {"name": "tick", "data": {"n": 1}}
    bull.queue("q", "upsertJobScheduler", "often", {"every": 200}, template)
    bull.queue(
        "q", "upsertJobScheduler", "nightly", {"pattern": "0 3 * * *"}, {**template, "data": {}}
    )
    once = {"every": 100, "limit": 2}
    bull.queue("q", "upsertJobScheduler", "twice", once, {**template, "name": "twice"})
    rows = [{"name": "job", "data": {"ms": n % 7}, "opts": opts} for n in range(300) for opts in (
        {}, {"priority": 3}, {"removeOnComplete": True}, {"delay": n * 4},
        {"attempts": 3, "backoff": {"type": "fixed", "delay": 20}},
        {"deduplication": {"id": f"d{n % 20}"}},
    )]  # fmt: skip
    rows += [{"name": "bad", "data": {"fail_times": 9}, "opts": {}} for _ in range(5)]
    bull.add_bulk("q", rows)
    policies = ("failParentOnFailure", "ignoreDependencyOnFailure", "removeDependencyOnFailure")
    for number in range(12):
        children = [
            {
                "name": "c",
                "queueName": "children",
                "data": {"fail_times": 9},
                "opts": {policy: True},
            }
            for policy in policies
        ]
        children.append({"name": "c", "queueName": "children", "data": {"ms": number % 4}})
        bull.add_flow({"name": "parent", "queueName": "q", "children": children})
    looks = 0
    while looks < 8 or bull.counts("q")["completed"] < 1000:
        diagnosis = doctor(there, durable, full=looks % 3 == 2)
        assert not [each for each in diagnosis.checks if each.status == "failed"]
        assert [f for f in diagnosis.findings if f.check != "failure-rate"] == []
        # Three of four children fail on purpose.
        assert {f.subject.name for f in of(diagnosis, "failure-rate")} <= {"children"}
        looks += 1
    assert diagnosis.examined.queues == 2
    assert diagnosis.examined.workers == 3
    wait_until(lambda: bull.counts("q")["waiting"] == 0, "the queue to be worked off")
    (finding,) = doctor(there, durable, full=True).findings
    assert (finding.check, finding.subject.name) == ("failure-rate", "children")
    assert finding.what.startswith("36 of the 48 jobs that ended in the last ")


@pytest.mark.parametrize("version", [5, 6])
def test_a_worker_whose_clock_is_wrong(
    node_bull: Start, client: Client, redis_server: RedisServer, version: int
) -> None:
    bull = node_bull(version)

    def start(queue: str, name: str, ahead_ms: int, runs_ms: int) -> subprocess.Popen[bytes]:
        script = (
            f"const now = Date.now.bind(Date); Date.now = () => now() + {ahead_ms};"
            f"const {{ Worker }} = require('bullmq{version}');"
            f"new Worker('{queue}', () => new Promise((end) => setTimeout(end, {runs_ms})),"
            f" {{ connection: {{ port: {redis_server.port} }}, name: '{name}', concurrency: 5 }});"
        )
        return subprocess.Popen([*node(), "-e", script], cwd=HERE, env=node_env())

    started = [start("q", "skewed", 75_000, 0), start("other", "right", 0, 1000)]
    try:
        for _ in range(5):
            bull.add("q")
            bull.add("other")
        wait_until(lambda: bull.counts("other")["active"] == 5, "the jobs to start")
        # Their ends have to wait, as for a Redis that is away.
        client.call("CLIENT", "PAUSE", 3000)
        wait_until(lambda: bull.counts("q")["completed"] == 5, "the jobs to end")
        wait_until(lambda: bull.counts("other")["completed"] == 5, "the jobs to end")
        (finding,) = of(doctor(client, redis_server), "host-clocks")
    finally:
        for each in started:
            each.kill()
            each.wait()
    assert (finding.severity, finding.subject.name) == ("warning", "q")
    assert finding.what.startswith("the clock of worker 'skewed' is 1 min 1")
    assert "ahead of that of Redis" in finding.what
    assert 74_000 < finding.evidence["ahead_ms"] < 76_000


def test_schedulers_that_are_overdue(
    bullmq: NodeBull, client: Client, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = {"name": "tick"}
    bullmq.queue("q", "upsertJobScheduler", "often", {"every": 300}, template)
    bullmq.queue("q", "upsertJobScheduler", "cron", {"pattern": "* * * * * *"}, template)
    bullmq.queue("q", "upsertJobScheduler", "nightly", {"pattern": "0 3 * * *"}, template)
    assert of(doctor(client, redis_server), "overdue-schedulers") == []
    monkeypatch.setattr(schedulers, "OVERDUE_S", 2)

    def late() -> list[Finding]:
        return [
            f
            for f in of(doctor(client, redis_server), "overdue-schedulers")
            if f.evidence["count"] == 2
        ]

    (finding,) = wait_until(late, "both to be late")
    assert finding.severity == "warning"
    assert set(finding.evidence["schedulers"]) == {"often", "cron"}
    assert finding.evidence["skipped"]["often"] >= 6
    assert finding.evidence["skipped"]["cron"] >= 1
    bullmq.start_worker("q")
    wait_until(lambda: not late(), "a worker to catch up")


def test_a_child_that_failed_without_a_policy(
    node_bull: Start, client: Client, redis_server: RedisServer
) -> None:
    bull = node_bull(6)
    bull.start_worker("children", name="w")
    child = {"name": "c", "queueName": "children", "data": {"fail_times": 9}, "opts": {}}
    tree = bull.add_flow({"name": "p", "queueName": "q", "children": [child]})
    wait_until(lambda: bull.counts("children")["failed"] == 1, "the child to fail")
    (finding,) = of(doctor(client, redis_server), "stuck-parents")
    parent, (failed,) = tree["job"]["id"], tree["children"]
    assert finding.evidence["parents"] == [parent]
    assert finding.evidence["because"] == {"failed": 1, "gone": 0, "none": 0}
    assert finding.commands == (f"qctl jobs retry children {failed['job']['id']}",)
    # Retried, it keeps nobody waiting for ever.
    bull.job("children", failed["job"]["id"], "updateData", {})
    bull.job("children", failed["job"]["id"], "retry")
    wait_until(lambda: bull.counts("q")["waiting"] == 1, "the parent to be released")
    assert of(doctor(client, redis_server), "stuck-parents") == []


def test_both_versions_on_one_paused_queue(
    node_bull: Start, client: Client, redis_server: RedisServer
) -> None:
    five, six = node_bull(5), node_bull(6)
    five.add("q")
    five.pause("q")
    diagnosis = doctor(client, redis_server)
    assert of(diagnosis, "legacy-paused") == []
    assert of(diagnosis, "mixed-versions") == []
    (paused,) = of(diagnosis, "paused")
    assert paused.evidence["paused_at"] is not None
    six.add("q")
    diagnosis = doctor(client, redis_server)
    assert of(diagnosis, "legacy-paused")[0].evidence == {"in_paused": 1, "in_wait": 1}
    assert len(of(diagnosis, "mixed-versions")) == 1
    # What it warns of: the job in wait is lost by a resume of BullMQ 5.
    five.resume("q")
    diagnosis = doctor(client, redis_server)
    (lost,) = of(diagnosis, "lost-jobs")
    assert lost.severity == "error"
    assert lost.evidence["lost"] == ["2"]


def test_a_worker_of_bullmq_5_beside_producers_of_bullmq_6(
    node_bull: Start, client: Client, redis_server: RedisServer
) -> None:
    five, six = node_bull(5), node_bull(6)
    six.queue("q", "upsertJobScheduler", "s", {"every": 100})
    handle = six.start_worker("q", name="six")
    wait_until(lambda: six.counts("q")["completed"] > 1, "the schedule to run")
    assert of(doctor(client, redis_server), "mixed-versions") == []
    six.close_worker(handle)
    five.start_worker("q", name="five")
    ran = six.counts("q")["completed"]
    wait_until(lambda: six.counts("q")["completed"] > ran + 1, "the schedule to go on")
    (finding,) = of(doctor(client, redis_server), "mixed-versions")
    assert finding.evidence["bullmq_5"] == ["a worker that ran schedules"]


def test_a_scheduler_whose_job_was_deleted(
    node_bull: Start, client: Client, redis_server: RedisServer
) -> None:
    bull = node_bull(6)
    bull.queue("q", "upsertJobScheduler", "s", {"every": 60_000, "startDate": 2_000_000_000_000})
    assert of(doctor(client, redis_server), "dead-schedulers") == []
    (job_id,) = client.call("ZRANGE", Q("delayed"), 0, 0)
    client.pipeline([("ZREM", Q("delayed"), job_id), ("DEL", Q(job_id))])
    (finding,) = of(doctor(client, redis_server), "dead-schedulers")
    assert finding.evidence["schedulers"] == ["s"]


def test_a_deduplication_id_that_bullmq_5_never_frees(
    node_bull: Start, client: Client, redis_server: RedisServer
) -> None:
    bull = node_bull(5)
    first = bull.add("q", deduplication={"id": "d"})
    assert of(doctor(client, redis_server), "stale-deduplications") == []
    client.pipeline([("LREM", Q("wait"), 0, first), ("DEL", Q(first))])
    (finding,) = of(doctor(client, redis_server), "stale-deduplications")
    assert finding.severity == "warning"
    assert finding.evidence["deduplication_ids"] == ["d"]
    bull.add("q", deduplication={"id": "d"})
    assert bull.counts("q")["waiting"] == 0


def test_workers_that_hang_or_are_gone(
    node_bull: Start,
    client: Client,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 1)
    hung = node_bull(6, fresh=True)
    hung.start_worker("q", name="same")
    hung.start_worker("q", name="same")
    bull = node_bull(6)
    done = bull.add("q")
    bull.wait_finished("q", done)
    names = of(doctor(client, redis_server), "worker-names")
    assert names[0].evidence["names"] == {"same": 2}
    os.kill(hung.pid, signal.SIGSTOP)
    try:
        bull.add("q")
        look = doctor
        (finding,) = wait_until(
            lambda: of(look(client, redis_server), "not-fetching"), "a second to pass"
        )
        assert finding.evidence["workers"] == 2
    finally:
        os.kill(hung.pid, signal.SIGCONT)
    wait_until(lambda: bull.counts("q")["waiting"] == 0, "the workers to go on")
    assert of(doctor(client, redis_server), "not-fetching") == []
    held = bull.add("q", {"ms": 60_000})
    wait_until(lambda: client.call("EXISTS", Q.lock(held)), "the job to start")
    assert of(doctor(client, redis_server), "gone-workers") == []
    hung.kill()
    diagnosis = wait_until(
        lambda: found if of(found := doctor(client, redis_server), "gone-workers") else None,
        "Redis to notice that the worker is gone",
    )
    assert of(diagnosis, "gone-workers")[0].evidence["jobs"] == [held]
    client.call("DEL", Q.lock(held))
    (stalled,) = of(doctor(client, redis_server), "stalled")
    assert (stalled.severity, stalled.evidence["stalled"]) == ("error", [held])


@pytest.mark.parametrize("version", [5, 6])
def test_workers_whose_name_redis_refuses(
    node_bull: Start, client: Client, redis_server: RedisServer, version: int
) -> None:
    bull = node_bull(version)
    for name in ("worker 1", "wörker"):
        bull.start_worker("q", name=name)
    held = [bull.add("q", {"ms": 30_000}) for _ in range(2)]
    for job_id in held:
        wait_until(lambda job_id=job_id: client.call("EXISTS", Q.lock(job_id)), "it to start")
    diagnosis = doctor(client, redis_server)
    (finding,) = of(diagnosis, "unlisted-workers")
    assert finding.severity == "warning"
    assert finding.evidence["names"] == ["worker 1", "wörker"]
    assert set(finding.evidence["jobs"]) == set(held)
    assert diagnosis.examined.workers == 0
    # They are neither closing nor dead.
    assert of(diagnosis, "gone-workers") == []


def test_what_pm2_would_do_to_the_jobs(
    node_bull: Start, client: Client, redis_server: RedisServer, pm2: Pm2
) -> None:
    quick = {"LOCK_MS": 1000, "STALLED_MS": 500, "REDIS_PORT": redis_server.port}
    careless = {**quick, "QUEUES": "bad", "WORKER_NAME": "bad", "CONCURRENCY": 8}
    careful = {**quick, "QUEUES": "good", "WORKER_NAME": "good", "HANDLE_SIGINT": 1}
    pm2.start("careless", env=careless, treekill=False, namespace="careful")
    pm2.start("careful", env=careful, kill_timeout=30_000)
    settings = replace(SETTINGS, pm2_home=pm2.home)
    bull = node_bull(6)
    bull.add_bulk("bad", [{"name": "slow", "data": {"ms": 1700}, "opts": {}} for _ in range(8)])
    bull.add_bulk("good", [{"name": "slow", "data": {"ms": 10}, "opts": {}} for _ in range(8)])
    for queue in ("bad", "good"):
        wait_until(lambda q=queue: bull.counts(q)["completed"] == 8, "jobs to complete")
    before = doctor(client, redis_server, settings=settings)
    (timeout,) = of(before, "kill-timeout")
    assert timeout.subject.name == "pm2:careless"
    assert timeout.evidence["kill_timeout_ms"] == 1600
    assert 1.7 <= timeout.evidence["p95_s"] < 3
    assert timeout.evidence["jobs_looked_at"] == 8
    assert timeout.commands == ("qctl restart pm2:careless",)
    (tree,) = of(before, "treekill")
    assert (tree.subject.name, tree.severity) == ("pm2:careless", "info")
    (names,) = of(before, "process-names")
    assert names.subject.name == "pm2:careful"
    assert names.evidence["others"] == ["pm2:careless"]
    assert of(before, "stop-signal") == []
    assert "careful" in str(before.findings)
    assert before.examined.processes == 2

    # The plain restarts that it warns of.
    busy = [bull.add(queue, {"ms": 3000}) for queue in ("bad", "bad", "good")]
    for queue, job_id in zip(("bad", "bad", "good"), busy, strict=True):
        key = QueueKeys("bull", queue).lock(job_id)
        wait_until(lambda key=key: client.call("EXISTS", key), "the job to start")
    pm2.run("restart", "0")
    pm2.run("restart", "1")
    for queue, count in (("bad", 10), ("good", 9)):
        wait_until(lambda q=queue, n=count: bull.counts(q)["completed"] == n, "all to complete")
    after = doctor(client, redis_server, settings=settings)
    (stopped,) = of(after, "stop-signal")
    assert stopped.subject.name == "pm2:careless"
    assert stopped.evidence["interrupted"] == 2
    assert {row["id"] for row in stopped.evidence["jobs"]} == set(busy[:2])
    assert "sends SIGINT and kills the process 1.6 s later" in stopped.what

    # Only one of them.
    one = examine(
        client, parse_url(redis_server.url), settings, target="pm2:careful", sleep=lambda _: None
    )
    about = {f.subject.name for f in one.findings if f.subject.kind in {"queue", "process"}}
    assert about == {"pm2:careful"}
    assert one.examined.queues == 1
