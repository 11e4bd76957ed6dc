"""Doctor: workers that are not there, do not fetch, or cannot be told apart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.errors import FailedError
from qctl.ops.doctor import workers
from qctl.ops.doctor.run import examine
from qctl.ops.processes.targets import read_connections
from qctl.ops.queues.status import inspect_queues
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import client_name
from tests.labs.build import Q, holder, put
from tests.labs.doctor import SETTINGS, diagnose, found, of
from tests.labs.servers import wait_until


@pytest.fixture
def connected(redis_url: str) -> Iterator[Callable[..., Client]]:
    """Makes connections named like workers of ``q``."""
    with contextlib.ExitStack() as stack:

        def connect_one(name: str | None = None) -> Client:
            client = stack.enter_context(contextlib.closing(connect(redis_url)[1]))
            client.call("CLIENT", "SETNAME", client_name("bull", "q", name))
            return client

        yield connect_one


def test_jobs_wait_and_no_worker_is_connected(
    client: Client, connected: Callable[..., Client]
) -> None:
    put(client, "1", "completed")
    assert found(client, "no-workers") == []
    put(client, "2")
    (finding,) = found(client, "no-workers")
    assert finding.severity == "error"
    assert finding.what == "1 job waits, and no worker is connected"
    connected("w")
    assert found(client, "no-workers") == []


def test_a_worker_that_redis_does_not_list_is_not_called_absent(client: Client) -> None:
    put(client, "1")
    put(client, "2", "active", lock="t:1", pb="worker 1")
    assert found(client, "no-workers") == []
    assert found(client, "unlisted-workers")[0].evidence["names"] == ["worker 1"]


def test_under_a_prefix_whose_workers_redis_does_not_list(client: Client) -> None:
    put(client, "1", keys=QueueKeys("my app", "q"))
    settings = SETTINGS.under("my app")
    diagnosis = diagnose(client, settings=settings)
    what = of(diagnosis, "no-workers")[0].what
    assert what.startswith("could not be checked: ")
    assert "'my app'" in what
    assert diagnosis.examined.workers is None
    (status,) = inspect_queues(client, parse_url("redis://localhost/0"), settings).report.queues
    assert (status.workers, status.severity) == (None, "unknown")
    with pytest.raises(FailedError, match="'my app'"):
        read_connections(client, settings, 0, ())


def test_workers_of_one_name(client: Client, connected: Callable[..., Client]) -> None:
    put(client, "1", "completed")
    for name in ("a", "b", "b", None, None):
        connected(name)
    (finding,) = found(client, "worker-names")
    assert finding.severity == "warning"
    assert finding.evidence["names"] == {"b": 2}
    assert len(finding.evidence["addresses"]) == 2
    (info,) = found(client, "unnamed-workers")
    assert (info.severity, info.evidence) == ("info", {"unnamed": 2, "workers": 5})


def test_the_same_name_in_two_queues_is_fine(
    client: Client, connected: Callable[..., Client]
) -> None:
    put(client, "1", "completed")
    connected("a")
    connected("a").call("CLIENT", "SETNAME", client_name("bull", "r", "a"))
    assert found(client, "worker-names") == []


def test_workers_that_do_not_fetch(
    client: Client, connected: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 1)
    put(client, "1", "wait")
    client.call("XADD", Q("events"), "1700000000000-0", "event", "waiting", "jobId", "1")
    connected("w")
    # A new worker may still be on its way to its first job.
    assert found(client, "not-fetching") == []
    (finding,) = wait_until(lambda: found(client, "not-fetching"), "a second to pass")
    assert finding.severity == "error"
    assert finding.what == "1 job waits and none starts, although 1 worker is connected"
    assert finding.evidence["workers"] == 1
    # A flood of new jobs does not hide it.
    client.call("XADD", Q("events"), "*", "event", "added", "jobId", "2")
    assert len(found(client, "not-fetching")) == 1

    reasons: list[tuple[tuple[str | int, ...], tuple[str | int, ...]]] = [
        (("HSET", Q("meta"), "paused", "1"), ("HDEL", Q("meta"), "paused")),
        (("SET", Q.lease, holder("me", "drain").to_json()), ("DEL", Q.lease)),
        (
            ("HSET", Q("1"), "timestamp", int(time.time() * 1000)),
            ("HSET", Q("1"), "timestamp", 1_700_000_000_000),
        ),
    ]
    for do, undo in reasons:
        client.call(*do)
        assert found(client, "not-fetching") == [], do
        client.call(*undo)
        assert len(found(client, "not-fetching")) == 1, undo

    # A limit that may not be reached hides nothing; one that is, does.
    client.call("SET", Q("limiter"), "3", "PX", 60_000)
    (finding,) = found(client, "not-fetching")
    assert finding.severity == "warning"
    assert "it may be rate limited for another" in finding.what
    client.call("HSET", Q("meta"), "max", "100")
    (finding,) = found(client, "not-fetching")
    assert (finding.severity, finding.evidence["may_be_limited_s"]) == ("error", None)
    client.call("HSET", Q("meta"), "max", "3")
    assert found(client, "not-fetching") == []
    client.call("HDEL", Q("meta"), "max")
    client.call("DEL", Q("limiter"))

    put(client, "2", "active")
    (finding,) = found(client, "not-fetching")
    assert "stalled jobs (1) may keep them busy" in finding.what
    client.call("HSET", Q("meta"), "concurrency", "1")
    assert found(client, "not-fetching") == []
    (finding,) = found(client, "global-concurrency")
    assert finding.severity == "error"
    assert finding.what == (
        "its global concurrency of 1 is reached: 1 job is active (1 of these jobs has stalled), "
        "1 job waits"
    )
    assert finding.commands == ("qctl jobs retry-stalled q",)
    client.call("HDEL", Q("meta"), "concurrency")
    client.call("SET", Q.lock("2"), "t")
    assert found(client, "not-fetching") == []
    client.call("DEL", Q.lock("2"))
    client.call("XADD", Q("events"), "*", "event", "completed", "jobId", "0")
    assert found(client, "not-fetching") == []


def test_a_due_job_that_no_worker_fetches(
    client: Client, connected: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 1)
    put(client, "1", "delayed", score=(int(time.time() * 1000) - 60_000) * 4096)
    assert found(client, "no-workers")[0].evidence["overdue"] == 1
    connected("w")
    (finding,) = wait_until(lambda: found(client, "not-fetching"), "a second to pass")
    assert finding.what == (
        "1 job is delayed and overdue and none starts, although 1 worker is connected"
    )
    # A worker that still fetches moves others on.
    client.call("XADD", Q("events"), "*", "event", "completed", "jobId", "0")
    assert found(client, "not-fetching") == []


def test_a_due_job_for_which_busy_workers_have_no_room(
    client: Client, connected: Callable[..., Client]
) -> None:
    put(client, "1", "delayed", score=(int(time.time() * 1000) - 60_000) * 4096)
    put(client, "2", "active", lock="t")
    assert found(client, "overdue-jobs") == []
    connected("w")
    (finding,) = found(client, "overdue-jobs")
    assert finding.severity == "warning"
    assert (finding.evidence["overdue"], finding.evidence["active"]) == (1, 1)
    assert 60 <= finding.evidence["overdue_s"] < 120
    assert found(client, "not-fetching") == []
    client.call("DEL", Q.lock("2"))
    assert found(client, "overdue-jobs") == []


def test_a_job_that_starts_between_two_looks_is_no_hazard(
    client: Client,
    redis_url: str,
    connected: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 0)
    put(client, "1", "wait")
    client.call("XADD", Q("events"), "1700000000000-0", "event", "waiting", "jobId", "1")
    connected("w")
    looks = []

    def second_look(seconds: float) -> None:
        looks.append(seconds)
        client.call("RPOPLPUSH", Q("wait"), Q("active"))
        client.call("SET", Q.lock("1"), "t")

    diagnosis = examine(client, parse_url(redis_url), SETTINGS, sleep=second_look)
    assert looks == [workers.SECOND_READING_S]
    assert not [f for f in diagnosis.findings if f.check == "not-fetching"]
