"""Doctor: queues that are paused, of two versions, or unreadable."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.errors import NotFoundError
from qctl.wire.drain_record import record_starts
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pausing import pause
from tests.labs.build import Q, holder, put
from tests.labs.doctor import diagnose, found, of, result
from tests.labs.servers import limited_user


def test_a_queue_paused_by_somebody_else_says_since_when(client: Client) -> None:
    put(client, "1")
    client.call("HSET", Q("meta"), "paused", "1")
    client.call("XADD", Q("events"), "1700000000000-0", "event", "paused")
    client.call("XADD", Q("events"), "*", "event", "added", "jobId", "1")
    (finding,) = found(client, "paused")
    assert finding.severity == "warning"
    assert finding.what == (
        "paused, and not through qctl, since 2023-11-14 22:13:20 UTC; 1 job waits"
    )
    assert finding.evidence["paused_by"] is None
    assert finding.evidence["waiting"] == 1
    assert finding.commands == ("qctl resume q",)


def test_a_queue_paused_through_qctl_says_by_whom(client: Client) -> None:
    put(client, "1", "")
    pause(client, Q, holder("me"))
    (finding,) = found(client, "paused")
    assert "paused by qctl pause of ada@host (pid 42), since 2023-11-14" in finding.what
    assert finding.evidence["paused_by"] == "qctl pause of ada@host (pid 42)"


def test_a_drain_at_work_is_no_hazard(client: Client) -> None:
    put(client, "1")
    client.call("HSET", Q("meta"), "paused", "1")
    client.call("SET", Q.lease, holder("me", "drain").to_json())
    (finding,) = found(client, "paused")
    assert finding.severity == "info"
    assert "is at work on it now" in finding.what


def test_jobs_where_no_worker_looks(client: Client) -> None:
    put(client, "1", "paused")
    (finding,) = found(client, "legacy-paused")
    assert finding.severity == "error"
    assert "1 job is in BullMQ 5's list of paused jobs" in finding.what
    assert finding.commands == ("qctl resume q",)


def test_jobs_on_both_sides_of_a_pause(client: Client) -> None:
    put(client, "1", "paused")
    client.call("HSET", Q("meta"), "paused", "1")
    assert found(client, "legacy-paused") == []
    put(client, "2")
    put(client, "3")
    (finding,) = found(client, "legacy-paused")
    assert finding.severity == "error"
    assert finding.evidence == {"in_paused": 1, "in_wait": 2}


def test_traces_of_two_versions(client: Client) -> None:
    put(client, "1", "paused")
    client.call("HSET", Q("meta"), "paused", "1")
    (finding,) = found(client, "mixed-versions")
    assert finding.severity == "warning"
    assert "BullMQ 5 (jobs in the paused list) and BullMQ 6" in finding.what
    client.call("HSET", Q("meta"), "version", "bullmq:5.81.5")
    assert found(client, "mixed-versions") == []
    put(client, "2")
    client.call("HSET", Q("meta"), "version", "bullmq:5.81.5")
    (finding,) = found(client, "mixed-versions")
    assert finding.evidence["bullmq_6"] == ["jobs in wait although it is paused"]


def test_qctls_own_pause_is_no_trace_of_version_6(client: Client) -> None:
    put(client, "1")
    client.call("HSET", Q("meta"), "version", "bullmq:5.81.5")
    pause(client, Q, holder("me"))
    assert found(client, "mixed-versions") == []


def test_a_broken_queue_is_a_finding_and_hides_no_other(client: Client) -> None:
    put(client, "1")
    client.call("HSET", Q("meta"), "paused", "1")
    client.call("SET", "bull:broken:meta", "text")
    diagnosis = diagnose(client)
    (broken,) = of(diagnosis, "unreadable")
    assert (broken.severity, broken.subject.name) == ("error", "broken")
    assert len(of(diagnosis, "paused")) == 1
    assert diagnosis.examined.queues == 2


READ_BY_STATUS = (
    *("meta", "wait", "paused", "active", "prioritized", "delayed", "waiting-children"),
    *("completed", "failed", "repeat"),
)
NOT_READ = (
    *("id", "stalled", "stalled-check", "marker", "events", "pc", "limiter"),
    *("metrics:completed", "metrics:completed:data", "metrics:failed", "metrics:failed:data"),
)


def test_every_key_of_a_wrong_type_is_found(client: Client) -> None:
    put(client, "1", keys=QueueKeys("bull", "well"))
    for name in (*READ_BY_STATUS, *NOT_READ):
        keys = QueueKeys("bull", f"bad-{name.replace(':', '-')}")
        put(client, "1", "", keys=keys)
        client.call("XADD", keys("events"), "*", "event", "added", "jobId", "1")
        client.call("DEL", keys(name))
        is_text = name in {"id", "stalled-check", "pc", "limiter"}
        client.call("LPUSH" if is_text else "SET", keys(name), "x")
    diagnosis = diagnose(client)
    assert [each.check for each in diagnosis.checks if each.status == "failed"] == []
    told = {finding.subject.name: finding for finding in of(diagnosis, "unreadable")}
    assert "well" not in told
    for name in (*READ_BY_STATUS, *NOT_READ):
        finding = told[f"bad-{name.replace(':', '-')}"]
        assert finding.severity == "error"
        assert f"its key {name} is of type" in finding.what
        assert finding.what.startswith("it cannot be read") == (name in READ_BY_STATUS)
        (key,) = finding.evidence["keys"]
        assert key["key"].endswith(f":{name}")
        assert finding.commands == (f"redis-cli renamenx {key['key']} wrong:{key['key']}",)
        assert ("above the id of every job" in finding.remedy) == (name == "id")


def test_a_named_queue_that_cannot_be_read_is_a_finding_too(client: Client) -> None:
    put(client, "1")
    client.call("SET", "bull:broken:wait", "text")
    client.call("HSET", "bull:broken:meta", "version", "bullmq:6.7.0")
    diagnosis = diagnose(client, "redis://localhost/2", "broken", "q", "broken")
    (finding,) = of(diagnosis, "unreadable")
    assert finding.subject.name == "broken"
    assert finding.commands == ("redis-cli -n 2 renamenx bull:broken:wait wrong:bull:broken:wait",)
    assert diagnosis.examined.queues == 2
    with pytest.raises(NotFoundError, match="'nope'"):
        diagnose(client, "redis://localhost/0", "broken", "nope")


def test_whoever_may_not_ask_for_types_is_told(client: Client, redis_url: str) -> None:
    put(client, "1")
    client.call("SET", "bull:broken:wait", "text")
    with limited_user(client, redis_url, "~*", "+@all", "-type") as (url, lowly):
        diagnosis = diagnose(lowly, url, "broken", "q")
    assert result(diagnosis, "unreadable").status == "failed"
    assert {finding.subject.name for finding in of(diagnosis, "unreadable")} == {
        "broken",
        "unreadable",
    }


def test_a_queue_of_bull_is_only_named(client: Client) -> None:
    client.call("SET", "bull:old:id", "7")
    client.call("RPUSH", "bull:old:paused", "1")
    diagnosis = diagnose(client)
    (finding,) = of(diagnosis, "bull-queues")
    assert (finding.severity, finding.subject.name) == ("info", "old")
    about = {f.check for f in diagnosis.findings if f.subject.kind == "queue"}
    assert about == {"bull-queues"}


def test_what_fails_is_a_finding_and_the_others_go_on(client: Client, redis_url: str) -> None:
    put(client, "1", "paused")
    rules = ("~*", "+@all", "-info", "-client|list")
    with limited_user(client, redis_url, *rules) as (url, lowly):
        diagnosis = diagnose(lowly, url)
    for check in ("eviction", "persistence", "memory", "redis-version", "replica", "no-workers"):
        assert result(diagnosis, check).status == "failed", check
        (finding,) = of(diagnosis, check)
        assert finding.severity == "warning"
        assert finding.what.startswith("could not be checked: this Redis user may not")
        assert finding.remedy.startswith("grant it")
    assert result(diagnosis, "clock").status == "ok"
    assert len(of(diagnosis, "legacy-paused")) == 1
    assert diagnosis.examined.workers is None


def test_whoever_may_not_ask_for_the_time_is_told_the_rest(client: Client, redis_url: str) -> None:
    put(client, "1", "completed")
    with limited_user(client, redis_url, "~*", "+@all", "-time") as (url, lowly):
        diagnosis = diagnose(lowly, url)
    assert [each.check for each in diagnosis.checks if each.status == "failed"] == ["clock"]
    assert len(of(diagnosis, "persistence")) == 1


def test_an_app_that_resumes_its_queue_when_it_starts(client: Client) -> None:
    put(client, "1")
    record_starts(
        client, "bull", "pm2:app", 1_700_000_000_000, resumed=["q", "gone"], kept=["other"]
    )
    (finding,) = found(client, "resumes-at-start")
    assert (finding.severity, finding.subject.name) == ("warning", "q")
    assert finding.what.startswith("pm2:app resumes ")
    assert "as seen at 2023-11-14 22:13:20 UTC" in finding.what
    assert "resume()" in finding.remedy


def test_whoever_may_not_read_what_drains_have_seen(client: Client, redis_url: str) -> None:
    put(client, "1")
    with limited_user(client, redis_url, "~bull:*", "+@all") as (url, lowly):
        diagnosis = diagnose(lowly, url)
    assert result(diagnosis, "resumes-at-start").status == "skipped"
