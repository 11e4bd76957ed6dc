"""``qctl acl``: each rule grants what its commands need, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from qctl import (
    AsyncQueue,
    Backoff,
    Dedup,
    FlowJob,
    Job,
    Queue,
    RateLimit,
    RateLimited,
    RetryLater,
    WaitForChildren,
    Worker,
)
from qctl.config.prefixes import parse_prefixes
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.connection.connect import connect
from qctl.ops.live.view import LiveReader, View
from qctl.wire import scripts
from qctl.wire.acl import OPERATE, READ, ROLES, WORKER, rule
from qctl.wire.read.heartbeats import beat
from qctl.wire.replies import to_dict
from qctl.wire.schedulers.scheduling import Schedule
from qctl.wire.write import cancelling
from tests.labs.build import Q, put
from tests.labs.cli import Ran, run
from tests.labs.commands import READING, leaves
from tests.labs.masters import MasterLab
from tests.labs.schedules import legacy, make
from tests.labs.servers import RedisServer, wait_until
from tests.labs.workers import BEAT

T = TypeVar("T")
SCRIPTS = [path.stem for path in Path(scripts.__file__).with_name("lua").glob("*.lua")]
READING_RUNS = """
status
queues
workers
impact q
doctor --full
metrics
jobs list q --state active
jobs list q --state stalled
jobs list q --state failed --since 1d
jobs show q a-stalled
jobs show q top
jobs logs q a-failed
jobs failures q
jobs tree q top
events q --since 1h
events q --follow --since 1h --limit 1
schedules list
schedules show q sched
wait q --for idle --timeout 0
wait q --for job=a-running --timeout 50ms
""".strip().splitlines()
OPERATING_RUNS = """
jobs retry q a-failed --yes
jobs retry-failed q --yes
jobs promote q --yes
jobs cancel q a-running a-waiting --yes
jobs remove q top --with-children --yes
purge q --state completed --yes
purge q --state waiting --yes
jobs add q welcome --delay 1h --dedup d:5s
jobs add q welcome --priority 3 --id w-1
pause q
resume q
queues set q --concurrency 3 --rate-limit 5/1m
queues delete q --yes
schedules set q new --every 1h
schedules set q new --cron '0 3 * * *'
schedules remove q sched --yes
schedules run q sched
schedules migrate q --yes
jobs retry-stalled q --yes --failed --count-stall
drain q --no-expect -- true
drain q --timeout 1
""".strip().splitlines()
# The doctor finds problems, a wait ends in vain, and some jobs are left alone: those of schedulers,
# and one whose worker does not answer.
OTHER_CODES = {"doctor": 1, "wait": 4, "purge": 7, "jobs cancel": 7}
# They connect to no Redis of an operator, or run what is run here in another way.
NOT_RUN = {
    *("acl", "completion", "config path", "config view", "contexts", "demo", "help"),
    *("mcp", "top", "restart", "worker list", "worker logs", "worker run"),
    *("worker start", "worker stop", "worker restart"),
}


class Lab:
    """A Redis with a replica, and users with the rules of ``qctl acl``.

    Attributes:
        used: the Redis commands that were sent as the user, or called by its scripts.
        loaded: the scripts that the user has loaded.
    """

    def __init__(self, server: RedisServer, client: Client) -> None:
        self.server = server
        self.client = client
        self.used: set[str] = set()
        self.loaded: set[str] = set()

    def user(self, *commands: str) -> str:
        """The URL of a new user with the rule for these commands."""
        self.used, self.loaded = set(), set()
        words = json.loads(run("acl", *commands, "--json").out)["rule"].split()
        assert self.client.call(*words) == "OK"
        self.client.call("ACL", "LOG", "RESET")
        return self.server.url_for(words[2], "CHANGE_ME")

    def observe(self, act: Callable[[], T]) -> T:
        """Do something as the user, and note what it used."""
        self.client.call("SCRIPT", "FLUSH")
        before = self._calls()
        result = act()
        after = self._calls()
        # One INFO is that of ``before``.
        before["info"] = before.get("info", 0) + 1
        self.used |= {name for name, count in after.items() if count > before.get(name, 0)}
        known = self.client.call("SCRIPT", "EXISTS", *map(scripts.sha, SCRIPTS))
        self.loaded |= {name for name, is_loaded in zip(SCRIPTS, known, strict=True) if is_loaded}
        return result

    def refused(self) -> set[str]:
        """The commands and keys that Redis has refused to users."""
        return {to_dict(row)["object"] for row in self.client.call("ACL", "LOG")}

    def script_commands(self) -> set[str]:
        """Every command that the loaded scripts may call, from their sources."""
        exist = {*self.client.call("COMMAND", "LIST")}
        text = "\n".join(
            line.partition("--")[0]
            for name in self.loaded
            for line in scripts.source(name).splitlines()
        )
        return {word.lower() for word in re.findall(r'"([A-Z]+)"', text)} & exist

    def _calls(self) -> dict[str, int]:
        text = self.client.call("INFO", "commandstats")
        return {m[1]: int(m[2]) for m in re.finditer(r"cmdstat_(\S+):calls=(\d+)", text)}


@pytest.fixture(scope="module")
def acl_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("acl")
    server = RedisServer(folder / "master", "--repl-diskless-sync-delay", "0").start()
    replica = RedisServer(folder / "replica", "--replicaof", "127.0.0.1", str(server.port)).start()
    with contextlib.closing(connect(server.url)[1]) as client:
        wait_until(lambda: "state=online" in client.call("INFO", "replication"), "the replica")
        yield Lab(server, client)
    replica.stop()
    server.stop()


def fill(lab: Lab) -> None:
    client = lab.client
    client.call("FLUSHALL")
    with Queue("q", redis_url=lab.server.url) as queue:
        children = [FlowJob("child", "q"), FlowJob("child", "other")]
        queue.add_flow(FlowJob("parent", "q", job_id="top", children=children))
    put(client, "a-waiting")
    put(client, "a-running", "active", lock="own-1:1", processedOn=1)
    put(client, "a-stalled", "active", processedOn=1)
    put(client, "a-failed", "failed", score=1, failedReason="on purpose", finishedOn=1)
    put(client, "a-done", "completed", score=1, returnvalue="1", finishedOn=1)
    client.call("RPUSH", Q.logs("a-failed"), "row")
    make(client, "sched", Schedule(every=60))
    legacy(client, "old", every=60_000, name="old")
    beat(client, BEAT, int(time.time() * 1000))


def run_each(lab: Lab, url: str, lines: list[str]) -> None:
    for line in lines:
        fill(lab)
        if line.startswith(("drain", "queues delete")):
            lab.client.call("LREM", Q("active"), 0, "a-running")
        words = shlex.split(line)
        ran: Ran = lab.observe(lambda w=words: run(*w, QCTL_REDIS_URL=url, PM2_HOME="/nonexistent"))
        assert "NOPERM" not in ran.err, (line, ran)
        codes = {code for start, code in OTHER_CODES.items() if line.startswith(start)}
        assert ran.code in {0, *codes}, ran


def test_every_command_is_run_here() -> None:
    lines = [*READING_RUNS, *OPERATING_RUNS]
    for path, _ in leaves():
        is_run = any(line == path or line.startswith(f"{path} ") for line in lines)
        assert is_run != (path in NOT_RUN), path
    for line in READING_RUNS:
        assert any(line == path or line.startswith(f"{path} ") for path in READING), line


def test_reading(acl_lab: Lab) -> None:
    lab = acl_lab
    url = lab.user("status", "jobs", "list")
    run_each(lab, url, READING_RUNS)
    # This user may run no script, so a drain would be refused, which is what `impact` reports.
    assert lab.refused() == {"evalsha"}
    lab.client.call("ACL", "LOG", "RESET")
    # Close to the limit, the doctor asks what the largest parts are.
    used = int(re.findall(r"used_memory:(\d+)", lab.client.call("INFO", "memory"))[0])
    lab.client.call("CONFIG", "SET", "maxmemory", used)
    try:
        lab.observe(lambda: run("doctor", "q", QCTL_REDIS_URL=url, PM2_HOME="/nonexistent"))
    finally:
        lab.client.call("CONFIG", "SET", "maxmemory", 0)
    with contextlib.closing(connect(url)[1]) as client:
        reader = LiveReader(client, Address(), Settings())
        for view in (View(), View(("q",), "q")):
            lab.observe(lambda view=view: reader.read(view))
    assert not lab.refused()
    assert not lab.loaded
    assert set(READ.commands) <= lab.used


def test_working(acl_lab: Lab, tmp_path: Path) -> None:
    """Workers in this process, then a master that loses a process, and is restarted by a drain."""
    lab = acl_lab
    lab.client.call("FLUSHALL")
    url = lab.user("worker")
    lab.observe(lambda: asyncio.run(work(url)))
    master_lab = MasterLab(tmp_path, url)
    try:
        lab.observe(lambda: lose_a_process(master_lab))
        assert not lab.refused()
        inner = lab.script_commands()
        assert inner <= set(WORKER.commands)
        assert set(WORKER.commands) <= lab.used | inner
        restarted = master_lab.qctl(
            "restart", "qctl:mail", "--yes", QCTL_REDIS_URL=lab.user("restart")
        )
        assert restarted.returncode == 0, restarted
        assert not lab.refused()
        master_lab.qctl("worker", "stop", "mail")
    finally:
        master_lab.close()


def test_operating(acl_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Last, because the watchdogs of its drains may end later."""
    # No worker answers the request.
    monkeypatch.setattr(cancelling, "ANSWER_S", 0.1)
    lab = acl_lab
    run_each(lab, lab.user("drain"), OPERATING_RUNS)
    assert not lab.refused()
    inner = lab.script_commands()
    assert inner <= set(OPERATE.commands)
    # The reading role's test has shown that its commands are needed.
    assert set(OPERATE.commands) - set(READ.commands) <= lab.used | inner


async def work(url: str) -> None:
    """Everything that a worker and a producer of the runtime do."""
    worker = Worker(
        "q",
        redis_url=url,
        concurrency=5,
        rate_limit=RateLimit(1000, 1.0),
        lock_ttl_s=2,
        stalled_interval_s=0.2,
        drain_delay_s=0.2,
        remove_on_complete=20,
        metrics_minutes=5,
    )

    @worker.task("retried")
    async def retried(job: Job) -> None:
        await job.update_progress(50)
        await job.update_data({"a": 1})
        await job.log("row")
        if job.attempts_started == 1:
            raise RetryLater(0.01)
        if job.attempts_started == 2:
            raise RateLimited(0.05)
        if job.attempts_started < 5:
            raise ValueError("again")

    @worker.task("parent")
    async def parent(job: Job) -> dict[str, Any]:
        if job.attempts_started == 1:
            async with AsyncQueue("q", redis_url=url) as queue:
                await queue.add("child", parent=job.as_parent)
            raise WaitForChildren
        await job.ignored_failures()
        return await job.children_values()

    @worker.task("child")
    async def child(_: Job) -> str:
        return "done"

    @worker.task("endless")
    async def endless(_: Job) -> None:
        await asyncio.sleep(600)

    @worker.every(0.2)
    async def tick(_: Job) -> None:
        pass

    async def active(queue: AsyncQueue) -> Any:
        handle = await queue.add("endless")
        while await handle.status() != "active":
            await asyncio.sleep(0.02)
        return handle

    await worker.start()
    try:
        async with asyncio.timeout(30), AsyncQueue("q", redis_url=url) as queue:
            backoff = Backoff("fixed", 0.01)
            job = await queue.add("retried", attempts=3, backoff=backoff, dedup=Dedup("d", 60))
            await job.result(20)
            flow = await queue.add_flow(FlowJob("parent", "q", children=[FlowJob("child", "q")]))
            assert len(await queue.handle(flow.id).result(20)) == 2
            await (await queue.add("child", delay=0.05, priority=3)).result(20)
            await (await queue.add("child", lifo=True)).result(20)
            await (await queue.add("child", delay=600)).promote()
            await (await queue.add("child", delay=600)).remove()
            await queue.upsert_scheduler("s", every=60)
            await queue.schedulers()
            await queue.remove_scheduler("s")
            assert await (await active(queue)).cancel("not needed")
            await queue.counts()
            for state in ("waiting", "active", "completed"):
                await queue.jobs(state)
            async for _ in queue.events(after="0-0"):
                break
            # The end of the worker gives it back.
            await active(queue)
    finally:
        await worker.stop(0.1)


def lose_a_process(lab: MasterLab) -> None:
    started = lab.qctl("worker", "start", "mail", "app:worker", "--json")
    assert started.returncode == 0, started
    (held,) = lab.add(held=True)
    lab.wait_started(held)
    pid = dict(lab.starts())[held]
    os.kill(pid, signal.SIGKILL)
    # Another process runs it again at once.
    wait_until(lambda: lab.counts()[held] == 2, "the job to run again")
    lab.release()
    lab.wait_completed([held])


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        (["bull"], ["bull:*"]),
        (["a-b", "app*", "{$QUEUE}"], ["a-b:*", "app*:*", "{*}:*"]),
        ([r"x[1]\*"], [r"x\[1]\*:*"]),
        (["a b", "it's"], ["a?b:*", "it?s:*"]),
    ],
)
def test_keys(client: Client, words: list[str], patterns: list[str]) -> None:
    prefixes = parse_prefixes(words)
    found = rule([READ], prefixes)
    assert found.keys == (*(f"%R~{pattern}" for pattern in patterns), "%R~qctl:*")
    found = rule([WORKER], prefixes)
    assert found.keys == (*(f"~{pattern}" for pattern in patterns), "~qctl:*")
    user = found.rule.split()[2]
    client.call(*found.rule.split())
    try:
        for word in words:
            key = f"{word.replace('$QUEUE', 'q').replace(chr(92), '')}:q:1"
            assert client.call("ACL", "DRYRUN", user, "GET", key) == "OK"
        refused = client.call("ACL", "DRYRUN", user, "GET", "other:q:1")
        assert "no permissions" in refused
    finally:
        client.call("ACL", "DELUSER", user)


def test_what_is_printed() -> None:
    lines = run("acl").out.splitlines()
    assert [line.split()[2] for line in lines] == [f"qctl-{role.name}" for role in ROLES]
    assert [each["rule"] for each in json.loads(run("acl", "--json").out)["rules"]] == lines
    shown = run("acl", terminal=True)
    assert [line.split()[0] for line in shown.out.splitlines()[:3]] == ["read", "operate", "worker"]
    assert shown.out.splitlines()[-1] == lines[0]
    assert "CHANGE_ME" in shown.err
    assert "%R~" in shown.err
    drain = json.loads(run("acl", "drain", "jobs", "list", "--json").out)
    assert list(drain) == ["role", "does", "commands", "keys", "channels", "rule"]
    assert (drain["role"], drain["channels"]) == ("operate", [])
    for words, role in (
        ("status", "read"),
        ("queues", "read"),
        ("jobs list events", "read"),
        ("jobs", "operate"),
        ("queues set", "operate"),
        ("worker run", "worker"),
        ("operate worker read", "operate+worker"),
    ):
        assert json.loads(run("acl", *words.split(), "--json").out)["role"] == role, words
    wrong = run("acl", "drian")
    assert (wrong.code, "try: qctl acl drain" in wrong.err) == (2, True)
    assert run("acl", "config").code == 2


def test_the_connection() -> None:
    """Rights that depend on the URL; a password command is not run."""

    def commands(url: str) -> set[str]:
        return set(json.loads(run("acl", "--redis", url, "status", "--json").out)["commands"])

    usual = set(READ.commands)
    assert commands("redis://h/0") == usual
    assert commands("redis://h/3") - usual == {"select"}
    assert commands("redis+sentinel://h:26379/main") - usual == {"role"}
    cluster = {"asking", "cluster|nodes", "cluster|slots"}
    assert commands("redis+cluster://h:7000") - usual == cluster
