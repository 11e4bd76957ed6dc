"""Doctor: schedulers that make no more jobs, or too many."""

from __future__ import annotations

import time

import pytest

from qctl.connection.address import Client
from qctl.ops.schedules.listing import show_schedule
from qctl.wire.checks import registrations
from tests.labs.build import Q, put
from tests.labs.doctor import diagnose, found, of, result

NEXT = int(time.time() * 1000) + 3_600_000


def schedule(client: Client, sid: str, state: str = "delayed", /, **fields: object) -> str:
    """A scheduler and its pending job; without one when ``state`` is ""."""
    record = {"name": sid, "ic": 1, "every": 60_000, **fields}
    record = {key: value for key, value in record.items() if value is not None}
    client.call("HSET", Q.scheduler(sid), *(str(w) for pair in record.items() for w in pair))
    client.call("ZADD", Q("repeat"), NEXT, sid)
    client.call("HSET", Q("meta"), "version", "bullmq:6.7.0")
    job_id = f"repeat:{sid}:{NEXT}"
    return put(client, job_id, state, rjk=sid) if state else job_id


@pytest.mark.parametrize("state", ["delayed", "wait", "prioritized", "active"])
def test_a_scheduler_with_its_pending_job_is_well(client: Client, state: str) -> None:
    schedule(client, "s", state)
    assert found(client, "dead-schedulers") == []
    assert found(client, "duplicate-schedulers") == []
    assert found(client, "legacy-repeatables") == []


def test_schedulers_that_make_no_more_jobs(client: Client) -> None:
    schedule(client, "gone", "")
    schedule(client, "ran", "completed")
    schedule(client, "failed", "failed", every=None, pattern="0 3 * * *", tz="UTC")
    (finding,) = found(client, "dead-schedulers")
    assert finding.severity == "error"
    assert finding.evidence["count"] == 3
    assert set(finding.evidence["schedulers"]) == {"gone", "ran", "failed"}
    assert finding.commands[0].startswith("qctl schedules show q ")


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 1},
        {"endDate": 1_700_000_000_000},
        {"endDate": NEXT + 1000},
        {"every": None, "pattern": "0 3 * * *", "endDate": NEXT + 1000},
    ],
)
def test_one_that_has_ended_is_well(client: Client, fields: dict[str, object]) -> None:
    schedule(client, "s", "", **fields)
    assert found(client, "dead-schedulers") == []


def test_one_with_jobs_to_come_is_dead_in_spite_of_its_limits(client: Client) -> None:
    schedule(client, "s", "", limit=2, endDate=NEXT + 120_000)
    assert len(found(client, "dead-schedulers")) == 1


@pytest.mark.parametrize("tz", ["UTC", "Mars/Base"])
def test_a_pattern_that_cannot_be_computed_does_not_end(client: Client, tz: str) -> None:
    rule = {"every": None, "pattern": "0 0 ? * 5#2", "tz": tz}
    schedule(client, "s", "", **rule, endDate=NEXT + 365 * 86_400_000)
    assert len(found(client, "dead-schedulers")) == 1
    assert show_schedule(client, Q.prefix, Q.name, "s").state == "dead"
    schedule(client, "s", "", **rule, endDate=NEXT - 7_200_000)
    assert found(client, "dead-schedulers") == []
    assert show_schedule(client, Q.prefix, Q.name, "s").state == "ended"


def test_the_same_job_under_several_ids(client: Client) -> None:
    schedule(client, "a", data='{"x":1}')
    schedule(client, "b", data='{"x":1}', name="a")
    # Of other data, of another time, or of another name: on purpose.
    schedule(client, "c", data='{"x":2}', name="a")
    schedule(client, "d", data='{"x":1}', name="a", every=61_000)
    schedule(client, "e", data='{"x":1}')
    (finding,) = found(client, "duplicate-schedulers")
    assert finding.severity == "warning"
    assert set(finding.evidence["schedulers"]) == {"a", "b"}
    assert len(finding.commands) == 1


def test_old_times_that_still_apply(client: Client) -> None:
    schedule(client, "a", name="job", data='{"x":1}', ic=120)
    schedule(client, "b", name="job", data='{"x":1}', every=61_000, ic=3)
    # Other data, another name, the same times, and one that has ended.
    schedule(client, "c", name="job", data='{"x":2}', every=62_000)
    schedule(client, "d", data='{"x":1}', every=63_000)
    schedule(client, "e", name="job", data='{"x":3}')
    schedule(client, "f", name="job", data='{"x":3}')
    schedule(client, "g", name="job", data='{"x":1}', every=64_000, limit=1)
    (finding,) = found(client, "outdated-schedulers")
    assert finding.severity == "info"
    assert finding.evidence["jobs_made"] == {"a": 120, "b": 3}
    assert finding.evidence["timings"]["b"] == "every 61000 ms"
    # A repeatable beside them is older than all.
    old = "0123456789abcdef0123456789abcdef"
    schedule(client, old, ic=None, name="job", every=None, pattern="0 3 * * *")
    (finding,) = found(client, "outdated-schedulers")
    assert finding.severity == "warning"
    assert finding.commands == (f"qctl schedules remove q {old}",)
    assert "0 3 * * *" in finding.what


def test_repeatables_at_different_times(client: Client) -> None:
    for number, minute in enumerate("12"):
        schedule(
            client, str(number) * 32, ic=None, name="n", every=None, pattern=f"{minute} * * * *"
        )
    (finding,) = found(client, "outdated-schedulers")
    assert (finding.severity, finding.evidence["count"]) == ("info", 2)
    assert finding.commands == ("qctl schedules list q",)


def test_repeatables_of_old_versions(client: Client) -> None:
    schedule(client, "0123456789abcdef0123456789abcdef", ic=None, name="nightly")
    (finding,) = found(client, "legacy-repeatables")
    assert finding.severity == "warning"
    assert found(client, "duplicate-schedulers") == []
    schedule(client, "new", name="nightly", data='{"x":1}')
    (double,) = found(client, "duplicate-schedulers")
    assert "1 of them are repeatables of old versions" in double.what
    assert double.commands == ("qctl schedules remove q 0123456789abcdef0123456789abcdef",)
    client.call("HSET", Q("meta"), "version", "bullmq:5.81.5")
    (finding,) = found(client, "legacy-repeatables")
    assert finding.severity == "info"


def test_a_repeatable_whose_last_job_has_run_has_ended(store: Client) -> None:
    sid = "0123456789abcdef0123456789abcdef"
    job_id = schedule(store, sid, "completed", ic=None)
    for count, state in ((2, "dead"), (3, "ended")):
        store.call("HSET", Q(job_id), "opts", f'{{"repeat":{{"limit":3,"count":{count}}}}}')
        assert len(found(store, "dead-schedulers")) == (state == "dead")
        assert show_schedule(store, Q.prefix, Q.name, sid).state == state


def test_the_oldest_form_is_not_called_dead(client: Client) -> None:
    schedule(client, "job:::Europe/Berlin:0 3 * * *", "", ic=None, every=None, pattern="0 3 * * *")
    assert found(client, "dead-schedulers") == []


def test_how_many_were_looked_at_is_said(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrations, "_MAX_PER_QUEUE", 2)
    for name in "abc":
        schedule(client, name)
    schedule(client, "z", "")
    diagnosis = diagnose(client)
    assert of(diagnosis, "dead-schedulers") == []
    assert result(diagnosis, "dead-schedulers").why == "2 of 4 schedulers; --full examines all"
    assert len(found(client, "dead-schedulers", full=True)) == 1
