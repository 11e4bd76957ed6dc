"""Jobs in the middle of a long list are deleted, and one call never searches for many of them."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.ops.bulk.actions import Selection, purging, removing
from qctl.ops.bulk.model import BulkReport
from qctl.ops.bulk.run import BulkRun
from qctl.ops.jobs.where import Filter, parse_where
from qctl.wire.write.pace import Pace
from qctl.wire.write.transitions import remove_jobs
from tests.labs.build import Q, put, row
from tests.labs.bulk import child, top
from tests.labs.servers import RedisServer


def fill(client: Client, count: int, jobs: dict[int, str]) -> None:
    """A ``wait`` of so many entries; at the given places from the head are jobs with those ids."""
    ids = [jobs.get(n, f"x{n}") for n in range(count)]
    for start in range(0, count, 10_000):
        client.call("RPUSH", Q("wait"), *ids[start : start + 10_000])
    for job_id in jobs.values():
        put(client, job_id, "")


def carried_out(client: Client, *ids: str, total: int = 1, **options: bool) -> BulkReport:
    run = BulkRun(client, Q, removing(), Selection(ids=ids), total, **options)
    for _ in run:
        pass
    return run.report()


@contextlib.contextmanager
def monitored(server: RedisServer) -> Iterator[Callable[[], list[str]]]:
    """Yields a function that returns what the server has run so far, as MONITOR shows it."""
    with (
        socket.create_connection(("127.0.0.1", server.port)) as watcher,
        watcher.makefile("r", encoding="utf-8", newline="\r\n") as stream,
    ):
        watcher.sendall(b"MONITOR\r\n")
        assert stream.readline().strip() == "+OK"

        def commands() -> list[str]:
            with contextlib.closing(connect(server.url)[1]) as client:
                client.call("ECHO", "the end")
            lines = []
            while '"ECHO" "the end"' not in (line := stream.readline()):
                lines.append(line)
            return lines

        yield commands


def test_named_jobs_are_deleted_wherever_they_are(client: Client) -> None:
    places = {1: "first", 4_999: "near", 30_000: "a", 60_000: "b", 60_007: "c", 199_999: "last"}
    fill(client, 200_000, places)
    put(client, "nowhere", "")
    before = row(client, "wait")
    named = random.Random(7).sample([*places.values(), "never", "nowhere"], 8)
    report = carried_out(client, *named)
    # A job in no state is deleted, too; there is none with the id "never".
    assert set(report.sample) == {*places.values(), "nowhere"}
    assert [skipped.id for skipped in report.skipped] == ["never"]
    assert row(client, "wait") == [job_id for job_id in before if job_id not in places.values()]


def test_one_call_does_not_search_for_many(client: Client, redis_server: RedisServer) -> None:
    """Not even the first one, when earlier ones were quick and so the number of jobs has grown."""
    places = {n * 997: f"d{n}" for n in range(100, 200)}
    fill(client, 300_000, places)
    with monitored(redis_server) as commands:
        answers = remove_jobs(client, Q, [*places.values()], pace=Pace(100))
        searches: list[int] = []
        for line in commands():
            if '"EVALSHA"' in line or '"EVAL"' in line:
                searches.append(0)
            elif '"LREM"' in line and '"bull:q:wait"' in line:
                searches[-1] += 1
    assert set(answers.values()) == {"removed"}
    assert sum(searches) == len(places)
    assert max(searches) <= 10


def test_children_go_with_their_parent(client: Client) -> None:
    root = top(client)
    places = {n: f"c{n}" for n in range(500, 60_000, 5_000)}
    fill(client, 60_000, places)
    for job_id in places.values():
        child(client, (Q, job_id), root, "")
    run = BulkRun(client, Q, removing(with_children=True), Selection(ids=("top",)), 1)
    list(run)
    assert (run.report().done, run.report().below_count) == (1, len(places))
    assert row(client, "wait") == [f"x{n}" for n in range(60_000) if n not in places]
    assert client.call("EXISTS", *(Q(job_id) for job_id in places.values())) == 0


def test_what_a_filter_chooses_is_deleted(client: Client) -> None:
    places = {n: f"d{n}" for n in range(0, 24_000, 3_000)}
    fill(client, 24_000, places)
    for job_id in places.values():
        client.call("HSET", Q(job_id), "name", "wanted")
    only = Filter(where=parse_where("name = wanted"))
    for dry_run in (True, False):
        chosen = Selection(state="waiting", only=only)
        run = BulkRun(client, Q, purging(), chosen, 24_000, dry_run=dry_run)
        list(run)
        assert (run.report().done, run.report().scanned) == (len(places), 24_000)
    assert row(client, "wait") == [f"x{n}" for n in range(24_000) if n not in places]


def test_a_dry_run_reports_the_same(client: Client) -> None:
    fill(client, 50_000, {25_000: "deep"})
    put(client, "nowhere", "")
    dry, done = (carried_out(client, "deep", "nowhere", "never", dry_run=d) for d in (True, False))
    assert dry.sample == done.sample == ("deep", "nowhere")
    assert dry.skipped == done.skipped
