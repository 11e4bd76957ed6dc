"""What a drain finds out, and refuses, before it writes anything. No process manager is needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import FailedError, NotFoundError, RefusedError, ReplyError, UnreachableError
from qctl.ops.drain import choose
from qctl.ops.drain import plan as planning
from qctl.ops.drain.plan import DrainPlan, describe, make_plan
from qctl.ops.processes.targets import Target
from qctl.ops.queues.find import read_existing
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot
from qctl.wire.write.pausing import hold_lease, pause
from tests.labs.build import Q, holder, put


def plan(client: Client, *names: str, **options: Any) -> DrainPlan:
    settings = Settings(pm2_home=Path("/nonexistent"))
    arguments = {"target": None, "then_restart": False, **options}
    return make_plan(client, Address(), settings, names, **arguments)


def test_a_plain_drain_needs_no_manager(client: Client) -> None:
    put(client, "1")
    made = plan(client, "q")
    assert (made.labels, made.queues) == (("q",), (Q,))
    assert (made.target, made.guessed) == (None, "")


def test_each_queue_is_read_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("q", "r"):
        put(client, "1", keys=QueueKeys("bull", name))
    read: list[str] = []

    def find(client: Client, queues: Sequence[QueueKeys]) -> list[QueueSnapshot]:
        read.extend(keys.name for keys in queues)
        return read_existing(client, queues)

    monkeypatch.setattr(planning, "read_existing", find)
    assert plan(client, "q", "r").labels == ("q", "r")
    assert read == ["q", "r"]


def test_planning_writes_nothing(client: Client) -> None:
    put(client, "1", "active", lock="t")
    put(client, "2")
    before = {key: client.call("DUMP", key) for key in client.call("KEYS", "*")}
    describe(plan(client, "q"), client)
    assert {key: client.call("DUMP", key) for key in client.call("KEYS", "*")} == before


def test_a_queue_that_does_not_exist(client: Client) -> None:
    put(client, "1")
    with pytest.raises(NotFoundError, match="'qq'"):
        plan(client, "q", "qq")


def test_a_queue_of_the_same_name_in_another_case_is_the_nearest(client: Client) -> None:
    for name in ("r6", "p6", "m6"):
        put(client, "1", keys=QueueKeys("bull", name))
    with pytest.raises(NotFoundError, match="'P6'") as caught:
        plan(client, "P6")
    assert caught.value.why.startswith("the nearest under the prefix 'bull': 'p6', ")
    assert caught.value.hint == "qctl status p6"


def test_a_misspelt_queue_is_told_before_anything_about_the_target(client: Client) -> None:
    put(client, "1")
    with pytest.raises(NotFoundError, match="'qq'"):
        plan(client, "qq", target="pm2:app", then_restart=True)
    with pytest.raises(UnreachableError, match="PM2"):
        plan(client, "q", target="pm2:app", then_restart=True)


@pytest.mark.parametrize("queues", [(), ("q",)])
def test_an_empty_target_is_none_to_be_guessed(client: Client, queues: tuple[str, ...]) -> None:
    """It is a variable of a script that was not set."""
    client.call("HSET", Q("meta"), "version", "bullmq:6.7.0")
    with pytest.raises(NotFoundError, match="no target ''"):
        plan(client, *queues, target="", then_restart=True)


def test_a_queue_of_bull_4(client: Client) -> None:
    client.call("SET", Q("id"), "7")
    client.call("LPUSH", Q("wait"), "7")
    client.call("HSET", Q("7"), "name", "x", "timestamp", "1")
    with pytest.raises(RefusedError, match="Bull 3 or 4"):
        plan(client, "q")


def test_a_queue_that_is_being_drained(client: Client) -> None:
    put(client, "1")
    hold_lease(client, Q, holder("them", "drain"))
    with pytest.raises(RefusedError, match="another drain") as caught:
        plan(client, "q")
    assert "pid 42" in caught.value.why


def test_a_replica(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(fake, "1")
    replication = "# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n"
    monkeypatch.setattr(type(fake), "info", replication)
    with pytest.raises(FailedError, match="replica") as caught:
        plan(fake, "q")
    assert "master_host:10.0.0.1" in caught.value.why


def test_a_user_who_may_not_ask_for_the_role_may_still_drain(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(fake, "1")
    ask = fake.call

    def call(*command: Any, timeout_s: float = 0.0) -> Any:
        if command[0] == "INFO":
            raise ReplyError("NOPERM this user has no permissions")
        return ask(*command, timeout_s=timeout_s)

    monkeypatch.setattr(fake, "call", call)
    assert plan(fake, "q").labels == ("q",)


def test_the_numbers_of_now(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = int(time.time() * 1000)
    monkeypatch.setattr(planning, "time", SimpleNamespace(time=lambda: now_ms / 1000))
    put(client, "done", "completed", name="mail", processedOn=1000, finishedOn=11_000)
    put(client, "run", "active", lock="t", name="mail", processedOn=now_ms - 4000, pb="w1")
    put(client, "lost", "active", name="mail", processedOn=now_ms - 9000)
    put(client, "next")
    put(client, "first", "prioritized", priority=3)
    put(client, "later", "delayed")
    told = describe(plan(client, "q"), client)
    assert told.backlog == 2
    (running,) = told.active
    assert (running.id, running.name, running.worker) == ("run", "mail", "w1")
    assert (running.runtime_s, running.estimate_s) == (4.0, 6.0)
    assert told.estimate_s == 6.0
    assert [job.id for job in told.orphans] == ["lost"]
    assert told.processes == ()


def test_one_job_without_history_makes_the_estimate_unknown(client: Client) -> None:
    put(client, "done", "completed", name="mail", processedOn=1000, finishedOn=11_000)
    now_ms = int(time.time() * 1000)
    put(client, "a", "active", lock="t", name="mail", processedOn=now_ms)
    put(client, "b", "active", lock="t", name="film", processedOn=now_ms)
    assert describe(plan(client, "q"), client).estimate_s is None


def test_nothing_runs_so_there_is_nothing_to_wait_for(client: Client) -> None:
    put(client, "1")
    assert describe(plan(client, "q"), client).estimate_s == 0.0


def test_what_the_operator_should_know(client: Client) -> None:
    put(client, "1")
    pause(client, Q, holder("them", "pause"))
    told = describe(plan(client, "q"), client)
    assert told.already_paused == ("q",)
    (stays,) = told.warnings
    assert "stays paused" in stays
    assert "qctl pause of ada@host (pid 42)" in stays
    assert "qctl resume q" in stays


def test_a_queue_of_both_lines_of_bullmq_is_refused_unless_that_is_accepted(client: Client) -> None:
    put(client, "1")
    client.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
    with pytest.raises(RefusedError, match=r"BullMQ 5 \(debounced events\) and BullMQ 6") as caught:
        plan(client, "q")
    assert "--mixed-versions" in caught.value.hint
    accepted = plan(client, "q", mixed_versions=True)
    (warning,) = describe(accepted, client).warnings
    assert "qctl resume q" in warning
    assert set(accepted.mixed) == {Q}


def test_rights_that_nobody_can_check_are_said(fake: Client) -> None:
    put(fake, "1")
    settings = Settings(pm2_home=Path("/nonexistent"))
    for user, is_said in ((None, False), ("default", False), ("limited", True)):
        address = Address(username=user)
        made = make_plan(fake, address, settings, ["q"], target=None, then_restart=False)
        warnings = describe(made, fake).warnings
        assert any("cannot say what the user limited may do" in w for w in warnings) is is_said


def test_workers_that_redis_cannot_list_prove_no_restart(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", keys=QueueKeys("my app", "mail"))
    manager: Any = SimpleNamespace(kind="pm2")
    target = Target("pm2:app", manager, (), ("mail@my app",))
    monkeypatch.setattr(choose, "open_target", lambda *_: target)
    assert plan(client, target="pm2:app").labels == ("mail",)
    with pytest.raises(FailedError, match="under the prefix 'my app'"):
        plan(client, target="pm2:app", then_restart=True)


def test_a_queue_of_another_prefix_is_typed_in_full(client: Client) -> None:
    for prefix in ("bull", "staging"):
        put(client, "1", keys=QueueKeys(prefix, "mail"))
    assert plan(client, "mail@staging").labels == ("mail",)
    made = plan(client, "mail", "mail@staging")
    assert (made.prefix, made.labels) == (None, ("mail@bull", "mail@staging"))
    assert describe(made, client).queues == made.labels
