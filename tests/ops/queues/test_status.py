"""The state of queues: what is read, with how much, and what is said about it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.config.prefixes import only
from qctl.config.settings import Settings
from qctl.connection.address import Address, Arg, Client
from qctl.connection.connect import connect
from qctl.errors import FailedError, NotFoundError, PartialError, ReplyError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.metrics.reading import QueueLabels, read_metrics
from qctl.ops.processes import attribution
from qctl.ops.processes.suggest import quoted
from qctl.ops.queues import status as inspect
from qctl.ops.queues.find import all_queues, find_queues
from qctl.ops.queues.status import Inspection, QueueStatus, inspect_queues
from qctl.ops.queues.workers import inspect_workers
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import this_process
from qctl.wire.read.clients import WorkerClient, client_name, list_workers
from qctl.wire.write.pausing import pause
from tests.labs.clients import Counting, leave
from tests.labs.jobs import make_queue
from tests.labs.servers import RedisServer

SETTINGS = Settings(pm2_home=Path("/nonexistent"))
ADDRESS = Address()


def look(client: Client, *names: str, settings: Settings = SETTINGS) -> Inspection:
    return inspect_queues(client, ADDRESS, settings, names)


def one(client: Client, name: str = "q") -> QueueStatus:
    return look(client, name).report.queues[0]


def remarks(client: Client) -> list[tuple[str, tuple[str, ...]]]:
    return [(note.text, note.commands) for note in one(client).notes]


# Round trips


@pytest.mark.parametrize("number", [1, 30])
def test_round_trips_do_not_grow_with_the_queues(fake: Client, number: int) -> None:
    for index in range(number):
        make_queue(fake, f"q{index}", waiting=1, active=1)
    counting = Counting(fake)
    assert len(look(counting).report.queues) == number
    assert counting.trips == ["SCAN", "pipeline", "pipeline"]


def test_named_queues_are_read_without_a_scan(fake: Client) -> None:
    make_queue(fake, "q", waiting=1)
    counting = Counting(fake)
    look(counting, "q")
    assert counting.trips == ["pipeline", "pipeline"]


# What the user may not see


def test_a_user_who_may_only_read_sees_everything_but_the_workers(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    admin = connect(server.url)[1]
    admin.call("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read")
    make_queue(admin, "q", waiting=2, stalled=1)
    address, client = connect(server.url_for("reader", "pw"))
    report = inspect_queues(client, address, SETTINGS).report
    assert (report.redis.version, report.redis.mode) == (None, None)
    assert "pw" not in report.redis.url
    assert report.queues[0].workers is None
    assert report.queues[0].counts.waiting == 2
    assert "no worker" not in " ".join(note.text for note in report.queues[0].notes)
    with pytest.raises(FailedError, match="may not list clients") as caught:
        inspect_workers(client, address, SETTINGS)
    assert "client|list" in caught.value.hint
    client.close()
    admin.close()


class Answering(Counting):
    """A client of a server that answers some commands, by their first two words, its own way."""

    def __init__(self, client: Client, answers: dict[tuple[Arg, Arg], Any]) -> None:
        super().__init__(client)
        self._answers = answers

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:  # noqa: ARG002
        (reply,) = self.pipeline([command])
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        replies = super().pipeline(commands)
        return [
            self._answers.get((command[0], command[1]) if len(command) > 1 else ("", ""), reply)
            for command, reply in zip(commands, replies, strict=True)
        ]


@pytest.mark.parametrize(
    "words",
    [
        "ERR syntax error",
        "ERR Unsupported CLIENT subcommand",
        "ERR unknown command 'CLIENT'",
        "NOPERM User reader has no permissions to run the 'client|list' command",
    ],
)
def test_a_server_that_does_not_list_its_clients_has_unknown_workers(
    client: Client, words: str
) -> None:
    make_queue(client, "q", waiting=2, stalled=1)
    answering = Answering(client, {("CLIENT", "LIST"): ReplyError(words)})
    status = look(answering, "q").report.queues[0]
    assert (status.workers, status.counts.waiting) == (None, 2)
    assert "no worker" not in " ".join(note.text for note in status.notes)
    assert list_workers(answering, "bull", ["q"]) is None
    assert read_metrics(answering, ADDRESS, SETTINGS, QueueLabels(100)).queues[0].workers is None
    with pytest.raises(FailedError, match="may not list clients"):
        inspect_workers(answering, ADDRESS, SETTINGS)


def test_a_server_that_is_away_is_not_one_that_does_not_list(client: Client) -> None:
    make_queue(client, "q", waiting=2)
    away = Answering(client, {("CLIENT", "LIST"): ReplyError("LOADING Redis is loading")})
    with pytest.raises(ReplyError, match="loading"):
        look(away, "q")
    with pytest.raises(ReplyError, match="loading"):
        list_workers(away, "bull", ["q"])


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        # As these servers answer INFO; only Redis itself runs here.
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n", "Valkey 8.1.1"),
        ("redis_version:7.4.0\r\ndragonfly_version:df-v1.25.0\r\n", "Dragonfly 1.25.0"),
        ("redis_version:7.0.15\r\n", "Redis 7.0.15"),
        ("redis_version:6.2\r\nserver_name:other\r\n", "Other 6.2"),
        ("", "Redis ?"),
    ],
)
def test_a_server_has_its_own_name_and_version(client: Client, info: str, shown: str) -> None:
    make_queue(client, "q", waiting=1)
    answering = Answering(client, {("INFO", "server"): f"# Server\r\n{info}"})
    redis = look(answering, "q").report.redis
    assert redis.product == shown
    assert (redis.version or "") in info


# Notes


def test_a_healthy_queue_has_no_notes(client: Client, redis_url: str) -> None:
    make_queue(client, "q", active=1)
    client.call("PEXPIRE", "bull:q:active-0:lock", 30_000)
    with contextlib.closing(connect(redis_url)[1]) as worker:
        worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
        assert one(client).notes == ()


def test_locks_of_a_worker_that_is_gone_and_when_they_run_out(client: Client) -> None:
    make_queue(client, "q", active=2)
    for job_id, ttl_ms in (("active-0", 400_000), ("active-1", 600_000)):
        client.call("PEXPIRE", f"bull:q:{job_id}:lock", ttl_ms)
    ((text, commands),) = remarks(client)
    assert text == (
        "2 active jobs have a lock, and Redis lists no worker: they stall within 10 min, unless "
        "the worker is closing or comes back"
    )
    assert commands == ("qctl jobs retry-stalled q --wait",)
    client.call("PERSIST", "bull:q:active-1:lock")
    ((text, _),) = remarks(client)
    assert "a lock never expires" in text


def test_a_worker_that_is_gone_while_others_are_connected(client: Client, redis_url: str) -> None:
    make_queue(client, "q", active=3)
    for number, worker in enumerate(("gone", "gone", "here")):
        client.call("HSET", f"bull:q:active-{number}", "pb", worker)
        client.call("PEXPIRE", f"bull:q:active-{number}:lock", 300_000 * (number + 1))
    with contextlib.closing(connect(redis_url)[1]) as here:
        here.call("CLIENT", "SETNAME", client_name("bull", "q", "here"))
        counting = Counting(client)
        (queue,) = look(counting, "q").report.queues
        ((text, commands),) = [(note.text, note.commands) for note in queue.notes]
        assert counting.trips == ["pipeline", "pipeline"]
        assert text.startswith("2 of 3 active jobs belong to a worker that is not connected: ")
        assert "they stall within 10 min, unless" in text
        assert commands == ("qctl jobs retry-stalled q --wait",)
        # One without a name may be the worker that has them.
        with contextlib.closing(connect(redis_url)[1]) as unnamed:
            unnamed.call("CLIENT", "SETNAME", client_name("bull", "q"))
            assert one(client).notes == ()


def test_a_worker_that_is_never_listed_is_not_gone(client: Client, redis_url: str) -> None:
    make_queue(client, "q", active=1)
    client.call("HSET", "bull:q:active-0", "pb", "a name with spaces")
    with contextlib.closing(connect(redis_url)[1]) as here:
        here.call("CLIENT", "SETNAME", client_name("bull", "q", "here"))
        assert one(client).notes == ()


def test_stalled_jobs_are_told_with_and_without_workers(client: Client, redis_url: str) -> None:
    make_queue(client, "q", stalled=2)
    commands = ("qctl jobs list q --state stalled", "qctl jobs retry-stalled q")
    assert remarks(client) == [("2 jobs have stalled, and no worker is there to notice", commands)]
    worker = connect(redis_url)[1]
    worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
    # Those that skip the stalled check never notice.
    ((text, shown),) = remarks(client)
    assert text.startswith("2 jobs have stalled, and it is unknown whether a worker notices: no ")
    assert shown == commands
    for interval_ms, words in ((30_000, "30 s"), (600_000, "10 min")):
        client.call("SET", "bull:q:stalled-check", round(time.time() * 1000), "PX", interval_ms)
        assert remarks(client) == [
            (
                f"2 jobs have stalled; workers check for stalls every {words}, and the second "
                "check puts them back",
                commands,
            )
        ]
    worker.close()


def test_waiting_jobs_without_a_worker(client: Client) -> None:
    make_queue(client, "q", waiting=1)
    assert remarks(client) == [("1 job waits, and no worker is connected", ())]


def test_a_worker_that_may_be_unlisted_is_not_called_absent(client: Client) -> None:
    make_queue(client, "q", waiting=1, active=1)
    told = [text for text, _ in remarks(client)]
    assert "1 job waits, and Redis lists no worker" in told
    assert not any("no worker is connected" in text for text in told)


def test_delayed_jobs_that_are_due_and_that_nobody_comes_for(client: Client) -> None:
    make_queue(client, "q")
    now_ms = int(time.time() * 1000)
    for job_id, ms in (("1", now_ms - 60_000), ("2", now_ms - 1000), ("3", now_ms + 60_000)):
        client.call("ZADD", "bull:q:delayed", ms * 4096, job_id)
    assert one(client).overdue == 1
    assert remarks(client) == [("1 job is delayed and overdue, and no worker is connected", ())]
    make_queue(client, "q", waiting=2)
    assert remarks(client)[0][0].startswith("2 jobs wait, 1 job is delayed and overdue, and no ")


def test_jobs_that_nobody_reads(client: Client) -> None:
    make_queue(client, "q", legacy_paused=3)
    status = one(client)
    assert (status.counts.waiting, status.legacy_paused) == (3, 3)
    text, commands = remarks(client)[0]
    assert "3 jobs are in BullMQ 5's list of paused jobs" in text
    assert commands == ("qctl resume q",)
    client.call("HSET", "bull:q:meta", "paused", "1")
    assert not any("BullMQ 5's list" in text for text, _ in remarks(client))


@pytest.mark.parametrize(
    ("verb", "text"),
    [("pause", "paused by {}"), ("drain", "left paused by {}, which no longer runs")],
)
def test_who_paused_it(client: Client, verb: str, text: str) -> None:
    make_queue(client, "q")
    client.call("HSET", "bull:q:meta", "paused", "1")
    text_of_unknown = "paused, and not through qctl, since an unknown time"
    assert remarks(client) == [(text_of_unknown, ("qctl resume q",))]
    assert (one(client).paused_by, one(client).paused_at) == (None, None)
    holder = this_process(verb)
    client.call("HDEL", "bull:q:meta", "paused")
    pause(client, QueueKeys("bull", "q"), holder)
    status = one(client)
    assert status.paused_by == str(holder)
    assert status.paused_at is not None
    assert abs(status.paused_at.timestamp() * 1000 - holder.at_ms) < 1
    since = f", since {status.paused_at:%Y-%m-%d %H:%M:%S} UTC"
    assert remarks(client) == [(text.format(holder) + since, ("qctl resume q",))]
    assert status.severity is None
    put_waiting = ("RPUSH", "bull:q:wait", "1")
    client.call(*put_waiting)
    assert remarks(client)[0][0] == text.format(holder) + since + "; 1 job waits"


def test_since_when_a_queue_is_paused_by_its_events(client: Client) -> None:
    make_queue(client, "q")
    client.call("DEL", "bull:q:events")
    client.call("HSET", "bull:q:meta", "paused", "1")
    seconds = 1_700_000_000
    for name in ("paused", "resumed", "paused", "added", "paused"):
        seconds += 60
        client.call("XADD", "bull:q:events", f"{seconds}000-0", "event", name)
    # The first pause since the last resume.
    assert one(client).paused_at == datetime(2023, 11, 14, 22, 16, 20, tzinfo=UTC)
    # More events than are searched have followed.
    for number in range(600):
        client.call("XADD", "bull:q:events", "*", "event", "added", "jobId", number)
    assert one(client).paused_at is None
    assert "since an unknown time" in remarks(client)[0][0]


def test_a_drain_at_work_is_not_an_abandoned_one(client: Client) -> None:
    make_queue(client, "q")
    client.call("HSET", "bull:q:meta", "paused", "1")
    holder = this_process("drain")
    for key in ("paused", "lease"):
        client.call("SET", f"qctl:{key}:bull:q", holder.to_json())
    assert one(client).draining
    assert remarks(client) == [(f"{holder} is at work on it now", ())]


def test_a_note_left_from_an_earlier_pause_is_not_shown(client: Client) -> None:
    make_queue(client, "q")
    client.call("SET", "qctl:paused:bull:q", this_process("drain").to_json())
    assert (one(client).paused_by, one(client).notes) == (None, ())


def test_a_time_out_of_range_in_a_note_is_no_crash(client: Client) -> None:
    make_queue(client, "q")
    client.call("HSET", "bull:q:meta", "paused", "1")
    note = json.loads(this_process("pause").to_json()) | {"at_ms": 10**30}
    client.call("SET", "qctl:paused:bull:q", json.dumps(note))
    assert one(client).paused_at is None


def test_rate_limits_and_old_formats(client: Client) -> None:
    make_queue(client, "q")
    client.call("SET", "bull:q:limiter", 5, "PX", 60_000)
    assert one(client).rate_limited_s is None
    client.call("HSET", "bull:q:meta", "max", 5)
    assert 50 < (one(client).rate_limited_s or 0) <= 60
    assert remarks(client)[0][0].startswith("rate limited for another ")
    client.call("SET", "bull:old:id", 7)
    client.call("RPUSH", "bull:old:wait", "1")
    status = one(client, "old")
    assert status.format == "bull"
    assert [note.text for note in status.notes] == [
        "a queue of Bull 3 or 4: qctl reads it and never changes it"
    ]


def test_commands_name_a_prefix_that_is_not_the_default(client: Client) -> None:
    make_queue(client, "a b", "my prefix")
    client.call("HSET", "my prefix:a b:meta", "paused", "1")
    settings = Settings(pm2_home=Path("/nonexistent")).under("my prefix")
    (note,) = look(client, settings=settings).report.queues[0].notes
    assert note.commands == ("qctl resume 'a b' --prefix 'my prefix'",)


# Processes


PROCESS = ManagedProcess(
    *("pm2:w", "0", "w", "default", "online", 4711, 1_000, 3, "fork", "SIGINT", 1600, 3000),
    *(12.5, 1024),
)


def test_processes_are_joined_with_the_workers_they_hold(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(
        _client: Client,
        workers: Sequence[WorkerClient],
        processes: Sequence[ManagedProcess],
    ) -> dict[int, ManagedProcess]:
        return {worker.id: processes[0] for worker in workers}

    monkeypatch.setattr(inspect, "managed_processes", lambda *_: ([PROCESS], ()))
    monkeypatch.setattr(attribution, "holders", mine)
    make_queue(client, "q")
    assert look(client).report.processes[0].queues == ()
    worker = connect(redis_url)[1]
    worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
    (process,) = look(client).report.processes
    worker.close()
    assert (process.target, process.key, process.pid) == ("pm2:w", "0", 4711)
    assert (process.restarts, process.cpu_percent, process.rss_bytes) == (3, 12.5, 1024)
    assert process.queues == ("q",)
    assert process.uptime_s is not None
    assert process.uptime_s > 1e9


def test_queues_of_another_prefix_are_shown_with_it(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "managed_processes", lambda *_: ([PROCESS], ()))
    monkeypatch.setattr(
        attribution, "holders", lambda _, workers, found: {w.id: found[0] for w in workers}
    )
    make_queue(client, "q")
    make_queue(client, "q", "other")
    worker = connect(redis_url)[1]
    worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
    (process,) = look(client, "q@other", "q").report.processes
    # Only the processes of the queues that are shown.
    assert look(client, "q@other").report.processes == ()
    leave(worker)
    assert process.queues == ("q",)
    # Without workers, any process that serves no known queue may be the one.
    assert len(look(client, "q@other").report.processes) == 1


def test_trouble_with_attribution_is_a_remark(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> Any:
        raise PermissionError("not yours")

    monkeypatch.setattr(inspect, "managed_processes", lambda *_: ([PROCESS], ()))
    monkeypatch.setattr(attribution, "holders", denied)
    make_queue(client, "q")
    worker = connect(redis_url)[1]
    worker.call("CLIENT", "SETNAME", client_name("bull", "q"))
    inspection = look(client)
    worker.close()
    assert inspection.report.processes[0].queues == ()
    assert "not yours" in inspection.remarks[0]


# Lookup


def test_lookup_names_the_nearest(client: Client) -> None:
    for name in ("email", "emails", "video"):
        make_queue(client, name)
    with pytest.raises(NotFoundError) as caught:
        find_queues(client, "bull", ["video", "emial"])
    assert "'emial'" in caught.value.what
    assert "'video'" not in caught.value.what
    assert "'email'" in caught.value.why
    assert caught.value.hint == "qctl status email"
    with pytest.raises(NotFoundError) as caught:
        find_queues(client, "bull", ["xyzzy", "q2"])
    assert "'xyzzy', 'q2'" in caught.value.what
    assert caught.value.hint == "qctl queues"


def test_lookup_names_prefixes_in_use(client: Client) -> None:
    make_queue(client, "q", "other prefix")
    with pytest.raises(NotFoundError) as caught:
        all_queues(client, only("bull"))
    assert "'other prefix'" in caught.value.why
    assert caught.value.hint == "qctl queues --prefix 'other prefix'"
    # The nearest prefix is the one that is spelled most like the chosen one, and has the queue.
    for prefix in ("a", "bul", "bulls"):
        make_queue(client, "r", prefix)
    make_queue(client, "q", "bull*")
    with pytest.raises(NotFoundError) as caught:
        find_queues(client, "bull", ["q"])
    assert "under the prefix 'bull'" in caught.value.what
    assert caught.value.why == "'q' exists under the prefixes 'bull*', 'other prefix'"
    assert caught.value.hint == "qctl status q --prefix 'bull\\*'"


def test_a_broken_queue_among_all_is_collected_and_a_named_one_raised(client: Client) -> None:
    make_queue(client, "good")
    client.call("SET", "bull:bad:meta", "text")
    queues = all_queues(client, only("bull"))
    assert [queue.keys.name for queue in queues.readable] == ["good"]
    with pytest.raises(PartialError, match="1 of 2 queues") as caught:
        queues.raise_if_broken()
    assert "'bad': WRONGTYPE" in caught.value.why
    with pytest.raises(ReplyError, match="bull:bad:meta"):
        find_queues(client, "bull", ["good", "bad"])
    all_queues_without_it = find_queues(client, "bull", ["good", "good"])
    assert len(all_queues_without_it) == 1


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20))
def test_a_quoted_word_is_printable(word: str) -> None:
    assert quoted(word).isprintable()
    if word.isprintable():
        assert shlex.split(quoted(word)) == [word]


@pytest.mark.parametrize(
    "word", ["plain", "a b", "it's", "a\nb", "\x1b[31m'\\", "\u202eä\x07", "\udcff", "$(x)`y`"]
)
def test_bash_reads_a_quoted_word_back(word: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(word)}"],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    assert done.stdout == word.encode("utf-8", "surrogateescape")


def test_what_was_not_looked_through_is_not_called_empty(
    fake: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.pipeline([("SET", f"other:{number}", "x") for number in range(5000)])
    monkeypatch.setattr("qctl.ops.queues.missing._MAX_SEARCH_S", -1.0)
    with pytest.raises(NotFoundError) as caught:
        find_queues(fake, "bull", ["q"])
    said = f"{caught.value.what} {caught.value.why}"
    assert said == "no queue is called 'q' under the prefix 'bull'"
    assert caught.value.hint == "qctl queues"
    with pytest.raises(NotFoundError) as caught:
        all_queues(fake, only("bull"))
    assert "no BullMQ queue at all" not in caught.value.why
