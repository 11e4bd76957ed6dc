"""Redis Cluster and Sentinel: real nodes on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from qctl import AsyncQueue, Job, Queue, Worker
from qctl.config.prefixes import EVERY_PREFIX
from qctl.config.settings import Settings
from qctl.connection.address import parse_url
from qctl.connection.cluster import key_slot
from qctl.connection.connect import connect
from qctl.errors import ExitStatus, ReplyError, UnreachableError
from qctl.ops.doctor.run import examine
from qctl.ops.jobs.flows import read_tree
from qctl.wire.events import last_event_id, read_events
from qctl.wire.jobs import read_jobs
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import client_name, list_workers
from qctl.wire.read.discovery import survey
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from qctl.wire.write.pausing import free_lease, hold_lease, pause, resume
from qctl.wire.write.transitions import retry_finished, retry_stalled
from tests.labs.build import CLASS, events, holder, is_paused, put, row, scores
from tests.labs.bulk import child
from tests.labs.cli import run
from tests.labs.clusters import NODES, SLOTS, Cluster, Move
from tests.labs.forks import add_own, exit_code, forked
from tests.labs.jobs import discovered
from tests.labs.servers import RedisServer, free_port

# In one slot, and all over the cluster.
TAGGED = [QueueKeys("{bull}", f"q{n}") for n in range(3)]
SPREAD = [QueueKeys("bull", f"{{q{n}}}") for n in range(20)]


def test_all_masters_are_known(cluster: Cluster) -> None:
    ports = {master.call("CONFIG", "GET", "port")[1] for master in cluster.client.masters()}
    assert ports == {str(node.port) for node in cluster.nodes}


def test_queues_are_found_on_every_node(cluster: Cluster) -> None:
    for keys in [*TAGGED, *SPREAD]:
        put(cluster.client, "1", keys=keys)
    sizes = [master.call("DBSIZE") for master in cluster.client.masters()]
    assert all(sizes), "the keys should be spread over all nodes"
    assert discovered(cluster.client, "{bull}") == [keys.name for keys in TAGGED]
    assert discovered(cluster.client, "bull") == sorted(keys.name for keys in SPREAD)
    assert {q.prefix for q in survey(cluster.client, EVERY_PREFIX).queues} == {"bull", "{bull}"}


def test_snapshots_of_queues_on_several_nodes(cluster: Cluster) -> None:
    for number, keys in enumerate(SPREAD):
        for n in range(number + 1):
            put(cluster.client, f"w{n}", keys=keys)
        put(cluster.client, "a", "active", keys=keys, lock="t:1" if number % 2 else "")
    found = read_snapshots(cluster.client, [*SPREAD, QueueKeys("bull", "{none}")])
    assert found.pop() is None
    for number, snapshot in enumerate(found):
        assert isinstance(snapshot, QueueSnapshot)
        assert snapshot.keys == SPREAD[number]
        assert snapshot.counts.waiting == number + 1
        assert snapshot.counts.stalled == (number + 1) % 2


def test_one_broken_queue_does_not_hide_the_others(cluster: Cluster) -> None:
    good, bad = SPREAD[:2]
    put(cluster.client, "a", keys=good)
    cluster.client.call("SET", bad("wait"), "text")
    fine, broken = read_snapshots(cluster.client, [good, bad])
    assert isinstance(fine, QueueSnapshot)
    assert isinstance(broken, ReplyError)
    assert broken.code == "WRONGTYPE"


@pytest.mark.parametrize("keys", [TAGGED[0], SPREAD[0]], ids=["prefix", "name"])
def test_pause_and_resume(cluster: Cluster, keys: QueueKeys) -> None:
    client = cluster.client
    put(client, "a", keys=keys)
    client.call("RPUSH", keys("paused"), "old")
    assert pause(client, keys, holder("me")).changed
    assert is_paused(client, keys)
    assert not resume(client, keys, owner="you").owned
    outcome = resume(client, keys, owner="me")
    assert (outcome.changed, outcome.moved) == (True, 2)
    assert row(client, "wait", keys) == ["a", "old"]
    assert [event["event"] for event in events(client, keys)] == ["paused", "resumed"]


@pytest.mark.parametrize("keys", [TAGGED[0], SPREAD[0]], ids=["prefix", "name"])
def test_retry(cluster: Cluster, keys: QueueKeys) -> None:
    client = cluster.client
    put(client, "a", "active", keys=keys)
    put(client, "p", "active", keys=keys, priority=2)
    put(client, "held", "active", keys=keys, lock="t:1")
    put(client, "f", "failed", keys=keys, score=5, failedReason="boom")
    answers = retry_stalled(client, keys, {"a": "", "p": "", "held": ""})
    assert answers == {"a": "retried", "p": "retried", "held": "locked"}
    assert retry_finished(client, keys, ["f"], run_next=True) == {"f": "retried"}
    assert row(client, "wait", keys) == ["a", "f"]
    assert scores(client, "prioritized", keys) == {"p": str(2 * CLASS)}
    assert [job and job.record.id for job in read_jobs(client, keys, ["a", "none"])] == ["a", None]


@pytest.mark.parametrize(
    ("keys", "other"), [(TAGGED[0], TAGGED[1]), (SPREAD[0], SPREAD[1])], ids=["prefix", "name"]
)
def test_limits_and_deletion_of_a_queue(
    cluster: Cluster, keys: QueueKeys, other: QueueKeys
) -> None:
    for n in range(700):
        put(cluster.client, str(n), keys=keys)
    put(cluster.client, "1", keys=other)
    words = (keys.name, "--prefix", keys.prefix, "--redis", cluster.url)
    assert run("queues", "set", *words, "--concurrency", "5").code == 0
    assert cluster.client.call("HGET", keys("meta"), "concurrency") == "5"
    # No worker of BullMQ before 5.80 has a name here, but without running jobs none is suspected.
    ran = run("queues", "delete", *words, "--yes")
    assert (ran.code, ran.out) == (0, f"{keys.name} is deleted: 702 keys\n")
    left = [key for node in cluster.client.masters() for key in node.call("KEYS", "*")]
    assert sorted(left) == sorted(other(name) for name in ("1", "wait", "meta"))


def test_a_flow_over_several_nodes(cluster: Cluster) -> None:
    """BullMQ keeps a flow in one slot; reading does not rely on it."""
    above = (SPREAD[0], "top")
    put(cluster.client, "top", "waiting-children", keys=SPREAD[0], score=1)
    for keys in SPREAD[1:4]:
        child(cluster.client, (keys, "c"), above)
    tree = read_tree(cluster.client, (SPREAD[3], "c"))
    assert (tree.root.id, tree.nodes) == ("top", 4)
    assert {node.state for node in tree.root.children} == {"waiting"}


def test_a_drain_of_queues_with_a_prefix_each(cluster: Cluster) -> None:
    queues = [QueueKeys(f"{{q{n}}}", f"q{n}") for n in range(4)]
    assert len({key_slot(keys("").encode()) * NODES // SLOTS for keys in queues}) > 1
    for keys in queues:
        put(cluster.client, "1", keys=keys)
    words = ("--prefix", "{$QUEUE}", "--redis", cluster.url)
    ran = run("drain", *(keys.name for keys in queues), *words, "--json", PM2_HOME="/nonexistent")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    labels = [keys.full_name for keys in queues]
    assert (report["outcome"], report["lost"]) == ("drained", 0)
    assert report["queues"] == report["still_paused"] == report["unserved"] + labels
    assert all(is_paused(cluster.client, keys) for keys in queues)
    ran = run("resume", *labels, "--redis", cluster.url)
    assert ran.code == 0, ran.err
    assert not any(is_paused(cluster.client, keys) for keys in queues)


def test_scripts_load_on_each_node(cluster: Cluster) -> None:
    for master in cluster.client.masters():
        master.call("SCRIPT", "FLUSH")
    for keys in SPREAD:
        assert hold_lease(cluster.client, keys, holder("me")) is None
        assert hold_lease(cluster.client, keys, holder("you")) == holder("me")
        free_lease(cluster.client, keys, "me")
        assert cluster.client.call("EXISTS", keys.lease) == 0


def test_events_of_one_slot(cluster: Cluster) -> None:
    first, second = TAGGED[:2]
    put(cluster.client, "a", keys=first)
    put(cluster.client, "a", keys=second)
    cursors = {keys: last_event_id(cluster.client, keys) for keys in (first, second)}
    pause(cluster.client, first, holder("me"))
    pause(cluster.client, second, holder("me"))
    found = read_events(cluster.client, cursors, block_ms=1000)
    assert sorted((keys.name, event.name) for keys, event in found) == [
        ("q0", "paused"),
        ("q1", "paused"),
    ]


def test_events_of_queues_on_several_nodes(cluster: Cluster) -> None:
    cursors = {keys: last_event_id(cluster.client, keys) for keys in SPREAD}
    for keys in SPREAD:
        pause(cluster.client, keys, holder("me"))
    found = read_events(cluster.client, cursors)
    assert {keys for keys, _ in found} == set(SPREAD)
    assert read_events(cluster.client, cursors) == []


def test_workers_on_every_node(cluster: Cluster) -> None:
    with contextlib.ExitStack() as stack:
        for number, node in enumerate(cluster.nodes):
            worker = stack.enter_context(contextlib.closing(connect(node.url)[1]))
            worker.call("CLIENT", "SETNAME", client_name("{bull}", f"q{number}", "w"))
        found = list_workers(cluster.client, "{bull}")
    assert found is not None
    assert sorted(worker.queue for worker in found) == ["q0", "q1", "q2"]


def test_keys_of_different_slots_are_refused_with_a_reason(cluster: Cluster) -> None:
    # A prefix without a hash tag: BullMQ itself does not work here either.
    keys = QueueKeys("plain", "q")
    with pytest.raises(ReplyError) as caught:
        pause(cluster.client, keys, holder("me"))
    assert "slot" in caught.value.why.lower()


@pytest.mark.parametrize("keys", [TAGGED[0], SPREAD[0]], ids=["prefix", "name"])
def test_the_commands_on_jobs(cluster: Cluster, keys: QueueKeys) -> None:
    client, name = cluster.client, keys.name
    for state in ("failed", "completed", "delayed"):
        for number in range(5):
            put(client, f"{state[0]}{number}", state, keys=keys, score=number, timestamp=1)

    def qctl(*words: str) -> str:
        url = f"redis+cluster://127.0.0.1:{cluster.nodes[2].port}"
        ran = run(*words, "--prefix", keys.prefix, "--redis", url, PM2_HOME="/nonexistent")
        assert ran.code == 0, (words, ran.err)
        return ran.out

    assert "f0 " in qctl("jobs", "list", name, "--state", "failed")
    assert "2 jobs retried" in qctl("jobs", "retry-failed", name, "--limit", "2", "--yes")
    assert "2 jobs promoted" in qctl("jobs", "promote", name, "--limit", "2", "--yes")
    assert "1 job deleted" in qctl("jobs", "remove", name, "c4", "--yes")
    assert "4 jobs deleted" in qctl("purge", name, "--state", "completed", "--yes")
    (counted,) = json.loads(qctl("status", name, "--json"))["queues"]
    assert counted["counts"] | {"waiting": 4, "failed": 3, "delayed": 3} == counted["counts"]
    for line in ("cleaned", "removed", "waiting"):
        assert line in qctl("events", name)
    labels = f'prefix="{keys.prefix}",queue="{name}",state="failed"'
    assert f"qctl_queue_jobs{{{labels}}} 3" in qctl("metrics")
    assert "nothing is active" in qctl("wait", name, "--for", "idle")

    with contextlib.closing(Queue(name, redis_url=cluster.url, prefix=keys.prefix)) as q:
        q.upsert_scheduler("s", cron="0 3 * * *", data={"a": 1})
    assert "0 3 * * *" in qctl("schedules", "list", name)
    ran = json.loads(qctl("schedules", "run", name, "s", "--json"))
    assert client.call("HGET", keys(ran["id"]), "data") == '{"a":1}'
    assert "removed" in qctl("schedules", "remove", name, "s")
    assert qctl("schedules", "list", name) == ""


def test_impact_tells_what_the_nodes_have_in_common_once(cluster: Cluster) -> None:
    for keys in SPREAD[:4]:
        put(cluster.client, "a", "active", keys=keys, lock="t:1", timestamp=1)
        put(cluster.client, "b", keys=keys, timestamp=1)
    words = ("impact", "--redis", cluster.url)
    ran = run(*words, PM2_HOME="/nonexistent")
    assert ran.code == 0, ran.err
    assert " ".join(ran.out.split()).count("Redis keeps nothing on disk") == 1
    report = json.loads(run(*words, "--json", PM2_HOME="/nonexistent").out)
    assert len(report["data"]) == NODES


def test_a_bulk_change_of_a_scattered_queue_says_why_not(cluster: Cluster) -> None:
    # BullMQ itself does not work here either.
    keys = QueueKeys("plain", "q")
    put(cluster.client, "a", "failed", keys=keys, score=1, timestamp=1)
    words = ("jobs", "retry-failed", "q", "--yes", "--prefix", "plain")
    ran = run(*words, "--redis", cluster.url)
    assert ran.code == ExitStatus.FAILED
    assert "different slots of the cluster" in ran.err
    assert "hash tag" in ran.err
    assert list(scores(cluster.client, "failed", keys)) == ["a"]
    ran = run("jobs", "add", "q", "x", "--prefix", "plain", "--redis", cluster.url)
    assert "different slots of the cluster" in ran.err


def test_no_node_answers() -> None:
    url = f"redis+cluster://:s3cretive@127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    with contextlib.closing(connect(url)[1]) as client, pytest.raises(UnreachableError) as caught:
        client.call("PING")
    assert "s3cretive" not in f"{caught.value.what} {caught.value.why}"


def test_a_server_that_is_no_cluster(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis+cluster://").removesuffix("/0")
    with contextlib.closing(connect(url)[1]) as client, pytest.raises(ReplyError) as caught:
        client.call("PING")
    assert "cluster support disabled" in caught.value.why


@pytest.mark.parametrize("key", ["a", "{bull}:q:wait", "x{}y", "{}", "{", "a}b{c}d{e}", "{ü}", ""])
def test_slots_are_those_of_redis(cluster: Cluster, key: str) -> None:
    assert key_slot(key.encode()) == cluster.client.call("CLUSTER", "KEYSLOT", key)


def test_a_slot_on_its_way_to_another_node(cluster: Cluster) -> None:
    keys = QueueKeys("{on-its-way}", "q")
    put(cluster.client, "a", keys=keys)
    with Move(cluster, "on-its-way") as move:
        move.carry([keys("wait"), keys("meta"), keys("a")])
        # ASK: the keys are there, the slot is not yet.
        assert row(cluster.client, "wait", keys) == ["a"]
        assert cluster.client.pipeline([("LLEN", keys("wait")), ("PING",)]) == [1, "PONG"]
    # MOVED: the map that the client holds is old.
    assert pause(cluster.client, keys, holder("me")).changed
    assert row(cluster.client, "wait", keys) == ["a"]


def test_a_worker_follows_a_slot_that_moves(cluster: Cluster) -> None:
    keys = QueueKeys("{moving}", "work")
    worker = Worker("work", redis_url=cluster.url, prefix=keys.prefix, drain_delay_s=0.5)
    ran: list[str] = []

    @worker.task()
    async def note(job: Job) -> None:
        ran.append(job.id)

    async def add_and_wait() -> None:
        async with AsyncQueue("work", redis_url=cluster.url, prefix=keys.prefix) as queue:
            job_id = await queue.add("x")
        async with asyncio.timeout(20):
            while job_id not in ran:
                await asyncio.sleep(0.01)

    async def main() -> None:
        await worker.start()
        await add_and_wait()
        await worker.wait_until_idle()
        with Move(cluster, "moving"):
            pass
        await add_and_wait()
        await worker.stop()

    asyncio.run(main())
    assert len(ran) == 2


# Sentinel


@pytest.fixture
def sentinel(start_redis: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    """(master, sentinel); the master is known as "main"."""
    master = start_redis()
    watcher = start_redis(sentinel_of={"main": ("127.0.0.1", master.port)})
    return master, watcher


def test_the_master_is_found_through_a_sentinel(
    sentinel: tuple[RedisServer, RedisServer],
) -> None:
    master, watcher = sentinel
    keys = QueueKeys("bull", "q")
    url = f"redis+sentinel://127.0.0.1:{watcher.port}/main/0"
    with contextlib.closing(connect(url)[1]) as client:
        put(client, "a", keys=keys)
        put(client, "s", "active", keys=keys)
        assert client.call("CONFIG", "GET", "port")[1] == str(master.port)
        assert discovered(client, "bull") == ["q"]
        assert pause(client, keys, holder("me")).changed
        (found,) = read_snapshots(client, [keys])
        assert isinstance(found, QueueSnapshot)
        assert (found.paused, found.counts.waiting, found.counts.stalled) == (True, 1, 1)
        assert retry_stalled(client, keys, {"s": ""}) == {"s": "retried"}
        assert resume(client, keys).changed
        assert list_workers(client, "bull") == []
        cursors = {keys: "0-0"}
        names = [event.name for _, event in read_events(client, cursors)]
        assert names == ["paused", "waiting", "stalled", "resumed"]
        assert read_events(client, cursors, block_ms=10) == []


def test_a_sentinel_url_with_a_database(sentinel: tuple[RedisServer, RedisServer]) -> None:
    master, watcher = sentinel
    url = f"redis+sentinel://127.0.0.1:{watcher.port}/main/2"
    with contextlib.closing(connect(url)[1]) as client:
        client.call("SET", "k", "v")
    with contextlib.closing(connect(master.url_for(db=2))[1]) as client:
        assert client.call("GET", "k") == "v"


def test_a_master_that_the_sentinel_does_not_know(
    sentinel: tuple[RedisServer, RedisServer],
) -> None:
    url = f"redis+sentinel://127.0.0.1:{sentinel[1].port}/other"
    with contextlib.closing(connect(url)[1]) as client, pytest.raises(UnreachableError) as caught:
        client.call("PING")
    assert "other" in caught.value.why


def test_no_sentinel_answers() -> None:
    url = f"redis+sentinel://:s3cretive@127.0.0.1:{free_port()}/main"
    with contextlib.closing(connect(url)[1]) as client, pytest.raises(UnreachableError) as caught:
        client.call("PING")
    assert "s3cretive" not in f"{caught.value.what} {caught.value.why}"


def test_a_sentinel_master_with_a_password(start_redis: Callable[..., RedisServer]) -> None:
    master = start_redis("--requirepass", "s3cretive")
    watcher = start_redis(sentinel_of={"main": ("127.0.0.1", master.port)})
    url = f"redis+sentinel://:s3cretive@127.0.0.1:{watcher.port}/main"
    with contextlib.closing(connect(url)[1]) as client:
        assert client.call("PING") == "PONG"
    wrong = f"redis+sentinel://:wrong@127.0.0.1:{watcher.port}/main"
    with contextlib.closing(connect(wrong)[1]) as client, pytest.raises(ReplyError) as caught:
        client.call("PING")
    assert caught.value.code in {"NOAUTH", "WRONGPASS"}


async def run_jobs(url: str, prefix: str, jobs: int) -> list[str]:
    """Add jobs, half of them by each kind of producer, and run them; the ids that ran."""
    ran: list[str] = []
    worker = Worker("work", redis_url=url, prefix=prefix, concurrency=5)

    @worker.task()
    async def note(job: Job) -> None:
        await job.update_progress(1)
        ran.append(job.id)

    with Queue("work", redis_url=url, prefix=prefix) as queue:
        for _ in range(jobs // 2):
            queue.add("x")
    async with AsyncQueue("work", redis_url=url, prefix=prefix) as queue:
        for _ in range(jobs // 2):
            await queue.add("x")
    await worker.start()
    await worker.wait_until_idle()
    await worker.stop()
    return ran


def test_a_worker_on_a_cluster(cluster: Cluster) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}"
    # Prefixes whose queues lie on different nodes.
    for prefix in ("{a}", "{b}", "{c}"):
        assert len(set(asyncio.run(run_jobs(url, prefix, 20)))) == 20
        assert cluster.client.call("ZCARD", QueueKeys(prefix, "work")("completed")) == 20
    slots = {key_slot(f"{{{tag}}}".encode()) * NODES // SLOTS for tag in "abc"}
    assert len(slots) > 1


def test_a_worker_through_a_sentinel(sentinel: tuple[RedisServer, RedisServer]) -> None:
    url = f"redis+sentinel://127.0.0.1:{sentinel[1].port}/main/0"
    assert len(set(asyncio.run(run_jobs(url, "bull", 20)))) == 20


def test_the_doctor(cluster: Cluster) -> None:
    address = parse_url(f"redis+cluster://127.0.0.1:{cluster.nodes[0].port}")
    for keys in (*SPREAD, QueueKeys("bull", "loose")):
        put(cluster.client, "1", "completed", keys=keys)
        put(cluster.client, "p", "waiting-children", keys=keys)
        cluster.client.call("SADD", keys("p:dependencies"), keys("1"))
        cluster.client.call("SET", keys("de:d"), "1")
        cluster.client.call("ZADD", keys("completed"), 2, "bare")
    put(cluster.client, "lost", "", keys=SPREAD[3])
    with contextlib.ExitStack() as stack:
        # One worker, connected to each node.
        for node in cluster.nodes:
            connection = stack.enter_context(contextlib.closing(connect(node.url)[1]))
            connection.call("CLIENT", "SETNAME", client_name("bull", SPREAD[0].name, "w"))
        settings = Settings(pm2_home=Path("/nonexistent"), state_home=Path("/nonexistent"))
        diagnosis = examine(cluster.client, address, settings, sleep=lambda _: None)
    assert {each.status for each in diagnosis.checks} == {"ok", "found", "skipped"}
    found = Counter(f.check for f in diagnosis.findings if f.subject.kind == "queue")
    everywhere = len(SPREAD) + 1
    assert found == {"cluster-prefix": 1, "missing-hashes": everywhere, "lost-jobs": 1}
    (loose,) = (f for f in diagnosis.findings if f.check == "cluster-prefix")
    assert loose.subject.name == "loose"
    unsaved = [f for f in diagnosis.findings if f.check == "persistence"]
    ports = sorted(node.port for node in cluster.nodes)
    assert [f.subject.name for f in unsaved] == [f"127.0.0.1:{port}" for port in ports]
    assert unsaved[0].commands == (
        f"redis-cli -h 127.0.0.1 -p {ports[0]} config set appendonly yes",
    )


def test_a_queue_outlives_forks_and_idle_connections(cluster: Cluster) -> None:
    with Queue("q", redis_url=cluster.url, prefix="{fork}") as queue:
        queue.add("warm", job_id="warm")
        pids = [forked(partial(add_own, queue, f"child{n}", 30)) for n in range(2)]
        assert add_own(queue, "parent", 30) == 0
        assert [exit_code(pid) for pid in pids] == [0, 0]
        for node in cluster.client.masters():
            node.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert queue.add("x", job_id="after") == "after"
    assert cluster.client.call("LLEN", "{fork}:q:wait") == 3 * 60 + 2
