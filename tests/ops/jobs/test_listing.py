"""Lists of jobs, one job in full, and job logs; against the fake and a real server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from qctl.connection.address import Arg, Client
from qctl.connection.connect import connect
from qctl.errors import NotFoundError, ReplyError, UsageError
from qctl.ops.jobs.listing import DEFAULT_LIMIT, list_jobs, show_job, stream_jobs
from qctl.ops.jobs.logs import follow_logs, read_logs
from qctl.ops.jobs.where import Filter
from qctl.wire.read.in_state import CHUNK
from qctl.wire.states import STATES
from tests.labs.clients import Spy
from tests.labs.jobs import KEYS, PLACES, T0, add, lock, snapshot
from tests.labs.servers import RedisServer


def ids(client: Client, state: str, *, limit: int = DEFAULT_LIMIT, **only: Any) -> list[str]:
    jobs = list_jobs(client, snapshot(client), state, Filter(**only), limit=limit).jobs
    return [job.id for job in jobs]


def test_waiting_lists_what_runs_next_first(client: Client) -> None:
    for job_id in "123":
        add(client, job_id, "wait")
    for job_id in "ab":
        add(client, job_id, "paused")
    assert ids(client, "waiting") == ["a", "b", "1", "2", "3"]
    listed = list_jobs(client, snapshot(client), "waiting", limit=2)
    assert ([job.id for job in listed.jobs], listed.total) == (["a", "b"], 5)


@pytest.mark.parametrize("state", ["delayed", "prioritized", "waiting-children"])
def test_sorted_states_list_the_lowest_score_first(client: Client, state: str) -> None:
    for number in range(5):
        add(client, str(number), state, score=100 - number)
    assert ids(client, state, limit=3) == ["4", "3", "2"]


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_finished_states_list_the_newest_first(client: Client, state: str) -> None:
    for number in range(5):
        finished = T0 + number * 1000
        add(client, str(number), state, finished, processedOn=T0, finishedOn=finished)
    listed = list_jobs(client, snapshot(client), state, limit=3)
    assert [job.id for job in listed.jobs] == ["4", "3", "2"]
    assert [job.runtime_s for job in listed.jobs] == [4.0, 3.0, 2.0]
    assert listed.jobs[0].finished_at == datetime.fromtimestamp((T0 + 4000) / 1000, UTC)
    assert listed.total == 5


def test_a_job_has_every_field_of_the_contract(client: Client) -> None:
    add(
        client,
        "1",
        "active",
        data='{"to":"a"}',
        ats=2,
        atm=1,
        stc=1,
        pb="w1",
        processedOn=T0,
        failedReason="first try",
        progress="50",
        rjk="daily",
        priority=7,
    )
    lock(client, "1")
    (job,) = list_jobs(client, snapshot(client), "active").jobs
    assert (job.id, job.name, job.state, job.data) == ("1", "send", "active", {"to": "a"})
    assert (job.attempts_made, job.attempts_started, job.attempts_max) == (1, 2, 3)
    assert (job.stalled_count, job.worker, job.progress) == (1, "w1", 50)
    assert (job.failed_reason, job.scheduler, job.priority) == ("first try", "daily", 7)
    assert job.lock_ttl_ms is not None
    assert 0 < job.lock_ttl_ms <= 30_000
    assert job.started_at == datetime.fromtimestamp(T0 / 1000, UTC)
    assert job.runtime_s is not None
    assert job.runtime_s > 1000
    assert job.finished_at is None


def test_the_due_time_of_a_delayed_job_comes_from_its_score(client: Client) -> None:
    add(client, "1", "delayed", score=(T0 + 5) * 4096 + 3, delay=5)
    (job,) = list_jobs(client, snapshot(client), "delayed").jobs
    assert job.due_at == datetime.fromtimestamp((T0 + 5) / 1000, UTC)


def test_stalled_is_the_part_of_active_without_a_lock(client: Client) -> None:
    for job_id in "1234":
        add(client, job_id, "active", processedOn=T0)
    lock(client, "1")
    lock(client, "3")
    # BullMQ's own ``stalled`` set holds healthy jobs; it must not matter.
    client.call("SADD", KEYS("stalled"), "1", "3")
    listed = list_jobs(client, snapshot(client), "stalled")
    assert ([job.id for job in listed.jobs], listed.total) == (["2", "4"], 2)
    active = list_jobs(client, snapshot(client), "active").jobs
    assert [(job.id, job.state) for job in active] == [
        ("1", "active"),
        ("2", "stalled"),
        ("3", "active"),
        ("4", "stalled"),
    ]
    assert list_jobs(client, snapshot(client), "stalled", limit=1).total == 2


@pytest.mark.parametrize("state", ["active", "stalled"])
def test_a_job_that_finishes_while_it_is_read_is_not_called_stalled(
    fake: Client, state: str
) -> None:
    add(fake, "1", "active", processedOn=T0)
    add(fake, "2", "active", processedOn=T0)
    lock(fake, "1")

    def finish() -> None:
        fake.call("DEL", KEYS.lock("1"))
        fake.call("LREM", KEYS("active"), 1, "1")
        fake.call("ZADD", KEYS("completed"), T0, "1")

    before = snapshot(fake)
    spy = Spy(fake)
    spy.before[1] = finish
    listed = list_jobs(spy, before, state)
    assert [(job.id, job.state) for job in listed.jobs] == [("2", "stalled")]


@pytest.mark.parametrize("state", STATES)
def test_an_id_without_a_record_is_shown_as_missing(client: Client, state: str) -> None:
    place = PLACES.get(state, state)
    in_list = place in {"wait", "active"}
    add(client, "1", place, None if in_list else T0)
    client.call("DEL", KEYS("1"))
    (job,) = list_jobs(client, snapshot(client), state).jobs
    assert (job.id, job.name, job.missing, job.data) == ("1", None, True, None)


@pytest.mark.parametrize("state", STATES)
def test_an_empty_state_is_an_empty_list(client: Client, state: str) -> None:
    client.call("HSET", KEYS("meta"), "version", "bullmq:5.0.0")
    listed = list_jobs(client, snapshot(client), state)
    assert (listed.queue, listed.state, listed.total, listed.jobs) == ("q", state, 0, ())


def test_markers_of_old_versions_are_no_jobs(client: Client) -> None:
    add(client, "1", "wait")
    client.call("RPUSH", KEYS("wait"), "0:0")
    add(client, "2", "active")
    client.call("RPUSH", KEYS("active"), "0:1700000000000")
    client.call("LPUSH", KEYS("wait"), "0:1700000000000")
    assert ids(client, "waiting") == ["1"]
    assert list_jobs(client, snapshot(client), "waiting").total == 1
    assert ids(client, "active") == ["2"]
    assert ids(client, "stalled") == ["2"]


def test_an_unknown_state_is_a_usage_error_that_lists_them(fake: Client) -> None:
    add(fake, "1", "wait")
    with pytest.raises(UsageError) as caught:
        list_jobs(fake, snapshot(fake), "paused")
    assert "waiting-children" in caught.value.why


def test_a_bull_queue_reads_the_same(client: Client) -> None:
    client.call("SET", KEYS("id"), 2)
    fields = ("name", "__default__", "data", "{}", "opts", '{"attempts":1,"priority":3}')
    client.call("HSET", KEYS("1"), *fields, "timestamp", T0, "attemptsMade", 2)
    client.call("LPUSH", KEYS("wait"), "1")
    (job,) = list_jobs(client, snapshot(client), "waiting").jobs
    assert (job.name, job.attempts_made, job.attempts_max) == ("__default__", 2, 1)


def test_what_is_read_does_not_grow_with_the_queue(fake: Client) -> None:
    for number in range(300):
        add(fake, str(number), "wait")
    before = snapshot(fake)
    spy = Spy(fake)
    assert len(list_jobs(spy, before, "waiting", limit=10).jobs) == 10
    assert spy.count("HGETALL") == 10


def test_filters_stream_until_enough_jobs_match(client: Client) -> None:
    for number in range(1000):
        add(client, str(number), "wait", name="even" if number % 2 == 0 else "odd")
    before = snapshot(client)
    spy = Spy(client)
    listed = list_jobs(spy, before, "waiting", Filter(name="odd"), limit=5)
    assert [job.id for job in listed.jobs] == ["1", "3", "5", "7", "9"]
    assert listed.total == 1000
    assert spy.count("HGETALL") == 200
    found = list_jobs(client, before, "waiting", Filter(where=lambda job: job.id == "999"))
    assert [job.id for job in found.jobs] == ["999"]
    assert list_jobs(client, before, "waiting", Filter(name="none")).jobs == ()


@pytest.mark.parametrize("count", [199, 200, 201, 400, 401])
def test_windows_lose_nothing_at_their_edges(client: Client, count: int) -> None:
    for number in range(count):
        client.call("LPUSH", KEYS("wait"), number)
        client.call("ZADD", KEYS("failed"), number, number)
    client.call("HSET", KEYS("meta"), "version", "bullmq:5.0.0")
    expected = [str(number) for number in range(count)]
    assert ids(client, "waiting", limit=10_000) == expected
    assert ids(client, "failed", limit=10_000) == expected[::-1]
    assert ids(client, "failed", limit=10_000, where=lambda _: True) == expected[::-1]


def test_a_job_that_moves_meanwhile_is_shown_once(fake: Client) -> None:
    for number in range(400):
        add(fake, str(number), "failed", T0 + number)
    before = snapshot(fake)
    spy = Spy(fake)
    # Between two windows: 50 newer ones push the others down.
    spy.before[1 + 3 * 200] = lambda: [
        add(fake, f"new{number}", "failed", T0 + 1000 + number) for number in range(50)
    ]
    listed = list_jobs(spy, before, "failed", limit=400)
    found = [job.id for job in listed.jobs]
    assert len(found) == len(set(found)) == 400


def test_since_looks_at_the_end_of_finished_jobs_and_stops_there(fake: Client) -> None:
    for number in range(600):
        finished = T0 + number * 1000
        add(fake, str(number), "failed", finished, finishedOn=finished)
    before = snapshot(fake)
    spy = Spy(fake)
    since = datetime.fromtimestamp((T0 + 597_000) / 1000, UTC)
    assert [j.id for j in list_jobs(spy, before, "failed", Filter(since=since)).jobs] == [
        "599",
        "598",
        "597",
    ]
    assert spy.count("HGETALL") == 3


def test_since_goes_on_behind_a_job_without_a_time(client: Client) -> None:
    for number in range(300):
        finished = T0 + number * 1000
        times = {} if number in (299, 250) else {"finishedOn": finished}
        add(client, str(number), "failed", finished, **times)
    since = datetime.fromtimestamp((T0 + 20_000) / 1000, UTC)
    expected = [str(number) for number in range(298, 19, -1) if number != 250]
    assert ids(client, "failed", since=since, limit=1000) == expected


@pytest.mark.parametrize("state", ["waiting", "failed", "delayed", "active"])
def test_named_jobs_are_looked_up_and_no_others(client: Client, state: str) -> None:
    where = {"waiting": "wait"}.get(state, state)
    for number in range(300):
        add(client, str(number), where, *([T0 + number] if state == where != "active" else []))
    add(client, "elsewhere", "completed", T0)
    before = snapshot(client)
    spy = Spy(client)
    named = Filter(ids=frozenset({"7", "299", "elsewhere", "never"}))
    found = {job.id for job in stream_jobs(spy, before.keys, state, named)}
    assert found == {"7", "299"}
    # Those in ``active`` are few, and each is looked at for its lock.
    assert spy.count("HGETALL") == (300 if state == "active" else 2)
    assert ids(client, state, ids=frozenset({"7", "8"}), name="none") == []


def test_named_finished_jobs_come_newest_first(client: Client) -> None:
    for number in range(20):
        add(client, str(number), "failed", T0 + number)
    named = frozenset({"3", "12", "7"})
    assert ids(client, "failed", ids=named) == ["12", "7", "3"]
    assert ids(client, "failed", ids=named, limit=1) == ["12"]


def test_since_looks_at_when_other_jobs_were_added(client: Client) -> None:
    add(client, "old", "wait")
    add(client, "new", "wait", timestamp=T0 + 5000)
    add(client, "retried", "wait")
    since = datetime.fromtimestamp((T0 + 1) / 1000, UTC)
    assert ids(client, "waiting", since=since) == ["new"]


def test_hostile_records_do_no_harm(client: Client) -> None:
    add(client, "1", "wait", data="no json {", opts="[1]", timestamp="soon", name="\x1b[2J[red]")
    add(client, "2", "wait", data=json.dumps("x" * 5_000_000), timestamp="9" * 30)
    add(client, "3", "delayed", score=T0 * 4096, data="[" * 5000)
    client.call("ZADD", KEYS("delayed"), "inf", "4")
    client.call("HSET", KEYS("5"), b"name", b"\xff\xfe", b"timestamp", b"1")
    client.call("LPUSH", KEYS("wait"), "5")
    one, two, five = list_jobs(client, snapshot(client), "waiting").jobs
    assert (one.data, one.opts, one.added_at) == ("no json {", {}, None)
    assert len(two.data) == 5_000_000
    assert two.added_at is None
    assert five.name == "\udcff\udcfe"
    three, four = list_jobs(client, snapshot(client), "delayed").jobs
    assert three.data == "[" * 5000
    assert (four.missing, four.due_at) == (True, None)


def test_a_key_of_the_wrong_type_is_an_error(client: Client) -> None:
    add(client, "1", "wait")
    before = snapshot(client)
    client.call("DEL", KEYS("wait"))
    client.call("SET", KEYS("wait"), "x")
    with pytest.raises(ReplyError):
        list_jobs(client, before, "waiting")


# One job in full


@pytest.mark.parametrize(
    ("place", "score", "state"),
    [
        ("wait", None, "waiting"),
        ("paused", None, "waiting"),
        ("active", None, "stalled"),
        ("delayed", T0 * 4096, "delayed"),
        ("prioritized", 5, "prioritized"),
        ("waiting-children", T0, "waiting-children"),
        ("completed", T0, "completed"),
        ("failed", T0, "failed"),
    ],
)
def test_show_finds_the_state(client: Client, place: str, score: int | None, state: str) -> None:
    add(client, "1", place, score)
    job = show_job(client, KEYS, "1")
    assert (job.state, job.queue, job.id) == (state, "q", "1")
    assert (job.due_at is None) == (state != "delayed")


def test_show_has_everything(client: Client) -> None:
    add(
        client,
        "1",
        "active",
        returnvalue='{"ok":true}',
        stacktrace='["one","two"]',
        parentKey="bull:flows:a:b",
        defa="too often",
        deid="d1",
        rjk="daily",
        delay=10,
    )
    lock(client, "1", "token:3")
    client.call("SADD", KEYS("1:dependencies"), "bull:c:1", "bull:c:2")
    client.call("HSET", KEYS("1:processed"), "bull:c:3", "1")
    client.call("HSET", KEYS("1:failed"), "bull:c:4", "no")
    client.call("ZADD", KEYS("1:unsuccessful"), 1, "bull:c:5")
    client.call("RPUSH", KEYS.logs("1"), "a", "b")
    job = show_job(client, KEYS, "1")
    assert (job.returnvalue, job.stacktrace) == ({"ok": True}, ("one", "two"))
    assert job.parent is not None
    assert (job.parent.queue, job.parent.id) == ("flows", "a:b")
    assert job.children is not None
    assert (job.children.pending, job.children.processed) == (2, 1)
    assert (job.children.ignored, job.children.failed) == (1, 1)
    assert (job.deferred_failure, job.deduplication_id) == ("too often", "d1")
    assert (job.scheduler, job.delay_ms, job.log_rows) == ("daily", 10, 2)
    assert (job.lock_token, job.state) == ("token:3", "active")
    assert job.lock_ttl_ms


def test_show_takes_two_round_trips_and_writes_nothing(fake: Client) -> None:
    add(fake, "1", "wait")
    spy = Spy(fake)
    trips = []
    spy.pipeline = lambda commands: (trips.append(commands), fake.pipeline(commands))[1]  # type: ignore[method-assign]
    show_job(spy, KEYS, "1")
    assert len([commands for commands in trips if commands]) == 2
    assert not spy.sent


def test_show_reads_a_parent_with_another_prefix(fake: Client) -> None:
    add(fake, "1", "wait", parentKey="other:flows:9")
    job = show_job(fake, KEYS, "1")
    assert job.parent is not None
    assert (job.parent.key, job.parent.queue) == ("other:flows:9", None)


@pytest.mark.parametrize("job_id", ["99", "wait", "meta", "id", "events", "repeat:daily", ""])
def test_an_unknown_id_is_not_found(client: Client, job_id: str) -> None:
    add(client, "1", "wait")
    client.call("SET", KEYS("id"), 1)
    client.call("HSET", KEYS.scheduler("daily"), "name", "x", "ic", 1, "data", "{}", "opts", "{}")
    with pytest.raises(NotFoundError) as caught:
        show_job(client, KEYS, job_id)
    assert "jobs list q" in caught.value.hint


def test_an_id_without_a_record_is_told_apart(client: Client) -> None:
    add(client, "1", "active")
    client.call("DEL", KEYS("1"))
    with pytest.raises(NotFoundError, match="no record") as caught:
        show_job(client, KEYS, "1")
    assert "active" in caught.value.why


def test_show_works_without_lpos(fake: Client) -> None:
    add(fake, "1", "wait")
    spy = Spy(fake)

    def pipeline(commands: Sequence[Sequence[Arg]]) -> list[Any]:
        error = ReplyError("ERR unknown command 'LPOS'")
        replies = fake.pipeline(commands)
        return [error if c[0] == "LPOS" else r for c, r in zip(commands, replies, strict=True)]

    spy.pipeline = pipeline  # type: ignore[method-assign]
    assert show_job(spy, KEYS, "1").state == "waiting"


# Logs


def test_logs_are_pages(client: Client) -> None:
    add(client, "1", "wait")
    client.call("RPUSH", KEYS.logs("1"), *"abcde")
    page = read_logs(client, KEYS, "1")
    assert (page.queue, page.id, page.total, page.logs) == ("q", "1", 5, tuple("abcde"))
    assert read_logs(client, KEYS, "1", start=1, limit=2).logs == ("b", "c")
    assert read_logs(client, KEYS, "1", start=-2).logs == ("d", "e")
    assert read_logs(client, KEYS, "1", limit=0).logs == ()
    with pytest.raises(NotFoundError):
        read_logs(client, KEYS, "2")


def test_logs_of_a_removed_job_are_still_shown(client: Client) -> None:
    add(client, "1", "wait")
    client.call("RPUSH", KEYS.logs("1"), "a")
    client.call("DEL", KEYS("1"))
    assert read_logs(client, KEYS, "1").logs == ("a",)


def follow(
    client: Client, *steps: Any, start: int = 0, say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """What a follower prints while each step happens between two looks; then the job ends."""
    todo = list(steps)

    def sleep(_: float) -> None:
        if todo:
            todo.pop(0)()
        if not todo:
            client.call("ZADD", KEYS("completed"), T0, "1")

    return list(follow_logs(client, KEYS, "1", start=start, sleep=sleep, say=say))


def test_a_stream_reads_as_far_as_it_is_read(fake: Client) -> None:
    for number in range(CHUNK * 2 + 10):
        add(fake, str(number), "failed", T0 + number, finishedOn=T0 + number)
    spy = Spy(fake)
    stream = stream_jobs(spy, KEYS, "failed", limit=10**9)
    assert next(stream).id == str(CHUNK * 2 + 9)
    assert spy.count("ZREVRANGE") == 1
    assert spy.count("HGETALL") == CHUNK
    assert [job.id for job in stream] == [str(n) for n in reversed(range(CHUNK * 2 + 9))]


def test_a_long_log_is_read_in_parts(client: Client) -> None:
    add(client, "1", "wait")
    client.call("RPUSH", KEYS.logs("1"), *map(str, range(2500)))
    spy = Spy(client)
    assert read_logs(spy, KEYS, "1").logs == tuple(map(str, range(2500)))
    assert read_logs(spy, KEYS, "1", start=-1200, limit=1100).logs == (
        tuple(map(str, range(1300, 2400)))
    )
    reads = [command for command in spy.sent if command[0] == "LRANGE"]
    assert all(int(command[3]) - int(command[2]) < 1000 for command in reads)


def test_a_redis_that_restarts_is_sat_out(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--appendonly", "yes", "--appendfsync", "always")
    said: list[str] = []
    todo = iter(["away", "back", "end"])

    def sleep(_: float) -> None:
        match next(todo, None):
            case "away":
                server.stop()
            case "back":
                server.start()
                client.call("RPUSH", KEYS.logs("1"), "b")
            case "end":
                client.call("ZADD", KEYS("completed"), T0, "1")

    with contextlib.closing(connect(server.url)[1]) as client:
        add(client, "1", "active")
        client.call("RPUSH", KEYS.logs("1"), "a")
        assert [*follow_logs(client, KEYS, "1", sleep=sleep, say=said.append)] == ["a", "b"]
    assert ["trying again" in text for text in said] == [True, False]
    assert said[1] == "Redis is back"


def test_follow_prints_each_row_once_until_the_job_ends(client: Client) -> None:
    add(client, "1", "active")
    log = KEYS.logs("1")
    client.call("RPUSH", log, "a", "b")
    assert follow(
        client,
        lambda: client.call("RPUSH", log, "b", "b"),
        lambda: None,
        lambda: client.call("RPUSH", log, "c"),
    ) == ["a", "b", "b", "b", "c"]


def test_follow_survives_a_log_that_keeps_only_its_end(client: Client) -> None:
    add(client, "1", "active")
    log = KEYS.logs("1")

    def write(*rows: str) -> None:
        client.call("RPUSH", log, *rows)
        client.call("LTRIM", log, -3, -1)

    write("a", "b")
    assert follow(
        client,
        lambda: write("c", "d"),
        lambda: write("e"),
        lambda: client.call("DEL", log),
        lambda: write("f"),
    ) == ["a", "b", "c", "d", "e", "f"]


def test_follow_says_where_rows_may_be_missing(client: Client) -> None:
    add(client, "1", "active")
    log = KEYS.logs("1")
    said: list[str] = []

    def write(*rows: str) -> None:
        client.call("RPUSH", log, *rows)
        client.call("LTRIM", log, -3, -1)

    write("a", "b")
    shown = follow(client, lambda: write("c"), lambda: write("d", "e", "f", "g"), say=said.append)
    assert shown == ["a", "b", "c", "e", "f", "g"]
    assert [text.partition(":")[0] for text in said] == ["rows may be missing here"]


def test_follow_starts_with_an_empty_log_or_beyond_its_end(client: Client) -> None:
    add(client, "1", "active")
    log = KEYS.logs("1")
    assert follow(client, lambda: client.call("RPUSH", log, "a"), lambda: None) == ["a"]
    client.call("ZREM", KEYS("completed"), "1")
    assert follow(client, lambda: client.call("RPUSH", log, "b"), start=1) == ["b"]
    assert list(follow_logs(client, KEYS, "1")) == ["a", "b"]
