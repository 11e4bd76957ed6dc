"""``qctl mcp`` as an agent sees it: tools, answers, refusals, guards, what is never written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qctl.cli.mcp import command as mcp_command
from qctl.cli.mcp import plans as plans_module
from qctl.cli.mcp.bounds import MAX_CHARACTERS, bounded
from qctl.cli.mcp.plans import PLAN_AGE_S, Plans
from qctl.cli.mcp.tools import _NEVER, MAX_LIMIT, TOOLS, Tool
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ExitStatus, UsageError
from qctl.extras import install_command
from qctl.output.json import dumps
from qctl.wire.drain_record import read_drain_records
from qctl.wire.keys import QueueKeys
from tests.labs.agent import Agent, server_processes, until, with_agent
from tests.labs.build import is_paused, put, row
from tests.labs.cli import qctl, run
from tests.labs.commands import READING, flags_of
from tests.labs.servers import RedisServer, wait_until

SECRET = "hunter2-secret"  # noqa: S105 - it opens nothing
READS = [tool.name for tool in TOOLS if not tool.writes]
WRITES = [tool.name for tool in TOOLS if tool.writes]
# One call of each tool that reads, on the queues of ``fill``.
CALLS: dict[str, dict[str, Any]] = {
    "status": {},
    "queues": {},
    "workers": {"queues": ["q"]},
    "jobs_list": {"queue": "q", "state": "failed", "limit": 5},
    "jobs_show": {"queue": "q", "id": "f1"},
    "jobs_failures": {"queue": "q", "by": "name"},
    "jobs_tree": {"queue": "q", "id": "f1", "depth": 2},
    "impact": {"queues": ["q"], "grace": "10s", "signal": "TERM"},
    "doctor": {"queues": ["q"], "full": True},
    "schedules_list": {},
    "schedules_show": {"queue": "q", "id": "nightly"},
    "events": {"queue": "q", "event": ["added", "failed"], "limit": 3},
}


def fill(client: Client) -> None:
    put(client, "1")
    put(client, "f1", "failed", score=1, failedReason="boom", finishedOn=1_700_000_000_000)
    client.call("XADD", "bull:q:events", "*", "event", "failed", "jobId", "f1")


# The table


def test_every_tool_takes_what_its_command_takes() -> None:
    for tool in TOOLS:
        taken = set(tool.schema["properties"])
        flags = flags_of(tool.command)
        for parameter in tool.command.params:
            if not set(parameter.opts) & _NEVER:
                flag = max(parameter.opts, key=len).removeprefix("--").replace("-", "_")
                metavar = (parameter.metavar or "").strip("[].").lower()
                assert taken & {flag, metavar, f"{metavar}s"}, (tool.name, parameter.name)
        assert all(each["description"] for each in tool.schema["properties"].values())
        # A command that writes has a tool that asks for confirm; the others read.
        assert tool.writes == ("confirm" in taken) == ("--dry-run" in flags)
        assert tool.writes == (tool.path not in READING)
        assert tool.description.startswith(tool.command.help.partition("\n")[0])


def test_arguments_become_the_words_of_the_command() -> None:
    by_name = {tool.name: tool for tool in TOOLS}
    arguments = {"queues": ["a b"], "include_others": False, "timeout": "30s", "then_restart": True}
    assert by_name["drain"].words({**arguments, "keep_paused": False}) == [
        *("drain", "a b", "--then-restart", "--timeout=30s", "--ignore-others"),
    ]
    listing = {"queue": "q", "state": "failed", "id": ["1", "-2"], "limit": 5.0}
    assert by_name["jobs_list"].words(listing) == [
        *("jobs", "list", "q", "--state=failed", "--id=1", "--id=-2", "--limit=5"),
    ]


@pytest.mark.parametrize("name", ["--", "-rf", "--redis=redis://elsewhere"])
def test_a_name_is_never_an_option_or_the_end_of_them(name: str) -> None:
    """After ``--``, the words of a drain are a command to run."""
    with pytest.raises(UsageError):
        Tool("drain").words({"queues": [name, "touch"]})


# An agent


def test_tools_that_read(redis_url: str, client: Client, tmp_path: Path) -> None:
    fill(client)
    assert set(CALLS) == set(READS)

    async def work(agent: Agent) -> None:
        listed = {tool.name: tool for tool in (await agent.client.list_tools()).tools}
        assert list(listed) == READS
        for tool in listed.values():
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
            assert not tool.annotations.destructive_hint
        for name, arguments in CALLS.items():
            if name == "schedules_show":
                answer = await agent.call(name, fails=True, **arguments)
                assert answer["exit_code"] == ExitStatus.NOT_FOUND
                assert "nightly" in answer["error"]["what"]
                continue
            answer = await agent.call(name, **arguments)
            assert answer["error"] is None
            assert answer["exit_code"] == (1 if name == "doctor" else 0)
            assert answer["result"]
        # The fields of the command line.
        shown = await agent.call("jobs_show", queue="q", id="f1")
        assert shown["result"] == json.loads(
            qctl(redis_url, "jobs", "show", "q", "f1", "--json").out
        )
        status = await agent.call("status")
        (queue,) = status["result"]["queues"]
        assert (queue["counts"]["failed"], queue["workers"]) == (1, 0)

        # Without --allow-writes.
        for name in WRITES:
            refused = await agent.call(name, fails=True, queues=["q"], confirm=True)
            assert refused["exit_code"] == ExitStatus.REFUSED
            assert "--allow-writes" in refused["error"]["hint"]

    log = with_agent(work, env={"QCTL_REDIS_URL": redis_url}, folder=tmp_path)
    assert log == ""
    assert not is_paused(client)


def test_a_write_needs_its_plan_first(redis_url: str, client: Client, tmp_path: Path) -> None:
    fill(client)

    async def work(agent: Agent) -> None:
        listed = {tool.name: tool for tool in (await agent.client.list_tools()).tools}
        assert list(listed) == READS + WRITES
        hints = {name: listed[name].annotations for name in WRITES}
        assert all(hint and not hint.read_only_hint for hint in hints.values())
        assert all(hint and hint.destructive_hint for hint in hints.values())
        idempotent = {name for name, hint in hints.items() if hint and hint.idempotent_hint}
        assert idempotent == {"pause", "resume"}

        # At once with confirm, and without it: plans.
        for confirm in (True, False):
            plan = await agent.call("pause", queues=["q"], confirm=confirm)
            assert (plan["dry_run"], plan["result"]["dry_run"]) == (True, True)
            assert ("ignored" in plan["next"]) == confirm
            assert not is_paused(client)
        # Other arguments have no plan yet.
        put(client, "1", keys=QueueKeys("bull", "other"))
        plan = await agent.call("pause", queues=["q", "other"], confirm=True)
        assert plan["dry_run"]
        assert not is_paused(client)
        done = await agent.call("pause", queues=["q"], confirm=True)
        assert (done["dry_run"], done["result"]["dry_run"]) == (False, False)
        assert "next" not in done
        assert is_paused(client)
        # A plan counts once.
        again = await agent.call("pause", queues=["q"], confirm=True)
        assert again["dry_run"]

        assert (await agent.call("drain", queues=["q"], timeout="1s"))["next"]
        put(client, "busy", "active", lock="worker:0")
        late = await agent.call("drain", fails=True, queues=["q"], timeout="1s", confirm=True)
        assert late["exit_code"] == ExitStatus.TIMED_OUT
        assert late["result"]["outcome"] == "timeout"
        assert "timed out" in late["error"]["what"]
        client.call("DEL", "bull:q:busy:lock", "bull:q:active")

        done = await agent.carry_out("resume", queues=["q"])
        assert not is_paused(client)
        put(client, "s1", "active")
        done = await agent.carry_out("jobs_retry_stalled", queues=["q"])
        assert row(client, "active") == []
        plan = await agent.call("jobs_retry_failed", queues=["q"])
        assert plan["result"]["done"] == 1
        assert client.call("ZCARD", "bull:q:failed") == 1
        done = await agent.call("jobs_retry_failed", queues=["q"], confirm=True)
        assert done["result"]["done"] == 1
        assert client.call("ZCARD", "bull:q:failed") == 0

    with_agent(work, "--allow-writes", env={"QCTL_REDIS_URL": redis_url}, folder=tmp_path)


def test_a_plan_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(plans_module.time, "monotonic", lambda: now[0])
    plans = Plans()
    for age, counts in ((PLAN_AGE_S - 1, True), (PLAN_AGE_S + 1, False)):
        plans.add(["pause", "q"])
        now[0] += age
        assert plans.take(["pause", "q"]) == counts
        assert not plans.take(["pause", "q"])


def test_the_guards_of_contexts(redis_url: str, client: Client, tmp_path: Path) -> None:
    fill(client)
    (tmp_path / "qctl").mkdir()
    (tmp_path / "qctl/config.toml").write_text(
        f'[contexts.prod]\nredis.url = "{redis_url}"\nconfirm = true\n'
        f'[contexts.archive]\nredis.url = "{redis_url}"\nread_only = true\n'
    )

    async def read_only(agent: Agent) -> None:
        await agent.call("status")
        assert (await agent.call("pause", queues=["q"]))["dry_run"]
        refused = await agent.call("pause", fails=True, queues=["q"], confirm=True)
        assert refused["exit_code"] == ExitStatus.REFUSED
        assert "read-only" in refused["error"]["what"]

    with_agent(read_only, "--allow-writes", "--context", "archive", env={}, folder=tmp_path)
    assert not is_paused(client)
    words = ("--allow-writes", "--context", "prod")

    async def without(agent: Agent) -> None:
        await agent.call("pause", queues=["q"])
        refused = await agent.call("pause", fails=True, queues=["q"], confirm=True)
        assert refused["exit_code"] == ExitStatus.USAGE
        assert "start it with --confirm prod" in refused["error"]["hint"]
        wrong = await agent.call("pause", fails=True, queues=["q"], confirm="prod")
        assert "confirm" in wrong["error"]["why"]

    with_agent(without, *words, env={}, folder=tmp_path)
    assert not is_paused(client)

    async def confirmed(agent: Agent) -> None:
        await agent.carry_out("pause", queues=["q"])

    with_agent(confirmed, *words, "--confirm", "prod", env={}, folder=tmp_path)
    assert is_paused(client)


def test_errors_and_large_results(redis_url: str, client: Client, tmp_path: Path) -> None:
    fill(client)
    for number in range(300):
        put(client, f"l{number}", "completed", score=number, data=json.dumps({"x": "a" * 2000}))

    async def work(agent: Agent) -> None:
        answer = await agent.call("jobs_list", queue="q", state="completed", limit=300)
        assert answer["result"]["total"] == 300
        kept = len(answer["result"]["jobs"])
        assert 0 < kept < 300
        assert answer["is_cut"]
        assert f"cut: result.jobs: the first {kept} of 300 items" in answer["remarks"]
        assert any("result.jobs[].data.x: texts" in remark for remark in answer["remarks"])

        missing = await agent.call("jobs_list", fails=True, queue="qq", state="failed")
        assert missing["exit_code"] == ExitStatus.NOT_FOUND
        assert "'qq'" in missing["error"]["what"]
        assert missing["error"]["hint"]
        for arguments, part in (
            ({"queue": "q"}, "state"),
            ({"queue": "q", "state": "running"}, "running"),
            ({"queue": "q", "state": "failed", "redis": "redis://x"}, "redis"),
            ({"queue": "q", "state": "failed", "limit": MAX_LIMIT + 1}, str(MAX_LIMIT)),
            ({"queue": "q", "state": "failed", "where": "("}, "--where"),
            ({"queue": "q\0", "state": "failed"}, "null byte"),
        ):
            wrong = await agent.call("jobs_list", fails=True, **arguments)
            assert wrong["exit_code"] == ExitStatus.USAGE
            assert part in json.dumps(wrong["error"])
        assert (await agent.call("nonsense", fails=True))["error"]["what"]

    with_agent(work, env={"QCTL_REDIS_URL": redis_url}, folder=tmp_path)


def test_no_password_appears(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    redis = start_redis("--requirepass", SECRET)
    url = redis.url_for(password=SECRET)
    seen: list[str] = []

    async def right(agent: Agent) -> None:
        with contextlib.closing(connect(url)[1]) as client:
            fill(client)
        for name in ("status", "doctor", "impact"):
            await agent.call(name, **CALLS[name])
        await agent.call("jobs_show", fails=True, queue="q", id="nope")
        await agent.carry_out("pause", queues=["q"])
        seen.append(agent.seen)

    async def wrong(agent: Agent) -> None:
        for name in ("status", "pause"):
            await agent.call(name, fails=True, queues=["q"])
        seen.append(agent.seen)

    # A tool has to get the flag, too; the warning about it is on the server's stderr only.
    seen.append(with_agent(right, "--allow-writes", "--redis", url, env={}, folder=tmp_path))
    env = {"QCTL_REDIS_URL": redis.url_for(password=f"not-{SECRET}"), "QCTL_DEBUG": "1"}
    seen.append(with_agent(wrong, "--allow-writes", env=env, folder=tmp_path))
    assert SECRET not in "".join(seen)
    assert redis.url in seen[0]
    assert "--redis has a password" not in seen[0]
    assert "--redis has a password" in seen[1]
    assert '"exit_code":6' in seen[2]


# The end


@pytest.mark.parametrize("end", ["disconnect", "terminate", "kill"])
def test_a_drain_whose_client_or_server_goes_away(
    redis_url: str, client: Client, tmp_path: Path, end: str
) -> None:
    put(client, "1", "active", lock="worker:0")
    over: list[str] = []

    async def work(agent: Agent) -> None:
        await agent.call("drain", queues=["q"])
        call = asyncio.create_task(agent.call("drain", queues=["q"], confirm=True))
        await until(lambda: is_paused(client), "the drain to pause")
        if end != "disconnect":
            (server,) = server_processes()
            server.terminate() if end == "terminate" else server.kill()
            with pytest.raises(Exception, match=r"[Cc]losed"):
                await call
        else:
            call.cancel()
        over.append(end)

    with_agent(work, "--allow-writes", env={"QCTL_REDIS_URL": redis_url}, folder=tmp_path)
    assert over == [end]
    # Its watchdog would leave no record.
    aborted = lambda: read_drain_records(client, ["bull"])[0].drains["aborted"]  # noqa: E731
    wait_until(lambda: aborted() == 1, "the drain to put everything back")
    assert not is_paused(client)


# What is written


def test_stdout_holds_nothing_but_the_protocol(redis_url: str, client: Client) -> None:
    fill(client)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}}
    hello["clientInfo"] = {"name": "test", "version": "1"}
    messages = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "status", "arguments": {}}},
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "qctl", "mcp", "--redis", redis_url, "--debug"],
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent", "PM2_HOME": "/nonexistent"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    lines = [json.dumps({"jsonrpc": "2.0", **message}) for message in messages]
    process.stdin.write("\n".join(lines) + "\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in (1, 2)]
    out, err = process.communicate(timeout=30)
    assert [answer["id"] for answer in answers] == [1, 2]
    assert (out, err, process.returncode) == ("", "", 0)


def test_without_the_extra_the_command_that_adds_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_command, "find_spec", lambda _: None)
    ran = run("mcp")
    assert (ran.code, ran.out) == (1, "")
    assert install_command("mcp") in ran.err


def test_on_a_terminal_nobody_answers() -> None:
    ran = run("mcp", terminal=True)
    assert (ran.code, ran.out) == (2, "")


# Cuts


def test_small_results_are_whole() -> None:
    result = {"a": [*range(2000)], "b": {"c": None, "d": "x" * 50_000}}
    assert bounded(result) == (result, [])


def test_cuts_keep_the_beginning() -> None:
    result = {"rows": [{"text": "x" * 3000, "n": n} for n in range(500)], "total": 500}
    smaller, remarks = bounded(result)
    assert len(dumps(smaller)) <= MAX_CHARACTERS
    assert [row["n"] for row in smaller["rows"]] == [*range(len(smaller["rows"]))]
    assert smaller["total"] == 500
    assert len(remarks) == 2


def test_what_cannot_be_cut_is_left_out() -> None:
    deep: Any = "x"
    for _ in range(30):
        deep = [deep] * 3 if len(dumps(deep)) < MAX_CHARACTERS else {"more": deep}
    smaller, remarks = bounded(deep)
    assert smaller is None
    assert "too large" in remarks[0]


def test_deep_and_undecodable_texts() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    smaller, remarks = bounded({"deep": deep, "bytes": "\udcff"})
    assert "levels" in remarks[0]
    assert smaller["bytes"] == "\\udcff"
