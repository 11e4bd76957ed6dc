"""What waits beside a restart, and what moves while it is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.impact import assess as impact
from qctl.wire.states import DELAY_FACTOR
from tests.labs import impact as labs
from tests.labs.build import Q, put
from tests.labs.impact import Apps, ask, now_ms

apps = labs.apps
MOVED = "jobs of q are moving, and one may start at any moment"


@pytest.mark.parametrize("end", ["delayed", "wait", "waiting-children", "active"])
def test_a_job_that_runs_between_two_reads_is_not_safe(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    put(client, "short", "delayed", score=now_ms() * DELAY_FACTOR)
    put(client, "far", "delayed", score=(now_ms() + 3_600_000) * DELAY_FACTOR)
    real_agendas, real_active = impact.read_agendas, impact.read_active

    def taken(*args: Any) -> Any:
        client.call("ZREM", Q("delayed"), "short")
        return real_agendas(*args)

    def failed(*args: Any) -> Any:
        found = real_active(*args)
        put(client, "short", end, score=(now_ms() + 2000) * DELAY_FACTOR)
        return found

    monkeypatch.setattr(impact, "read_agendas", taken)
    monkeypatch.setattr(impact, "read_active", failed)
    told = ask(client, "q").verdict
    assert (told.word, told.reasons) == ("drain first", (MOVED,))


def test_jobs_of_other_workers_may_run_on(client: Client, apps: Apps) -> None:
    apps.owned, apps.others = {"0": (apps.worker(1, "a"),)}, (apps.worker(2, "b"),)
    put(client, "far", "delayed", score=(now_ms() + 3_600_000) * DELAY_FACTOR)
    labs.run(client, "1", pb="b")
    told = ask(client, "q").verdict
    assert (told.word, told.commands) == ("safe", ("qctl restart pm2:app",))
    # However long they take: only a drain waits for them, too.
    put(client, "done", "completed", processedOn=1000, finishedOn=3_601_000)
    client.call("HSET", Q("1"), "processedOn", now_ms())
    told = ask(client, "q").verdict
    assert (told.word, told.commands) == ("safe", ("qctl restart pm2:app --timeout 90m",))


def test_a_paused_queue_starts_nothing(
    client: Client, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "1", "completed")
    client.call("HSET", Q("meta"), "paused", 1)
    real = impact.read_active

    def added(*args: Any) -> Any:
        found = real(*args)
        put(client, "2")
        return found

    monkeypatch.setattr(impact, "read_active", added)
    assert ask(client, "q").verdict.word == "safe"

    def resumed(*args: Any) -> Any:
        found = real(*args)
        client.call("HDEL", Q("meta"), "paused")
        return found

    monkeypatch.setattr(impact, "read_active", resumed)
    assert ask(client, "q").verdict.reasons == (MOVED,)
