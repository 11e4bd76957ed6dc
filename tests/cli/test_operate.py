"""``jobs add``, ``events``, ``wait`` and ``schedules``, through the whole program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.wire.schedulers.scheduling import Schedule as Rule
from tests.labs.build import Q, job, put
from tests.labs.cli import Ran, run
from tests.labs.schedules import MD5_KEY, at, legacy, make, now_ms
from tests.labs.servers import wait_until

EVIL = "\x1b[2J[red]\u202eevil\n"
LONG = "a-rather-long-scheduler-id-of-some-team-" * 2


def qctl(redis_url: str, *arguments: str, **options: Any) -> Ran:
    return run(*arguments, QCTL_REDIS_URL=redis_url, **options)


def emit(client: Client, event: str, **fields: object) -> None:
    words = [str(word) for pair in fields.items() for word in pair]
    client.call("XADD", Q("events"), "*", "event", event, *words)


# jobs add


def test_add_prints_the_id_alone_on_stdout(redis_url: str, client: Client) -> None:
    put(client, "1")
    ran = qctl(
        redis_url, "jobs", "add", "q", "welcome", "--data", '{"to": "ä"}', "--delay", "60s",
        "--priority", "5", "--attempts", "3", "--backoff", "exponential:60s", "--id", "w-1",
        "--remove-on-complete", "100,24h", "--remove-on-fail", "false", "--dedup", "user:7:5s",
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "w-1\n")
    assert ran.err.startswith("welcome was added to queue q: delayed until 20")
    stored = job(client, "w-1")
    assert json.loads(stored["data"]) == {"to": "ä"}
    assert json.loads(stored["opts"]) == {
        "attempts": 3, "delay": 60_000, "priority": 5, "jobId": "w-1",
        "backoff": {"type": "exponential", "delay": 60_000},
        "removeOnComplete": {"count": 100, "age": 86_400}, "removeOnFail": False,
        "de": {"id": "user:7", "ttl": 5000},
    }  # fmt: skip
    again = qctl(redis_url, "jobs", "add", "q", "welcome", "--id", "w-1")
    assert (again.code, again.out) == (0, "w-1\n")
    assert again.err.startswith("nothing was added: job w-1 exists in q (delayed until")
    dry = qctl(redis_url, "jobs", "add", "q", "welcome", "--lifo", "--dry-run")
    assert (dry.code, dry.out) == (0, "(a new number) (dry run)\n")
    assert dry.err.splitlines()[0] == "welcome would be added to queue q: waiting (dry run)"
    told = json.loads(qctl(redis_url, "jobs", "add", "q", EVIL, "--json").out)
    assert (told["name"], told["outcome"], told["dry_run"]) == (EVIL, "added", False)
    assert list(told) == [
        *("queue", "id", "name", "outcome", "state", "due_at", "created_queue", "remarks"),
        "dry_run",
    ]


def test_data_from_a_file_and_from_stdin(redis_url: str, client: Client, tmp_path: Path) -> None:
    put(client, "1")
    file = tmp_path / "data.json"
    file.write_text("[1, 2]")
    first = qctl(redis_url, "jobs", "add", "q", "a", "--data", f"@{file}").out.strip()
    second = qctl(redis_url, "jobs", "add", "q", "a", "--data", "-", stdin='"text"').out.strip()
    assert [job(client, first)["data"], job(client, second)["data"]] == ["[1,2]", '"text"']
    missing = qctl(redis_url, "jobs", "add", "q", "a", "--data", f"@{file}x")
    assert missing.code == 2
    assert "cannot be read" in missing.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["qq", "a"], 3, "--create"),
        (["a:b", "a", "--create"], 2, "colon"),
        (["q", "a", "--data", "{a: 1}"], 2, "--data is not JSON"),
        (["q", "a", "--delay", "soon"], 2, "--delay 'soon' is not a duration"),
        (["q", "a", "--backoff", "60s"], 2, "--backoff exponential:60s"),
        (["q", "a", "--priority", "2097152"], 2, "priority"),
        (["q", "a", "--attempts=-1"], 2, "attempts"),
        (["q", "a", "--id", "12"], 2, "12"),
        (["q", "a", "--id", ""], 2, "--id is empty"),
        (["q", "a", "--data", "null"], 2, "--data is null"),
        (["q", "a", "--remove-on-fail", "maybe"], 2, "--remove-on-fail"),
        (["q", "a", "--dedup", ""], 2, "no id"),
    ],
)
def test_what_cannot_be_added(
    redis_url: str, client: Client, arguments: list[str], code: int, says: str
) -> None:
    put(client, "1")
    before = client.call("DBSIZE")
    ran = qctl(redis_url, "jobs", "add", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err
    assert client.call("DBSIZE") == before


# events


def test_each_event_is_one_line_of_a_terminal(redis_url: str, client: Client) -> None:
    put(client, "1")
    emit(client, "added", jobId="1", name="welcome " * 30)
    emit(client, "delayed", jobId="1", delay=now_ms() + 90_000)
    emit(client, "waiting", jobId="1", prev="delayed")
    emit(client, "active", jobId="1", prev="waiting")
    emit(client, "progress", jobId="1", data='{"pct":30}')
    emit(client, "completed", jobId="1", returnvalue='{"ok":true}', prev="active")
    emit(client, "failed", jobId="0f8fad5b-d9cb-469f-a165-70867728950e", failedReason=EVIL * 50)
    emit(client, "removed", jobId="1", prev="completed")
    emit(client, "deduplicated", jobId="1", deduplicationId="d", deduplicatedJobId="2")
    emit(client, "cleaned", count=3)
    emit(client, EVIL, what=EVIL)
    ran = qctl(redis_url, "events", "q", terminal=True, NO_COLOR="1")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    lines = ran.out.splitlines()
    assert len(lines) == 11
    assert all(len(line) <= 80 for line in lines)
    said = [" ".join(line.split()[1:]) for line in lines]
    assert said[1].startswith("delayed 1 for 1 min 30 s, until ")
    assert said[2:6] == [
        "waiting 1 from delayed", "active 1", 'progress 1 {"pct": 30}',
        'completed 1 returned {"ok": true}',
    ]  # fmt: skip
    assert said[7:10] == ["removed 1 from completed", "deduplicated 1 in place of 2 (id d)",
                          "cleaned 3 jobs"]  # fmt: skip
    coloured = qctl(redis_url, "events", "q", "--event", "failed", terminal=True)
    assert "\x1b[31mfailed " in coloured.out


def test_events_as_json(redis_url: str, client: Client) -> None:
    put(client, "1")
    for number in range(60):
        emit(client, "completed", jobId=number, returnvalue="1")
    page = json.loads(qctl(redis_url, "events", "q", "--json").out)
    assert (page["queue"], page["total"], page["more"], len(page["events"])) == ("q", 60, True, 50)
    last = page["events"][-1]
    assert list(last) == ["id", "queue", "happened_at", "event", "job_id", "fields"]
    assert (last["event"], last["job_id"], last["fields"]) == (
        *("completed", "59"),
        {"returnvalue": 1},
    )
    lines = qctl(redis_url, "events", "q", "--limit", "2", "--output", "ndjson").out.splitlines()
    assert [json.loads(line)["job_id"] for line in lines] == ["58", "59"]
    remark = qctl(redis_url, "events", "q").err
    assert remark == "the last 50 of 60 events; --limit N for more\n"
    one = qctl(redis_url, "events", "q", "--id", "7", "--event", "completed")
    assert (len(one.out.splitlines()), one.err) == (1, "")
    none = qctl(redis_url, "events", "q", "--event", "complete")
    assert none.out == ""
    assert "did you mean completed?" in none.err
    assert "no match among 60 events" in none.err


def test_a_queue_without_a_stream_is_not_an_empty_one(redis_url: str, client: Client) -> None:
    put(client, "1")
    ran = qctl(redis_url, "events", "q")
    assert (ran.code, ran.out) == (0, "")
    assert "has no event stream" in ran.err
    assert json.loads(qctl(redis_url, "events", "q", "--json").out)["total"] is None
    assert qctl(redis_url, "events", "nope").code == 3
    assert qctl(redis_url, "events", "q", "--since", "tomorrow").code == 2
    assert qctl(redis_url, "events", "q", "--follow", "--json").code == 2


def test_follow_leaves_after_a_number_of_events(redis_url: str, client: Client) -> None:
    put(client, "1")
    emit(client, "active", jobId="1")
    emit(client, "failed", jobId="1", failedReason="no")
    arguments = ("events", "q", "--follow", "--since", "1m", "--event", "failed", "--limit", "1")
    ran = qctl(redis_url, *arguments, "--output", "ndjson")
    assert ran.code == 0
    assert json.loads(ran.out)["fields"] == {"failedReason": "no"}


class Command:
    """qctl in a process of its own, for what needs signals."""

    def __init__(self, redis_url: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qctl", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "QCTL_REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def end(self, number: int | None = None) -> Ran:
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return Ran(self.process.returncode, out, err)


def blocked(client: Client) -> bool:
    return "blocked_clients:0" not in client.call("INFO", "clients")


def test_ctrl_c_is_the_way_out_of_following(redis_url: str, client: Client) -> None:
    put(client, "1")
    command = Command(redis_url, "events", "q", "--follow")
    wait_until(lambda: blocked(client), "the read")
    emit(client, "paused")
    assert command.process.stdout is not None
    assert "paused" in command.process.stdout.readline()
    ran = command.end(signal.SIGINT)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


# wait


def test_wait_ends_with_what_it_waited_for(redis_url: str, client: Client) -> None:
    put(client, "1", "completed", returnvalue='{"ok":true}')
    put(client, "2", "failed", failedReason=EVIL)
    idle = qctl(redis_url, "wait", "q", "--for", "idle")
    assert idle.code == 0
    assert idle.out.startswith("queue q is idle after 0.0 s: nothing is active; nothing left")
    done = qctl(redis_url, "wait", "q", "--for", "job=1", "--json")
    report = json.loads(done.out)
    assert list(report) == [
        *("queue", "condition", "outcome", "text", "waited_s", "counts", "returnvalue"),
        "failed_reason",
    ]
    assert (report["outcome"], report["returnvalue"], done.code) == ("completed", {"ok": True}, 0)
    failed = qctl(redis_url, "wait", "q", "--for", "job=2")
    assert (failed.code, failed.out) == (1, "")
    assert "job 2 of queue q failed\n\\x1b[2J[red]\\u202eevil" in failed.err
    assert failed.err.splitlines()[-1] == "try: qctl jobs show q 2"
    as_json = qctl(redis_url, "wait", "q", "--for", "job=2", "--json")
    assert (as_json.code, json.loads(as_json.out)["outcome"]) == (1, "failed")
    gone = qctl(redis_url, "wait", "q", "--for", "job=9", "--output", "ndjson")
    assert (gone.code, json.loads(gone.out)["step"]) == (3, "report")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nope", "--for", "idle"], 3),
        (["q", "--for", "done"], 2),
        (["q", "--for", "job="], 2),
        (["q", "--for", "idle", "--include-delayed"], 2),
        (["q", "--for", "idle", "--timeout", "soon"], 2),
        (["q"], 2),
        (["q", "--for", "empty", "--timeout", "0"], 4),
    ],
)
def test_wait_ends_otherwise(
    redis_url: str, client: Client, arguments: list[str], code: int
) -> None:
    put(client, "1", "wait")
    assert qctl(redis_url, "wait", *arguments).code == code


def test_what_is_in_the_way_is_said_while_waiting(redis_url: str, client: Client) -> None:
    put(client, "1", "wait")
    client.call("HSET", Q("meta"), "paused", 1)
    # Long enough for the first reading on a busy machine.
    ran = qctl(redis_url, "wait", "q", "--for", "empty", "--timeout", "500ms")
    assert ran.err.splitlines() == [
        "queue q is paused: waiting jobs run after `qctl resume q`",
        "no worker of queue q is connected",
        "waiting: 1 waiting",
        ran.err.splitlines()[3],
        "1 waiting",
        "try: qctl status q",
    ]
    assert ran.err.splitlines()[3].startswith("error: queue q was not empty within ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_is_interrupted(redis_url: str, client: Client, number: int) -> None:
    put(client, "1", "active", lock="w:0")
    command = Command(redis_url, "wait", "q", "--for", "job=1")
    wait_until(lambda: blocked(client), "the wait")
    assert command.end(number).code == 130


# schedules


def test_the_list_of_schedulers_fits_a_terminal(redis_url: str, client: Client) -> None:
    make(client, "nightly", Rule(cron="0 3 * * *", tz="Europe/Berlin"), name="report")
    make(client, LONG + "1", Rule(cron="0,15,30,45 8-18 * * MON-FRI", tz="America/New_York"))
    make(client, LONG + "2", Rule(every=90, limit=10_000))
    at(client, LONG + "2", now_ms() - 3_600_000)
    client.call("DEL", Q(make(client, EVIL, Rule(every=3600))))
    legacy(client, MD5_KEY, name="old", every=7000)
    ran = qctl(redis_url, "schedules", "list", terminal=True, NO_COLOR="1")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    *table, dead, overdue, old = ran.out.splitlines()
    assert all(len(line) <= 80 for line in table)
    assert table[0].split()[:1] == ["ID"]
    assert len(table) in {6, 7}
    assert "\\x1b[2J[red]\\u202eevil\\n: no pending job" in dead
    assert "no worker has taken" in overdue
    assert "1 repeatable of BullMQ 5" in old
    wide = qctl(redis_url, "schedules", "list", "q").out.splitlines()
    assert wide[0].split() == [
        *("ID", "QUEUE", "NAME", "SCHEDULE", "NEXT", "LAST", "RUNS", "SKIPPED", "STATE"),
    ]
    (row,) = [line for line in wide if line.startswith("nightly")]
    assert "0 3 * * * Europe/Berlin" in row
    assert row.endswith("ok")
    (late,) = [line for line in wide if line.startswith(LONG + "2")]
    assert late.split()[-4:] == ["-", "1/10,000", "40", "overdue"]


def test_schedules_as_json(redis_url: str, client: Client) -> None:
    make(client, "nightly", Rule(cron="0 3 * * *"), data={"a": 1}, attempts=2)
    (found,) = json.loads(qctl(redis_url, "schedules", "list", "--json").out)["schedules"]
    assert list(found) == [
        *(
            "queue",
            "prefix",
            "id",
            "kind",
            "name",
            "pattern",
            "every_ms",
            "tz",
            "offset_ms",
            "state",
        ),
        *("next_at", "pending_id", "pending_state", "iterations", "limit", "last_run_at"),
        *("skipped", "start_at", "end_at", "data", "opts", "package"),
    ]
    assert (found["data"], found["opts"], found["state"]) == ({"a": 1}, {"attempts": 2}, "ok")
    line = qctl(redis_url, "schedules", "list", "--output", "ndjson").out
    assert json.loads(line) == found
    shown = json.loads(qctl(redis_url, "schedules", "show", "q", "nightly", "--json").out)
    assert len(shown.pop("upcoming_at")) == 5
    assert shown == found
    empty = put(client, "1", keys=type(Q)("bull", "other"))
    assert empty
    none = qctl(redis_url, "schedules", "list", "other")
    assert (none.code, none.out, none.err) == (0, "", "no schedulers\n")


def test_one_scheduler_is_shown_run_and_removed(redis_url: str, client: Client) -> None:
    make(client, "nightly", Rule(cron="0 3 * * *", tz="UTC"), name=EVIL, data={"a": 1})
    shown = qctl(redis_url, "schedules", "show", "q", "nightly")
    labels = [line.split("  ")[0] for line in shown.out.splitlines()]
    assert labels == [
        *("id", "queue", "job name", "schedule", "state", "next", *["then"] * 4, "pending job"),
        *("runs", "data", "options"),
    ]
    assert "\x1b" not in shown.out
    dry = qctl(redis_url, "schedules", "run", "q", "nightly", "--dry-run")
    assert dry.out.endswith("(dry run)\n")
    assert client.call("LLEN", Q("wait")) == 0
    ran = qctl(redis_url, "schedules", "run", "q", "nightly")
    assert ran.code == 0
    assert "scheduler nightly continues as before" in ran.out
    assert ran.err == "no worker of queue q is connected\n"
    assert client.call("LLEN", Q("wait")) == 1
    assert "would be removed (dry run)" in qctl(
        redis_url, "schedules", "remove", "q", "nightly", "--dry-run"
    ).out.replace("removed  (dry run)", "removed (dry run)")
    removed = json.loads(qctl(redis_url, "schedules", "remove", "q", "nightly", "--json").out)
    assert (removed["removed"], removed["job_left"], removed["schedule"]["id"]) == (
        *(True, None),
        "nightly",
    )
    again = qctl(redis_url, "schedules", "remove", "q", "nightly")
    assert again.code == 3
    assert "has none" in again.err
    assert qctl(redis_url, "schedules", "run", "q", "nightly").code == 3


def test_thousands_of_schedulers_are_listed(redis_url: str, client: Client) -> None:
    client.call("HSET", Q("meta"), "version", "bullmq:6.7.0")
    due = now_ms() + 3_600_000
    rows: list[tuple[str | int, ...]] = []
    opts = json.dumps({"repeat": {"every": 1000, "count": 1}})
    for number in range(2000):
        sid = f"s{number}"
        rows += [
            ("ZADD", Q("repeat"), due, sid),
            ("HSET", Q.scheduler(sid), "name", "n", "every", 1000, "ic", 1),
            ("HSET", Q(f"repeat:{sid}:{due}"), "name", "n", "opts", opts, "timestamp", due),
            ("ZADD", Q("delayed"), due * 4096, f"repeat:{sid}:{due}"),
        ]
    client.pipeline(rows)
    ran = qctl(redis_url, "schedules", "list", terminal=True)
    assert len(ran.out.splitlines()) == 2001 + ran.out.count("(none:")
