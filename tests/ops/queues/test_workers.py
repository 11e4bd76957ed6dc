"""Workers: CLIENT LIST beside the heartbeats of qctl's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.ops.jobs.listing import show_job
from qctl.ops.queues.workers import WorkersReport, inspect_workers
from qctl.output.status import workers_text
from qctl.wire.read import heartbeats
from qctl.wire.read.clients import client_name
from tests.labs.build import Q, put
from tests.labs.servers import limited_user
from tests.labs.workers import BEAT

SETTINGS = Settings(pm2_home=Path("/nonexistent"), state_home=Path("/nonexistent"))


@pytest.fixture
def connected(redis_url: str) -> Iterator[list[Client]]:
    """Two connections, named like workers of ``q``."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(connect(redis_url)[1])) for _ in "ab"]
        clients[0].call("CLIENT", "SETNAME", client_name("bull", "q", BEAT.name))
        clients[1].call("CLIENT", "SETNAME", client_name("bull", "q", "node"))
        yield clients


def look(client: Client, url: str, *names: str) -> WorkersReport:
    report, remarks = inspect_workers(client, parse_url(url), SETTINGS, names)
    assert remarks == ()
    return report


def test_what_a_worker_tells_stands_beside_its_connection(
    client: Client, redis_url: str, connected: list[Client]
) -> None:
    heartbeats.beat(client, BEAT, 1_700_000_000_000)
    # By the lock, whoever's name the job bears.
    put(client, "1", "active", lock="own-1:8", pb="node")
    put(client, "2", "active", lock="other:8", pb=BEAT.name)
    own, node = look(client, redis_url, "q").workers
    assert (own.name, own.jobs, own.pid, own.process) == (BEAT.name, ("1",), 4711, "qctl:emails")
    assert (own.host, own.quiet, own.jobs_done, own.rss_bytes) == ("far", False, 8, 30_000_000)
    assert own.address
    assert (node.name, node.jobs, node.host, node.quiet) == ("node", ("1",), None, None)


def test_one_that_is_leaving_is_shown_with_its_jobs(
    client: Client, redis_url: str, connected: list[Client]
) -> None:
    leaving = replace(BEAT, owner="own-2", name="far-4712-0", pid=4712, quiet=True)
    for beat in (BEAT, leaving, replace(BEAT, owner="own-3", queue="elsewhere")):
        heartbeats.beat(client, beat, 1_700_000_000_000)
    put(client, "1", "active", lock="own-2:1")
    report = look(client, redis_url, "q")
    assert [row.name for row in report.workers] == ["far-4711-0", "far-4712-0", "node"]
    row = report.workers[1]
    assert (row.address, row.jobs, row.quiet, row.pid) == (None, ("1",), True, 4712)
    assert "(leaving)" in workers_text(report, width=200, colour=False)
    # What cannot be read is unknown.
    client.call("HSET", "qctl:worker:own-2", "pid", "x", "started", "", "quiet", "2", "failed", "y")
    report = look(client, redis_url, "q")
    row = report.workers[1]
    assert (row.pid, row.age_s, row.started_at, row.quiet, row.jobs_done) == (None,) * 5
    shown = workers_text(report, width=200, colour=False)
    assert next(line for line in shown.splitlines() if "far-4712-0" in line).split()[-1] == "?"
    held = show_job(client, Q, "1").held_by
    assert held is not None
    assert (held.host, held.pid) == ("far", None)


def test_names_that_several_have_are_not_guessed(
    client: Client, redis_url: str, connected: list[Client]
) -> None:
    heartbeats.beat(client, BEAT, 1_700_000_000_000)
    heartbeats.beat(client, replace(BEAT, owner="own-2", pid=1), 1_700_000_000_000)
    put(client, "1", "active", lock="own-1:1", pb=BEAT.name)
    own, _ = look(client, redis_url).workers
    assert (own.pid, own.host, own.jobs) == (None, None, ("1",))


def test_without_client_list_qctls_own_are_shown(client: Client, redis_url: str) -> None:
    heartbeats.beat(client, BEAT, 1_700_000_000_000)
    put(client, "1", "active", lock="own-1:1")
    with limited_user(client, redis_url, "~*", "+@all", "-client|list") as (url, lowly):
        report, remarks = inspect_workers(lowly, parse_url(url), SETTINGS)
    assert [(row.name, row.jobs) for row in report.workers] == [(BEAT.name, ("1",))]
    assert "may not list clients" in remarks[0]


def test_a_job_tells_who_has_it(client: Client) -> None:
    heartbeats.beat(client, BEAT, 1_700_000_000_000)
    put(client, "1", "active", lock="own-1:1")
    put(client, "2", "active", lock="somebody:1")
    held = show_job(client, Q, "1").held_by
    assert held is not None
    assert (held.host, held.pid, held.process) == ("far", 4711, "qctl:emails")
    assert show_job(client, Q, "2").held_by is None


def test_a_user_without_qctls_keys_sees_the_queue_all_the_same(
    client: Client, redis_url: str, connected: list[Client]
) -> None:
    heartbeats.beat(client, BEAT, 1_700_000_000_000)
    put(client, "1", "active", lock="own-1:1")
    with limited_user(client, redis_url, "~bull:*", "+@all") as (url, lowly):
        report, _ = inspect_workers(lowly, parse_url(url), SETTINGS)
        assert show_job(lowly, Q, "1").held_by is None
    assert [row.host for row in report.workers] == [None, None]
