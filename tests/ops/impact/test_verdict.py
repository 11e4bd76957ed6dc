"""When it is safe, and what makes it less than that; each way to be wrong has a test of its own."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

import pytest

from qctl.config.files import Origin
from qctl.config.settings import TargetConfig
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ReplyError
from qctl.ops.impact import assess as impact
from qctl.ops.processes.suggest import commands_like
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import ForeignWorker, client_name
from qctl.wire.states import DELAY_FACTOR
from qctl.wire.write.pausing import hold_lease
from tests.labs import impact as labs
from tests.labs.build import Q, holder, put
from tests.labs.impact import OTHER, PROCESS, SETTINGS, Apps, ask, ids, look, now_ms, run
from tests.labs.servers import limited_user

apps = labs.apps


def test_nothing_to_lose_is_safe(client: Client, apps: Apps) -> None:
    put(client, "done", "completed")
    told = ask(client, "q")
    assert (told.verdict.word, told.interrupted, told.recovery) == ("safe", (), ())
    assert told.verdict.commands == ("qctl restart pm2:app",)
    assert (told.target, told.handles_signal, told.kill_after_s) == ("pm2:app", None, 1.6)
    assert told.downtime.drain_wait_p50_s == 0


def test_a_running_job_makes_it_a_drain(client: Client, apps: Apps) -> None:
    run(client, "1", stc=1)
    run(client, "2")
    told = ask(client)
    assert told.verdict.word == "drain first"
    assert "interrupt 2 jobs, and 1 of them would fail for good" in told.verdict.reasons[0]
    assert ids(told.interrupted) == ["1", "2"]
    assert told.interrupted_if_handled == told.interrupted
    assert ids(told.fails_for_good) == ids(told.fails_if_handled) == ["1"]
    (delay,) = told.recovery
    assert (delay.queue, delay.by) == ("q", "restarted")
    assert told.downtime.drain_wait_p50_s is None


def test_a_backlog_means_that_one_may_start_at_any_moment(client: Client, apps: Apps) -> None:
    put(client, "1")
    put(client, "2", "prioritized", priority=1)
    told = ask(client, "q")
    assert (told.interrupted, told.verdict.word) == ((), "drain first")
    assert "2 jobs wait in q" in told.verdict.reasons[0]
    client.call("HSET", Q("meta"), "paused", 1)
    assert ask(client, "q").verdict.word == "safe"
    client.call("HDEL", Q("meta"), "paused")
    # Not every client of BullMQ shows itself as a worker.
    apps.owned = {}
    assert ask(client, "q").verdict.word == "drain first"


def test_what_is_due_soon(client: Client, apps: Apps) -> None:
    put(client, "1", "delayed", score=(now_ms() + 9000) * DELAY_FACTOR)
    told = ask(client, "q").verdict
    assert (told.word, told.holds_until) == ("drain first", None)
    assert "due in" in told.reasons[0]
    client.call("DEL", Q("delayed"))
    due = now_ms() + 300_000
    put(client, "2", "delayed", score=due * DELAY_FACTOR)
    told = ask(client, "q").verdict
    assert told.word == "safe"
    assert told.holds_until is not None
    assert round(told.holds_until.timestamp() * 1000) == due


def test_a_parent_starts_when_its_last_child_has_ended_elsewhere(
    client: Client, apps: Apps
) -> None:
    put(client, "1", "waiting-children")
    told = ask(client, "q").verdict
    assert told.word == "drain first"
    assert told.reasons == (
        "1 job waits in q for its children; a parent may start at any moment, as soon as its last "
        "child has ended",
    )
    client.call("HSET", Q("meta"), "paused", 1)
    assert ask(client, "q").verdict.word == "safe"
    client.call("HDEL", Q("meta"), "paused")
    apps.processes, apps.owned = [], {}
    assert ask(client, "q").verdict.commands == ("qctl drain q", "qctl resume q")


def test_what_is_due_when_nobody_can_tell(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "delayed", score=(now_ms() + 3_600_000) * DELAY_FACTOR)

    def denied(*_: Any) -> Any:
        raise ReplyError("NOPERM this user has no permissions to run the 'zrange' command")

    monkeypatch.setattr(impact, "read_agendas", denied)
    told = look(client, "q")
    assert told.impact.schedules is None
    assert told.impact.verdict.word == "drain first"
    assert "it is unknown when the next delayed job of q is due" in told.impact.verdict.reasons
    assert "it is unknown what is scheduled: NOPERM" in told.remarks[0]


def test_a_slow_clock_of_this_host_delays_nothing(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "delayed", score=(now_ms() + 300_000) * DELAY_FACTOR)
    real = impact.read_servers

    def ahead(client: Client) -> Any:
        return tuple(replace(server, clock_ahead_ms=by_ms) for server in real(client))

    monkeypatch.setattr(impact, "read_servers", ahead)
    by_ms = -280_000
    assert ask(client, "q").verdict.word == "safe"
    by_ms = 280_000
    (reason,) = ask(client, "q").verdict.reasons
    assert reason in {"a job of q is due in 20 s", "a job of q is due in 19 s"}


def test_not_while_another_drain_is_at_work(client: Client, apps: Apps) -> None:
    put(client, "1", "completed")
    hold_lease(client, Q, holder("them", "drain"))
    told = ask(client, "q").verdict
    assert (told.word, told.commands) == ("not now", ("qctl status q",))
    assert "at work on q" in told.reasons[0]


def test_not_when_a_drain_would_take_too_long(client: Client, apps: Apps) -> None:
    put(client, "done", "completed", processedOn=1000, finishedOn=3_601_000)
    run(client, "1", processedOn=now_ms())
    told = ask(client, "q")
    assert told.verdict.word == "not now"
    assert "another 60 minutes" in told.verdict.reasons[0]
    assert told.verdict.commands == ("qctl restart pm2:app --timeout 90m",)
    assert told.downtime.drain_wait_p50_s == pytest.approx(3600, abs=2)


def test_not_on_a_replica(fake: Any, monkeypatch: pytest.MonkeyPatch, apps: Apps) -> None:
    put(fake, "1", "completed")
    info = "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6380\r\n"
    monkeypatch.setattr(type(fake), "info", info)
    told = ask(fake, "q").verdict
    assert told.word == "not now"
    assert "this Redis is a replica of 10.0.0.1:6380: its data may be old" in told.reasons[0]
    assert told.commands == ("qctl impact --target pm2:app --redis redis://10.0.0.1:6380/0",)


def test_not_when_redis_takes_no_writes(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "completed")
    client.call("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        told = ask(client, "q")
    finally:
        client.call("CONFIG", "SET", "min-replicas-to-write", "0")
    assert (told.verdict.word, told.verdict.commands) == ("not now", ("redis-cli info",))
    assert "Redis refuses writes" in told.verdict.reasons[0]
    assert told.data is not None
    assert told.data[0].is_writable is False


def test_the_master_that_takes_no_writes_is_named(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "completed")
    (real,) = impact.read_servers(client)
    full = replace(real, node=("10.0.0.2", 7001), replicas_needed=1, replicas_good=0)
    servers = (replace(real, node=("10.0.0.1", 7000)), full)
    monkeypatch.setattr(impact, "read_servers", lambda _: servers)
    assert ask(client, "q").verdict.commands == ("redis-cli -h 10.0.0.2 -p 7001 info",)


def test_whether_redis_takes_writes_is_not_known(
    fake: Any, monkeypatch: pytest.MonkeyPatch, apps: Apps
) -> None:
    put(fake, "1", "completed")
    assert ask(fake, "q").verdict.word == "safe"
    for info, is_told in ((f"{fake.info}maxmemory:9\r\n", True), ("", False)):
        monkeypatch.setattr(type(fake), "info", info)
        found = look(fake, "q")
        assert found.impact.verdict.word == "drain first"
        assert found.impact.verdict.reasons == (
            "it is unknown whether Redis accepts writes, and without writes no job can end",
        )
        assert (found.impact.data is not None) is is_told
        assert any("may not call INFO" in remark for remark in found.remarks) is not is_told


# What to type


def test_the_commands_go_to_the_redis_that_was_asked(client: Client, apps: Apps) -> None:
    run(client, "1")
    put(client, "lost", "active")
    flags = {"redis.url": Origin("flag"), "context": Origin("flag")}
    settings = replace(SETTINGS, context="prod", origins=flags)
    with commands_like(settings):
        told = ask(client, "q", settings=settings).verdict
    options = "--context prod --redis redis://localhost:6379/0"
    assert told.commands == (f"qctl restart pm2:app {options}",)
    assert f"(qctl jobs retry-stalled q {options} puts stalled jobs back" in told.reasons[1]
    # The shell that it is typed into has the same environment.
    with commands_like(replace(settings, origins={"context": Origin("environment")})):
        assert ask(client, "q").verdict.commands == ("qctl restart pm2:app",)


def test_a_queue_that_looks_like_an_option_comes_last(client: Client, apps: Apps) -> None:
    keys = QueueKeys("bull", "-x")
    apps.processes, apps.owned = [], {}
    put(client, "done", "completed", keys=keys, processedOn=1000, finishedOn=3_601_000)
    run(client, "1", keys, processedOn=now_ms())
    assert ask(client, "-x").verdict.commands == (
        "qctl drain --timeout 90m -- -x",
        "qctl resume -- -x",
    )


def test_queues_of_the_target_elsewhere_are_drained_around_it(client: Client, apps: Apps) -> None:
    run(client, "1")
    apps.foreign = {"0": (ForeignWorker("a:b:cQ==:w:x", 0), ForeignWorker("a:b:cQ==:w:y", 0))}
    assert ask(client, "q").verdict.commands == (
        "qctl drain q --prefix a:b",
        "qctl restart pm2:app --ignore-others",
        "qctl resume q --prefix a:b",
    )
    apps.foreign = {"0": (ForeignWorker("bull:b3RoZXI=", 3),)}
    with commands_like(SETTINGS.under("mine")):
        told = ask(client, "q").verdict
    # The config's prefix would be taken.
    assert told.commands[0] == "qctl drain other --prefix bull --redis redis://localhost:6379/3"
    # Which queue that is is unknown, so the restart has to ask.
    apps.foreign = {"0": (ForeignWorker("staging:emails", 0),)}
    assert ask(client, "q").verdict.commands == ("qctl restart pm2:app",)


# Stalled jobs stand apart


def test_stalled_jobs_are_not_interrupted_and_not_safe(client: Client, apps: Apps) -> None:
    put(client, "lost", "active")
    told = ask(client, "q")
    # A check may put it back at any moment; or its worker is only too busy to renew the lock.
    assert (told.interrupted, told.verdict.word) == ((), "drain first")
    assert "1 job of q without a lock may still run, or start again" in told.verdict.reasons[0]
    assert "qctl jobs retry-stalled q puts stalled jobs back" in told.verdict.reasons[0]
    assert [job.held_by for job in told.jobs] == ["nobody"]
    assert (told.queues[0].active, told.queues[0].stalled) == (1, 1)
    assert told.downtime.drain_wait_p50_s == 0
    client.call("HSET", Q("meta"), "paused", 1)
    (reason,) = ask(client, "q").verdict.reasons
    assert "may still run (" in reason
    client.call("DEL", Q("active"))
    assert ask(client, "q").verdict.word == "safe"


# What else it would hit


def test_a_target_whose_workers_are_not_seen_may_serve_anything(client: Client, apps: Apps) -> None:
    put(client, "1", "completed")
    apps.owned = {}
    for names in (("q",), ()):
        told = ask(client, *names, target="pm2:app").verdict
        assert told.word == "drain first"
        assert "no worker of pm2:app is seen in this Redis" in told.reasons[0]
        # Of all queues first; then it is those that have to be drained.
        assert told.commands == (
            ("qctl impact --target pm2:app",)
            if names
            else ("qctl drain q --then-restart --target pm2:app",)
        )
    # Unless the operator has said what it serves.
    settings = replace(SETTINGS, targets=(TargetConfig("ingest", "pm2:app", ("q",)),))
    assert ask(client, "q", target="ingest", settings=settings).verdict.word == "safe"


def test_so_may_one_of_its_processes_that_shows_none(client: Client, apps: Apps) -> None:
    put(client, "1", "completed")
    apps.processes = [PROCESS, replace(PROCESS, key="1", pid=2)]
    told = ask(client, "q", target="pm2:app").verdict
    assert (told.word, told.commands) == ("drain first", ("qctl impact --target pm2:app",))
    assert told.reasons[0].startswith("no worker of id 1 of pm2:app is seen in this Redis")
    apps.owned["1"] = (apps.worker(2),)
    assert ask(client, "q", target="pm2:app").verdict.word == "safe"
    # One that has crashed runs nothing.
    apps.processes[1], apps.owned["1"] = (
        replace(PROCESS, key="1", pid=None, started_at_ms=None, status="errored"),
        (),
    )
    assert ask(client, "q", target="pm2:app").verdict.word == "safe"


def test_so_may_a_worker_whose_queue_does_not_exist(client: Client, apps: Apps) -> None:
    put(client, "1", "completed")
    # What the name ``bull:mail`` of a Python worker comes to when it is taken for base64.
    apps.owned = {"0": (apps.worker(1), apps.worker(2, queue="\udc99\udca8\udca5"))}
    (reason,) = ask(client, "q", target="pm2:app").verdict.reasons
    assert "which does not exist" in reason


def test_other_workers_of_one_address_may_be_of_the_same_process(
    client: Client, apps: Apps
) -> None:
    put(client, "1", "completed")
    put(client, "1", "completed", keys=OTHER)
    apps.processes, apps.owned = [], {}
    apps.others = (apps.worker(1), apps.worker(2, queue="other"))
    told = ask(client, "q").verdict
    assert told.word == "drain first"
    assert told.reasons[0].startswith("the same processes may serve other, whose workers connect")
    assert told.commands == ("qctl impact q other",)
    assert ask(client, "q", "other").verdict.word == "safe"
    assert ask(client).verdict.word == "safe"
    apps.others = (apps.worker(1), replace(apps.others[1], address="10.0.0.2:2"))
    assert ask(client, "q").verdict.word == "safe"
    # Not every client of BullMQ shows itself as a worker.
    apps.others = apps.others[1:]
    (reason,) = ask(client, "q").verdict.reasons
    assert reason.startswith("no worker of these queues is seen")
    assert ask(client).verdict.word == "safe"


def test_so_may_those_of_another_prefix(redis_url: str, client: Client) -> None:
    put(client, "1", "completed")
    with contextlib.ExitStack() as stack:
        for prefix in ("bull", "staging"):
            connection = stack.enter_context(contextlib.closing(connect(redis_url)[1]))
            connection.call("CLIENT", "SETNAME", client_name(prefix, "q"))
        told = ask(client).verdict
    assert told.word == "drain first"
    assert "may serve q@staging, whose" in told.reasons[0]
    assert told.commands == ("qctl drain q", "qctl resume q")


def test_without_client_list_nobody_knows_what_the_workers_serve(
    redis_url: str, client: Client
) -> None:
    put(client, "1", "completed")
    with limited_user(client, redis_url, "~*", "+@all", "-client|list") as (_, blind):
        found = look(blind, "q")
    assert found.impact.verdict.word == "drain first"
    assert found.impact.verdict.reasons == ("it is unknown which other queues these workers serve",)
    (remark,) = found.remarks
    assert remark.startswith("it is unknown who is connected: this Redis user may not list clients")
    assert remark.endswith("(grant it: ACL SETUSER … +client|list +info)")


# What changes between two looks


def test_a_job_that_ends_meanwhile_may_be_tried_again(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(client, "1")
    real = impact.read_active

    def retried(*args: Any) -> Any:
        client.call("LREM", Q("active"), 1, "1")
        client.call("LPUSH", Q("wait"), "1")
        return real(*args)

    monkeypatch.setattr(impact, "read_active", retried)
    told = ask(client, "q").verdict
    assert (told.word, told.reasons) == (
        "drain first",
        ("jobs of q are moving, and one may start at any moment",),
    )


def test_a_job_that_falls_due_meanwhile_is_seen(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "delayed", score=now_ms() * DELAY_FACTOR)
    put(client, "2", "delayed", score=(now_ms() + 3_600_000) * DELAY_FACTOR)
    real = impact.read_active

    def promoted(*args: Any) -> Any:
        found = real(*args)
        client.call("ZREM", Q("delayed"), "1")
        client.call("LPUSH", Q("active"), "1")
        return found

    monkeypatch.setattr(impact, "read_active", promoted)
    assert ask(client, "q").verdict.reasons == ("a job of q is due now",)


def test_what_is_due_comes_nearer_while_the_rest_is_read(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "delayed", score=(now_ms() + 300_000) * DELAY_FACTOR)
    real = impact.best_time

    def slow(*args: Any, **options: Any) -> Any:
        at_s = time.time()
        monkeypatch.setattr(time, "time", lambda: at_s + 280)
        return real(*args, **options)

    monkeypatch.setattr(impact, "best_time", slow)
    (reason,) = ask(client, "q").verdict.reasons
    assert reason in {"a job of q is due in 20 s", "a job of q is due in 19 s"}


def test_no_command_is_recommended_that_qctl_would_refuse(client: Client, apps: Apps) -> None:
    put(client, "done", "completed")
    client.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
    idle = ask(client, "q").verdict
    assert (idle.word, idle.commands) == ("safe", ())
    assert "--mixed-versions" in idle.reasons[1]
    run(client, "1")
    busy = ask(client, "q").verdict
    assert (busy.word, busy.commands) == ("not now", ())
    assert "BullMQ 5 (debounced events) and BullMQ 6" in busy.reasons[0]


def test_a_restart_that_leaves_the_old_process_is_never_safe(client: Client, apps: Apps) -> None:
    put(client, "done", "completed")
    apps.processes = [replace(PROCESS, restart_trouble="its manager would not stop it")]
    verdict = ask(client, "q").verdict
    assert (verdict.word, verdict.commands) == ("not now", ())
    assert "its manager would not stop it" in verdict.reasons[0]


def test_processes_elsewhere_cannot_be_drained(client: Client, apps: Apps) -> None:
    run(client, "1")
    apps.processes = [replace(PROCESS, pid=None)]
    verdict = ask(client, "q", target="pm2:app").verdict
    assert verdict.word == "not now"
    assert "cannot be seen from this host" in verdict.reasons[0]


def test_a_connection_without_a_name_may_be_another_worker_of_the_target(
    client: Client, apps: Apps
) -> None:
    put(client, "done", "completed", processedOn=1000, finishedOn=2000)
    assert ask(client, target="pm2:app").verdict.word == "safe"
    apps.nameless = 1
    verdict = ask(client, target="pm2:app").verdict
    assert verdict.word == "drain first"
    assert "1 connection without a name waits for jobs" in verdict.reasons[0]
