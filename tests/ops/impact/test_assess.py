"""The whole answer: the sets, the verdict and the command, without a process manager."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from qctl.config.settings import TargetConfig
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import NotFoundError, RefusedError, ReplyError
from qctl.ops.impact import assess as impact
from qctl.ops.impact.assess import Impact
from qctl.ops.impact.jobs_at_risk import JobRef
from qctl.wire.drain_record import record_starts
from qctl.wire.read import heartbeats
from qctl.wire.read.clients import ForeignWorker, client_name
from qctl.wire.states import DELAY_FACTOR
from tests.labs import impact as labs
from tests.labs.build import Q, put
from tests.labs.impact import BEAT, OTHER, PROCESS, SETTINGS, Apps, ask, ids, look, now_ms, run

apps = labs.apps
Ask = Callable[..., Impact]


# Whose jobs


def test_jobs_of_other_workers_do_not_count(client: Client, apps: Apps) -> None:
    apps.owned = {"0": (apps.worker(1, "a"),)}
    apps.others = (apps.worker(2, "b"),)
    run(client, "1", pb="a")
    run(client, "2", pb="b")
    run(client, "3", pb="c")
    told = ask(client, "q")
    assert ids(told.interrupted) == ["1", "3"]
    assert ids(told.unattributed) == ["3"]
    assert [delay.by for delay in told.recovery] == ["others"]
    assert (told.queues[0].workers, told.queues[0].other_workers) == (1, 1)
    for own in ("1", "3"):
        client.call("LREM", Q("active"), 1, own)
    told = ask(client, "q")
    assert told.verdict.word == "safe"
    assert told.verdict.reasons[0].startswith("no job of the target is running")


def test_the_other_queues_of_the_app_are_looked_at_too(client: Client, apps: Apps) -> None:
    apps.owned = {"0": (apps.worker(1), apps.worker(2, queue="other"))}
    apps.foreign = {"0": (ForeignWorker("bull:eA==", 3),)}
    put(client, "1", "completed")
    run(client, "2", OTHER)
    told = ask(client, "q")
    assert told.also == ("other",)
    assert told.interrupted == (JobRef("other", "2"),)
    assert told.foreign == ("x (prefix bull, database 3)",)
    client.call("DEL", OTHER("active"))
    # What was not looked at is not safe.
    assert ask(client, "q").verdict.word == "drain first"


def test_without_client_list_every_job_counts(client: Client, apps: Apps) -> None:
    apps.error = ReplyError("NOPERM no permissions")
    run(client, "1")
    found = look(client, "q", target="pm2:app")
    assert ids(found.impact.unattributed) == ["1"]
    assert (found.impact.queues[0].workers, found.impact.queues[0].other_workers) == (None, None)
    assert "unknown who is connected" in found.remarks[0]
    assert [delay.by for delay in found.impact.recovery] == ["unknown"]
    # The queues of the target are not known either, so a drain needs the names of all.
    assert found.impact.verdict.commands == ("qctl impact --target pm2:app",)
    told = ask(client, target="pm2:app")
    assert told.verdict.commands == ("qctl drain q --then-restart --target pm2:app",)
    client.call("DEL", Q("active"))
    put(client, "2")
    assert ask(client, "q", target="pm2:app").verdict.word == "drain first"


def test_who_notices_the_interruption(client: Client, apps: Apps) -> None:
    run(client, "1")
    client.call("SET", Q("stalled-check"), now_ms(), "PX", 30_000)
    (alone,) = ask(client, "q").recovery
    # The one process has two workers, each with a clock of its own.
    apps.owned = {"0": (apps.worker(1), apps.worker(2))}
    (told,) = ask(client, "q").recovery
    assert (told.by, alone.by) == ("restarted", "restarted")
    assert told.min_s < alone.min_s
    # Those that are seen may be its own, behind a proxy.
    apps.owned = {}
    for others in ((apps.worker(1),), ()):
        apps.others = others
        told_of = ask(client, "q", target="pm2:app")
        assert [delay.by for delay in told_of.recovery] == ["unknown"]
        assert told_of.queues[0].other_workers is None


def test_how_far_apart_the_checks_are_is_told_by_the_moment_of_the_look(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(client, "1")
    client.call("SET", Q("stalled-check"), now_ms(), "PX", 5000)
    real = impact.read_clocks

    def slow(*args: Any) -> Any:
        time.sleep(0.4)
        return real(*args)

    monkeypatch.setattr(impact, "read_clocks", slow)
    (told,) = ask(client, "q").recovery
    assert told.interval_ms > 4900
    assert not told.interval_assumed


# Which processes


def test_nobody_manages_the_workers(client: Client, apps: Apps) -> None:
    apps.processes, apps.owned, apps.others = [], {}, (apps.worker(1),)
    run(client, "1")
    told = ask(client, "q")
    assert (told.target, told.handles_signal, told.kill_after_s) == (None, None, None)
    assert "no managed process" in told.why_no_target
    assert ids(told.interrupted) == ["1"]
    assert (told.interrupted_if_handled, told.fails_if_handled) == (None, None)
    assert told.verdict.word == "drain first"
    assert told.verdict.commands == ("qctl drain q", "qctl resume q")
    assert (told.downtime.plain_s, told.downtime.roll_is_possible) == (None, None)


def test_several_apps_serve_the_queue(client: Client, apps: Apps) -> None:
    second = replace(PROCESS, key="1", name="two", target="pm2:two")
    apps.processes = [PROCESS, second]
    apps.owned = {"0": (apps.worker(1),), "1": (apps.worker(2),)}
    run(client, "1")
    told = ask(client, "q")
    assert told.target is None
    assert "pm2:app, pm2:two" in told.why_no_target
    assert ids(ask(client, "q", target="pm2:two").unattributed) == ["1"]


def test_an_app_that_serves_something_else(client: Client, apps: Apps) -> None:
    put(client, "1")
    put(client, "1", keys=OTHER)
    with pytest.raises(NotFoundError, match="does not serve other"):
        ask(client, "other", target="pm2:app")
    # Nobody said that it should be this app: then all workers of the queue are meant.
    assert ask(client, "other").target is None


def test_a_configured_target_that_no_connection_shows(client: Client, apps: Apps) -> None:
    apps.owned = {}
    settings = replace(SETTINGS, targets=(TargetConfig("ingest", "pm2:app", ("q",)),))
    run(client, "1")
    told = ask(client, "q", settings=settings)
    assert told.target == "pm2:app"
    assert ids(told.unattributed) == ["1"]
    assert told.verdict.commands == ("qctl restart pm2:app",)
    assert ids(ask(client, target="ingest", settings=settings).interrupted) == ["1"]


def test_qctls_own_masters_interrupt_nothing(client: Client, apps: Apps) -> None:
    apps.processes = [replace(PROCESS, target="qctl:app", stop_signal="SIGTERM")]
    apps.kind = "qctl"
    run(client, "1", processedOn=now_ms())
    put(client, "2")
    told = ask(client, "q", target="qctl:app")
    assert (told.interrupted, told.interrupted_if_handled, told.recovery) == ((), (), ())
    assert (told.handles_signal, told.kill_after_s) == (True, None)
    assert told.verdict.word == "safe"
    assert told.verdict.commands == ("qctl restart qctl:app",)
    assert told.downtime.plain_s == (0.0, 0.0)
    assert told.downtime.roll_is_possible is True
    apps.foreign = {"0": (ForeignWorker("bull:eA==", 3),)}
    assert ask(client, "q", target="qctl:app").verdict.word == "safe"


def test_qctls_own_workers_under_another_manager_are_known_to_finish(
    client: Client, apps: Apps
) -> None:
    apps.owned = {"0": (apps.worker(1, "ours"),)}
    heartbeats.beat(client, BEAT, now_ms())
    put(client, "done", "completed", processedOn=1000, finishedOn=2000)
    put(client, "1", "active", lock="own-1:1", processedOn=now_ms() - 300)
    told = ask(client, "q")
    assert told.handles_signal is True
    assert (ids(told.interrupted), ids(told.interrupted_if_handled)) == (["1"], [])
    # That it will end in time is likely, and no more.
    assert told.verdict.word == "drain first"
    assert "1 job is running" in told.verdict.reasons[0]
    client.call("HINCRBY", Q("done"), "processedOn", -9000)
    assert "would probably interrupt 1 job" in ask(client, "q").verdict.reasons[0]


# What is scheduled


def scheduler(client: Client, every_ms: int, next_ms: int) -> None:
    client.call("HSET", Q("repeat:sync"), "ic", 1, "name", "job", "every", every_ms)
    client.call("ZADD", Q("repeat"), next_ms, "sync")
    put(client, f"repeat:sync:{next_ms}", "delayed", score=next_ms * DELAY_FACTOR)


def test_iterations_are_skipped_only_where_nobody_else_is(client: Client, apps: Apps) -> None:
    scheduler(client, 10_000, now_ms() + 60_000)
    (told,) = ask(client, "q", away_s=95).schedules or ()
    assert (told.id, told.skipped, round(told.runs_late_s or 0)) == ("sync", 3, 35)
    assert ask(client, "q").away_s == pytest.approx(6.6)
    assert (ask(client, "q").schedules or ())[0].skipped == 0
    apps.others = (apps.worker(2),)
    (told,) = ask(client, "q", away_s=95).schedules or ()
    assert (told.skipped, told.runs_late_s) == (0, None)


def test_a_schedule_whose_time_is_unknown(client: Client, apps: Apps) -> None:
    scheduler(client, 10_000, now_ms() + 60_000)
    client.call("ZADD", Q("repeat"), "+inf", "sync")
    (told,) = ask(client, "q", away_s=95).schedules or ()
    assert (told.next_at, told.runs_late_s, told.skipped) == (None, None, None)


# What is missing or broken


def test_a_queue_that_does_not_exist(client: Client, apps: Apps) -> None:
    put(client, "1")
    for options in ({}, {"target": "pm2:app"}):
        with pytest.raises(NotFoundError, match="'qq'"):
            ask(client, "qq", **options)
    client.call("FLUSHALL")
    for names in ((), ("q",)):
        with pytest.raises(NotFoundError, match="no queue"):
            ask(client, *names)


def test_a_queue_of_bull_4_is_not_safe(client: Client, apps: Apps) -> None:
    client.call("SET", OTHER("id"), "7")
    client.call("LPUSH", OTHER("active"), "7")
    client.call("HSET", OTHER("7"), "name", "x", "timestamp", "1")
    with pytest.raises(RefusedError, match="Bull 3 or 4"):
        ask(client, "other")
    put(client, "1", "completed")
    assert ask(client, "q").verdict.word == "safe"
    # Neither when its app serves it, too, nor when all queues are meant.
    apps.owned = {"0": (apps.worker(1), apps.worker(2, queue="other"))}
    for names in (("q",), ()):
        told = ask(client, *names)
        assert (told.verdict.word, told.bull) == ("not now", ("other",))
        assert told.verdict.reasons == ("other is a queue of Bull 3 or 4, which qctl cannot judge",)
        assert told.verdict.commands == ("qctl status other",)
        apps.processes, apps.owned = [], {}


def test_a_queue_that_cannot_be_read_is_not_safe(client: Client, apps: Apps) -> None:
    apps.owned = {"0": (apps.worker(1), apps.worker(2, queue="other"))}
    put(client, "1", "completed")
    client.call("SET", OTHER("meta"), "text")
    found = look(client, "q")
    assert (found.impact.unread, found.impact.verdict.word) == (("other",), "not now")
    assert [keys.name for keys, _ in found.queues.broken] == ["other"]


def test_broken_extras_are_unknown_and_hide_nothing(client: Client, apps: Apps) -> None:
    run(client, "1")
    client.call("SET", Q("stalled"), "text")
    client.call("SET", Q("repeat:x"), "text")
    client.call("LPUSH", Q("stalled-check"), "text")
    assert ids(ask(client, "q").interrupted) == ["1"]
    assert ask(client, "q").recovery[0].interval_assumed


def test_nothing_is_written(client: Client, apps: Apps) -> None:
    run(client, "1")
    put(client, "2")
    scheduler(client, 10_000, now_ms() + 60_000)
    before = {key: client.call("DUMP", key) for key in client.call("KEYS", "*")}
    ask(client, "q")
    assert {key: client.call("DUMP", key) for key in client.call("KEYS", "*")} == before


# A real connection


@pytest.fixture
def worker(redis_url: str) -> Iterator[None]:
    """A connection of this test's own, named like a worker of q."""
    with contextlib.closing(connect(redis_url)[1]) as connection:
        connection.call("CLIENT", "SETNAME", client_name("bull", "q"))
        yield


def test_it_answers_without_any_manager(client: Client, worker: None) -> None:
    run(client, "1")
    told = ask(client)
    assert (told.target, ids(told.interrupted)) == (None, ["1"])
    assert (told.queues[0].workers, told.queues[0].other_workers) == (1, 0)
    assert told.data is not None


def test_of_many_queues_only_those_at_work_are_drained(client: Client, apps: Apps) -> None:
    apps.processes, apps.owned = [], {}
    put(client, "1", "completed")
    run(client, "1", OTHER)
    told = ask(client)
    assert [queue.name for queue in told.queues] == ["other", "q"]
    assert told.verdict.commands == ("qctl drain other", "qctl resume other")
    client.call("DEL", OTHER("active"))
    told = ask(client)
    # Nothing to drain, and no target that could be named.
    assert (told.verdict.word, told.verdict.commands) == ("safe", ())


def test_a_restart_of_redis_shows_nothing_of_how_long_a_start_takes(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "completed")
    real = impact.read_servers

    def started(up_s: int | None) -> None:
        monkeypatch.setattr(
            impact, "read_servers", lambda c: tuple(replace(s, uptime_s=up_s) for s in real(c))
        )

    # The connection is 5 s old.
    apps.processes = [replace(PROCESS, started_at_ms=now_ms() - 8000)]
    started(3600)
    told = ask(client, "q").downtime
    assert (told.boot_is_assumed, round(told.boot_s[1])) == (False, 5)
    for up_s in (5, None):
        started(up_s)
        assert ask(client, "q").downtime.boot_is_assumed


def test_a_start_that_ends_a_pause_is_not_safe(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1")
    client.call("HSET", Q("meta"), "paused", 1)
    at_ms = 1_700_000_000_000
    record_starts(client, "bull", "pm2:another", at_ms, resumed=["q"], kept=[])
    record_starts(client, "bull", "pm2:app", at_ms, resumed=["other"], kept=[])
    assert ask(client, "q").verdict.word == "safe"
    record_starts(client, "bull", "pm2:app", at_ms, resumed=["q"], kept=[])
    told = ask(client, "q").verdict
    assert told.word == "drain first"
    (reason,) = told.reasons
    assert reason.startswith("a restart ends the pause of q: pm2:app resumes ")
    assert reason.endswith("as seen at 2023-11-14 22:13:20 UTC")
    assert told.commands == ("qctl restart pm2:app --keep-paused",)
    # With another queue that is to run.
    apps.owned = {"0": (apps.worker(1), apps.worker(2, queue="other"))}
    put(client, "1", "completed", keys=OTHER)
    assert ask(client, "q").verdict.commands == ("qctl restart pm2:app", "qctl pause q")

    def denied(*_: Any) -> Any:
        raise ReplyError("NOPERM no permissions")

    monkeypatch.setattr(impact, "read_resumers", denied)
    assert "unknown whether a start of the target ends a pause" in look(client, "q").remarks[0]
