"""What is in Redis: it is read whatever it is, and shown without obeying it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from qctl.config.prefixes import EVERY_PREFIX, only
from qctl.connection.info import parse_info, product
from qctl.errors import UsageError
from qctl.ops.follow.events import queue_event
from qctl.ops.jobs.listing import listed_job
from qctl.ops.jobs.model import JobList
from qctl.ops.queues.workers import WorkersReport, WorkerStatus
from qctl.ops.schedules.listing import describe
from qctl.output import jobs as jobs_view
from qctl.output import schedules as schedules_view
from qctl.output.console import table
from qctl.output.events import event_line
from qctl.output.status import workers_text
from qctl.output.text import visible
from qctl.wire.drain_record import read_drain_records, read_resumers
from qctl.wire.events import event_order, previous_id, to_event
from qctl.wire.jobs import ReadJob, parse_job
from qctl.wire.keys import QueueKeys, job_of
from qctl.wire.notes import noted_event, parse_holder
from qctl.wire.read import flows, heartbeats
from qctl.wire.read.clients import list_all_workers, parse_workers
from qctl.wire.read.info import can_lose_writes, upstream
from qctl.wire.read.server import read_servers
from qctl.wire.schedulers.cron import check_pattern, next_time_ms
from qctl.wire.schedulers.iterations import Iteration, Registered
from qctl.wire.schedulers.scheduling import (
    next_iteration_call,
    parse_scheduler,
    skipped_count,
    template_of,
)
from tests.fuzz.cases import Scripted
from tests.labs.fuzzing import (
    ANY_TEXT,
    JSON,
    TEXT,
    assert_clean,
    assert_json,
    broken_rows,
    encoded,
    fuzz,
    mixed,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_MS = 1_767_225_600_000
Q = QueueKeys("bull", "q")
JOB = {
    "name": "mail", "data": '{"to":"a"}', "opts": '{"attempts":3}', "timestamp": "1700000000000",
    "delay": "0", "priority": "4", "processedOn": "1700000001000", "finishedOn": "1700000002000",
    "atm": "1", "ats": "1", "stc": "0", "pb": "w", "progress": "1", "returnvalue": "1",
    "failedReason": "no", "stacktrace": '["a"]', "rjk": "s", "parentKey": "bull:q:1", "defa": "x",
}  # fmt: skip


def flat(fields: dict[str, str]) -> list[str]:
    return [word for pair in fields.items() for word in pair]


@fuzz(
    job_id=TEXT,
    fields=broken_rows(JOB, ANY_TEXT | encoded(JSON)),
    state=st.sampled_from(("failed", "active", "delayed", "completed", "waiting")),
    score=st.none() | st.floats(),
)
def test_job_hashes(job_id: str, fields: dict[str, str], state: str, score: float | None) -> None:
    from qctl.wire.read.lists import Entry  # noqa: PLC0415

    found = ReadJob(parse_job(job_id, fields), "token", 5)
    job = listed_job(Entry(job_id, score), found, state, NOW_MS)
    jobs = JobList("q", state, 1, (job,))
    assert_json(jobs)
    columns = jobs_view.columns(jobs, NOW, 100)
    assert_clean(table(columns, [job], width=100))
    for name, stored in (("timestamp", job.added_at), ("processedOn", job.started_at)):
        if not fields.get(name, "").isascii():
            assert stored is None


@fuzz(
    entry=st.builds("{}-{}".format, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    fields=st.dictionaries(
        st.sampled_from(("event", "jobId", "delay", "count", "attemptsMade", "returnvalue", "data"))
        | TEXT,
        ANY_TEXT | encoded(JSON),
    ),
)
def test_events(entry: str, fields: dict[str, str]) -> None:
    event = to_event(entry, flat(fields))
    assert event_order(previous_id(entry)) <= event_order(entry)
    shown = queue_event(Q, event)
    assert_clean(event_line(shown, NOW, width=200, colour=False))
    assert_json(shown)


CLIENT = {
    "id": "7", "addr": "10.0.0.1:57", "name": "bull:cQ==:w:a", "age": "60", "idle": "2", "db": "0",
    "cmd": "bzpopmin",
}  # fmt: skip
CLIENT_NAMES = st.builds("bull:{}".format, ANY_TEXT) | st.from_regex(
    r"[a:]{1,20}(:w:){0,20}[a-zA-Z=+/:]{0,20}(:qe)?", fullmatch=True
)
LINES = st.lists(broken_rows(CLIENT, ANY_TEXT | CLIENT_NAMES), max_size=3).map(
    lambda rows: "\n".join(" ".join(f"{k}={v}" for k, v in row.items()) for row in rows)
)


@fuzz(text=mixed(LINES, ANY_TEXT))
def test_lists_of_clients(text: str) -> None:
    parse_workers([text], only("bull"), [Q])
    found = list_all_workers(Scripted(lambda *_: text), [Q])  # type: ignore[arg-type]
    if found is None:
        return
    assert_clean(*(visible(str(worker)) for _, worker in found.foreign))
    rows = tuple(
        WorkerStatus(
            *(worker.queue, worker.keys.prefix, worker.worker_name, worker.address, None, None),
            cpu_percent=None,
            rss_bytes=None,
            jobs=None,
            age_s=worker.age_s,
        )
        for worker in found.workers
    )
    report = WorkersReport(rows)
    assert_clean(workers_text(report, width=100, colour=False))
    assert_json(report)
    parse_workers([text], EVERY_PREFIX)


INFO = {
    "role": "slave", "master_host": "h", "master_port": "1", "master_link_status": "up",
    "redis_version": "7.0.0", "valkey_version": "8", "uptime_in_seconds": "5", "used_memory": "1",
    "maxmemory": "0", "aof_enabled": "0", "rdb_last_save_time": "1700000000",
    "rdb_changes_since_last_save": "0", "connected_slaves": "1", "master_repl_offset": "9",
    "slave0": "ip=1.2.3.4,port=1,state=online,offset=5,lag=0", "min_slaves_good_slaves": "1",
}  # fmt: skip


@fuzz(info=broken_rows(INFO, ANY_TEXT | st.sampled_from(("9007199254740992", "1e15", "-5"))))
def test_infos(info: dict[str, str]) -> None:
    text = "# Server\r\n" + "".join(f"{name}:{value}\r\n" for name, value in info.items())

    def answer(name: str, *words: str) -> Any:
        return {"INFO": text, "TIME": ["1700000000", "5"]}.get(name, [])

    client: Any = Scripted(answer)
    product(info)
    above = upstream(text)
    if above is not None:
        assert_clean(visible(str(above)))
    assert_json(read_servers(client))
    if not can_lose_writes(client):
        fields = parse_info(text)
        assert abs(float(fields["connected_slaves"])) < 1
        assert fields["aof_enabled"] == "0"


HOLDER = {
    "owner": "x", "verb": "drain", "user": "u", "host": "h", "pid": 1, "at_ms": 1_700_000_000_000,
    "was_paused": True, "event": "1-1",
}  # fmt: skip


@fuzz(text=mixed(encoded(broken_rows(HOLDER, JSON)), ANY_TEXT))
def test_notes_and_leases(text: str) -> None:
    holder = parse_holder(text)
    assert noted_event(text) == "" or "-" in noted_event(text)
    if holder is not None:
        assert_clean(visible(str(holder)))
        assert "\n" not in str(holder)


DRAINS = {
    "drains:drained": "1", "jobs:completed": "3", "last:outcome": "drained", "last:at_ms": "1",
    "last:completed": "3", "last:failed": "0", "last:retried": "0", "last:interrupted": "unknown",
    "last:recovered": "0", "last:lost": "0", "last:paused_ms": "5", "last:idle_ms": "1",
    'resumer:["q", "pm2:w"]': "1700000000000",
}  # fmt: skip


@fuzz(row=broken_rows(DRAINS, ANY_TEXT), more=st.lists(ANY_TEXT | encoded(JSON), max_size=2))
def test_drain_records(row: dict[str, str], more: list[str]) -> None:
    row = row | {f"resumer:{name}": "1" for name in more}
    client: Any = Scripted(lambda *_: flat(row))
    (record,) = read_drain_records(client, ["bull"])
    assert_json(record)
    resumers = read_resumers(client, "bull")
    assert all(isinstance(r.queue, str) and isinstance(r.target, str) for r in resumers)
    if record is not None and record.last is not None:
        for name in ("interrupted", "lost", "idle_ms"):
            if not row.get(f"last:{name}", "")[:1].isascii() or f"last:{name}" not in row:
                assert getattr(record.last, name) is None


BEAT = {
    "host": "h", "pid": "1", "process": "qctl:w", "prefix": "bull", "queue": "q", "name": "w",
    "started": "1700000000000", "concurrency": "5", "busy": "1", "quiet": "0", "completed": "3",
    "failed": "0", "rss": "1",
}  # fmt: skip


@fuzz(row=broken_rows(BEAT, ANY_TEXT), owner=TEXT)
def test_heartbeats(row: dict[str, str], owner: str) -> None:
    client: Any = Scripted(lambda *words: [row.get(name) for name in words[2:]])
    found = heartbeats.read(client, [owner])
    assert_json(found)


SCHEDULER = {
    "ic": "1", "name": "n", "pattern": "* * * * *", "every": "1000", "tz": "UTC", "offset": "1",
    "limit": "5", "startDate": "1", "endDate": "9999999999999", "data": "{}", "opts": "{}",
}  # fmt: skip
REPEAT = {
    "pattern": "0 0 29 2 *", "every": 1000, "tz": "Europe/Berlin", "limit": 5, "count": 1,
    "endDate": 9_999_999_999_999, "offset": 0,
}  # fmt: skip
OPTS = st.fixed_dictionaries(
    {"repeat": broken_rows(REPEAT, JSON) | JSON},
    optional={"prevMillis": JSON, "priority": JSON, "backoff": JSON, "lifo": JSON},
)
PATTERNS = st.lists(
    st.sampled_from(
        ("*", "?", "0", "7", "1-5", "*/2", "L", "5L", "1#5", "MON", "feb", "31", "29", "2", "1,1")
    )
    | TEXT,
    max_size=6,
).map(" ".join)


@fuzz(
    scheduler_id=TEXT | st.just("n:i:1:UTC:* * * * *"),
    record=st.just({}) | broken_rows(SCHEDULER, ANY_TEXT | PATTERNS),
    opts=encoded(OPTS) | ANY_TEXT,
    due=st.none() | st.integers(-(2**53), 2**53),
)
def test_schedulers(scheduler_id: str, record: dict[str, str], opts: str, due: int | None) -> None:
    fields = {"opts": opts, "rjk": scheduler_id, "data": "{}", "name": "n"}
    scheduler = parse_scheduler(scheduler_id, str(due), record)
    pending = Iteration("repeat:x:1", "delayed", fields)
    entry = Registered(scheduler_id, due, scheduler, record, "repeat:x:", pending)
    shown = describe(Q, entry, NOW_MS)
    assert_json(shown)
    assert_clean(table(schedules_view.columns([shown], NOW), [shown], width=100))
    template_of(record, fields)
    try:
        next_iteration_call(Q, "repeat:x:1", fields, NOW_MS)
    except UsageError as error:
        assert_clean(*map(visible, error.lines))


@fuzz(pattern=PATTERNS | ANY_TEXT, tz=TEXT | st.sampled_from(("UTC", "../etc/passwd", "utc+99")))
def test_patterns(pattern: str, tz: str) -> None:
    for zone in ("UTC", tz):
        try:
            check_pattern(pattern)
        except UsageError as error:
            assert_clean(*map(visible, error.lines))
        try:
            due_ms = next_time_ms(pattern, zone, NOW_MS)
        except UsageError:
            continue
        assert due_ms is None or due_ms > NOW_MS
        skipped_count(pattern, zone, None, since_ms=NOW_MS - 10**10, now_ms=NOW_MS)


@fuzz(key=ANY_TEXT | st.builds("bull:{}:{}".format, TEXT, TEXT), parent=encoded(JSON) | ANY_TEXT)
def test_keys_of_flows(key: str, parent: str) -> None:
    for found in (job_of(key, "bull"), flows.parent_of(key, parent, "bull")):
        if found is not None:
            assert found[0](found[1]) == key
    assert all(keys(job_id) == key for keys, job_id in flows._ways(key, "bull"))
