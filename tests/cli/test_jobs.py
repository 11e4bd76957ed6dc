"""``qctl jobs list``, ``show`` and ``logs``, through the whole program."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import timedelta
from typing import Any, get_args

import pytest

from qctl.cli.jobs import State
from qctl.connection.address import Client
from qctl.wire.read.clients import client_name
from qctl.wire.states import STATES
from tests.labs.cli import Ran, run
from tests.labs.jobs import KEYS, T0, add, lock
from tests.labs.servers import wait_until

EVIL = "\x1b[2J[red]\u202eevil\n"


def jobs(redis_url: str, *arguments: str, **options: Any) -> Ran:
    return run("jobs", *arguments, QCTL_REDIS_URL=redis_url, **options)


def test_the_states_of_the_option_are_those_that_can_be_listed() -> None:
    assert get_args(State) == STATES


def test_a_list_as_json_has_the_fields_of_the_contract(redis_url: str, client: Client) -> None:
    add(client, "1", "failed", T0, finishedOn=T0, processedOn=T0 - 500, failedReason="no")
    ran = jobs(redis_url, "list", "q", "--state", "failed", "--json")
    assert (ran.code, ran.err) == (0, "")
    result = json.loads(ran.out)
    assert (result["queue"], result["state"], result["total"]) == ("q", "failed", 1)
    (job,) = result["jobs"]
    assert list(job)[:18] == [
        *("id", "name", "state", "data", "opts", "attempts_made", "attempts_started"),
        *("attempts_max", "stalled_count", "worker", "lock_ttl_ms", "added_at", "started_at"),
        *("finished_at", "due_at", "runtime_s", "failed_reason", "progress"),
    ]
    assert job["finished_at"] == "2023-11-14T22:13:20.000Z"
    assert (job["runtime_s"], job["lock_ttl_ms"], job["failed_reason"]) == (0.5, None, "no")


def test_a_list_as_ndjson_is_one_job_a_line(redis_url: str, client: Client) -> None:
    add(client, "1", "wait")
    add(client, "2", "wait")
    ran = jobs(redis_url, "list", "q", "--state", "waiting", "--output", "ndjson")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == ["1", "2"]


@pytest.mark.parametrize(
    ("state", "place", "headings"),
    [
        ("waiting", "wait", "ID NAME AGE ATTEMPTS REASON"),
        ("active", "active", "ID NAME RUNNING ATTEMPTS LOCK WORKER"),
        ("stalled", "active", "ID NAME RUNNING STALLS FATE WORKER"),
        ("delayed", "delayed", "ID NAME DUE ATTEMPTS REASON"),
        ("prioritized", "prioritized", "ID NAME PRIORITY AGE ATTEMPTS REASON"),
        ("waiting-children", "waiting-children", "ID NAME AGE ATTEMPTS"),
        ("completed", "completed", "ID NAME ENDED TOOK ATTEMPTS WORKER"),
        ("failed", "failed", "ID NAME ENDED ATTEMPTS REASON"),
    ],
)
def test_the_table_suits_the_state_and_fits_80_columns(
    redis_url: str, client: Client, state: str, place: str, headings: str
) -> None:
    # The age is "1112d5h" at every time of the day: with "1112d", the table had room to spare.
    at = int((time.time() - timedelta(days=1112, hours=5, minutes=30).total_seconds()) * 1000)
    score = None if place in {"wait", "active"} else at
    fields = {"failedReason": "x" * 500, "pb": "worker " * 20, "processedOn": at}
    add(client, "a-long-id-" * 5, place, score, name="a long name " * 9, finishedOn=at, **fields)
    add(client, "gone", place, score)
    client.call("DEL", KEYS("gone"))
    ran = jobs(redis_url, "list", "q", "--state", state, terminal=True, NO_COLOR="1")
    lines = ran.out.splitlines()
    heading = " ".join(lines[0].split()).replace("TRIES", "ATTEMPTS")
    assert heading.replace("PRIO ", "PRIORITY ") == headings
    assert all(len(line) <= 80 for line in lines[:3])
    assert "(missing)" in ran.out
    assert ran.code == 0


@pytest.mark.parametrize("state", STATES)
def test_an_id_as_long_as_a_uuid_is_shown_in_full(
    redis_url: str, client: Client, state: str
) -> None:
    job_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    place = {"waiting": "wait", "stalled": "active"}.get(state, state)
    now = int(time.time() * 1000) - 3_700_000
    score = None if place in {"wait", "active"} else now * 4096 if state == "delayed" else now
    times = {"timestamp": now, "processedOn": now, "finishedOn": now}
    fields = {"failedReason": "x" * 500, "pb": "worker " * 20, "name": "a long name " * 9}
    add(client, job_id, place, score, **times, **fields)
    ran = jobs(redis_url, "list", "q", "--state", state, terminal=True, NO_COLOR="1")
    row = ran.out.splitlines()[1]
    assert job_id in row
    assert len(row) <= 80


def test_a_list_says_what_it_does_not_show(redis_url: str, client: Client) -> None:
    for number in range(60):
        add(client, str(number), "wait", name="odd" if number % 2 else "even")
    assert jobs(redis_url, "list", "q", "--state", "waiting").err == (
        "showing 50 of 60; --limit N for more\n"
    )
    assert jobs(redis_url, "list", "q", "--state", "waiting", "--limit", "60").err == ""
    filtered = jobs(redis_url, "list", "q", "--state", "waiting", "--name", "odd")
    assert filtered.err == "30 matches among 60 waiting jobs in queue q\n"
    none = jobs(redis_url, "list", "q", "--state", "waiting", "--where", "id = x")
    assert (none.code, none.out) == (0, "")
    assert none.err == "no match among 60 waiting jobs in queue q\n"
    first = jobs(
        redis_url, "list", "q", "--state", "waiting", "--since", "2023-01-01T00:00Z", "--limit=2"
    )
    assert first.err.startswith("showing the first 2 matches among 60")
    assert jobs(redis_url, "list", "q", "--state", "failed").err == "no failed jobs in queue q\n"


def test_where_selects(redis_url: str, client: Client) -> None:
    for number in range(5):
        add(client, str(number), "wait", data=json.dumps({"user": {"id": number}}))
    where = "data.user.id >= 3 or id = 0"
    ran = jobs(redis_url, "list", "q", "--state", "waiting", "--where", where, "--json")
    assert [job["id"] for job in json.loads(ran.out)["jobs"]] == ["0", "3", "4"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--state", "paused"], "waiting-children"),
        ([], "waiting-children"),
        (["--state", "failed", "--limit", "0"], "--limit"),
        (["--state", "failed", "--where", "idd = 1"], "\nidd = 1\n^\n"),
        (["--state", "failed", "--since", "tomorrow"], "--since"),
    ],
)
def test_wrong_options_are_exit_2(arguments: list[str], says: str) -> None:
    ran = run("jobs", "list", "q", *arguments, QCTL_REDIS_URL="redis://127.0.0.1:1/0")
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err


@pytest.mark.parametrize(
    "arguments", [["list", "no", "--state", "failed"], ["show", "no", "1"], ["logs", "no", "1"]]
)
def test_an_unknown_queue_is_exit_3(redis_url: str, client: Client, arguments: list[str]) -> None:
    add(client, "1", "wait")
    assert jobs(redis_url, *arguments).code == 3


@pytest.mark.parametrize("command", ["show", "logs"])
def test_an_unknown_job_is_exit_3(redis_url: str, client: Client, command: str) -> None:
    add(client, "1", "wait")
    ran = jobs(redis_url, command, "q", EVIL)
    assert ran.code == 3
    assert "qctl jobs list q" in ran.err
    assert "\x1b" not in ran.err


def test_stalled_jobs_are_shown_with_their_fate(redis_url: str, client: Client) -> None:
    add(client, "1", "active", processedOn=T0)
    add(client, "2", "active", processedOn=T0, stc=1)
    client.call("CLIENT", "SETNAME", client_name("bull", "q"))
    client.call("SET", "bull:q:stalled-check", T0, "PX", 30_000)
    ran = jobs(redis_url, "list", "q", "--state", "stalled")
    assert re.search("job 1: .*put back", ran.out)
    assert "job 2: will fail for good" in ran.out
    assert "stall 2, and the limit is 1" in ran.out
    lenient = jobs(redis_url, "list", "q", "--state", "stalled", QCTL_MAX_STALLED_COUNT="2")
    assert re.search("jobs 1, 2: .*put back", lenient.out)
    shown = jobs(redis_url, "show", "q", "2")
    assert "stalled (active without a lock)" in shown.out
    assert "fail for good" in shown.out
    # With skipStalledCheck, or where jobs are fetched by hand, no worker ever looks.
    client.call("DEL", "bull:q:stalled-check")
    unchecked = json.loads(jobs(redis_url, "list", "q", "--state", "stalled", "--json").out)
    assert [job["fate"]["outcome"] for job in unchecked["jobs"]] == ["unknown", "unknown"]
    client.call("CLIENT", "SETNAME", "")
    alone = json.loads(jobs(redis_url, "list", "q", "--state", "stalled", "--json").out)
    assert [job["fate"]["outcome"] for job in alone["jobs"]] == ["none", "none"]
    assert "qctl jobs retry-stalled q" in alone["jobs"][0]["fate"]["text"]


def test_one_job_in_full(redis_url: str, client: Client) -> None:
    add(
        client,
        "1",
        "active",
        data=json.dumps({"to": "somebody@example.org", "list": list(range(30))}),
        stacktrace='["Error: one\\n  at x"]',
        parentKey="bull:flows:7",
        pb="w1",
        processedOn=T0,
    )
    lock(client, "1", "token:1")
    client.call("RPUSH", KEYS.logs("1"), "row")
    ran = jobs(redis_url, "show", "q", "1")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["id", "1"]
    facts = {line.partition("  ")[0].strip(): line.partition("  ")[2].strip() for line in lines}
    assert facts["state"] == "active"
    assert facts["parent"] == "flows 7  gone"
    assert facts["lock"].startswith("token:1, ")
    assert facts["log"] == "1 row, see qctl jobs logs"
    assert '    "to": "somebody@example.org",' in lines
    assert "stack trace 1 of 1:" in lines
    result = json.loads(jobs(redis_url, "show", "q", "1", "--json").out)
    assert (result["queue"], result["parent"]["id"], result["lock_token"]) == ("q", "7", "token:1")


def test_untrusted_text_is_never_obeyed(redis_url: str, client: Client) -> None:
    fields = {
        "name": EVIL,
        "data": json.dumps({EVIL: "x" * 5_000_000}),
        "failedReason": EVIL * 1000,
        "stacktrace": json.dumps([EVIL]),
        "returnvalue": "\x1b]0;not json\x07",
        "pb": b"\xff\xfe" + EVIL.encode(),
        "progress": json.dumps(EVIL),
        "finishedOn": T0,
    }
    add(client, EVIL, "failed", T0, **fields)
    client.call("RPUSH", KEYS.logs(EVIL), EVIL)
    for arguments in (["list", "q", "--state", "failed"], ["show", "q", EVIL], ["logs", "q", EVIL]):
        ran = jobs(redis_url, *arguments, terminal=True, NO_COLOR="1")
        assert ran.code == 0
        assert not set(ran.out) & set("\x1b\x07\u202e\udcff")
        assert "\\x1b[2J[red" in ran.out
        assert len(ran.out) < 30_000
    result = json.loads(jobs(redis_url, "list", "q", "--state", "failed", "--json").out)
    job = result["jobs"][0]
    assert (job["id"], job["name"], job["failed_reason"]) == (EVIL, EVIL, EVIL * 1000)
    assert job["worker"] == "\udcff\udcfe" + EVIL
    assert len(job["data"][EVIL]) == 5_000_000


def test_deeply_nested_data_is_survived(redis_url: str, client: Client) -> None:
    add(client, "1", "wait", data="[" * 960 + "]" * 960)
    assert jobs(redis_url, "show", "q", "1").code == 0
    assert jobs(redis_url, "list", "q", "--state", "waiting", "--where", "data.x ~ 1").code == 0


def test_logs(redis_url: str, client: Client) -> None:
    add(client, "1", "wait")
    client.call("RPUSH", KEYS.logs("1"), "a", "b")
    assert jobs(redis_url, "logs", "q", "1").out == "a\nb\n"
    assert json.loads(jobs(redis_url, "logs", "q", "1", "--json").out) == {
        "queue": "q",
        "id": "1",
        "total": 2,
        "logs": ["a", "b"],
    }
    lines = jobs(redis_url, "logs", "q", "1", "--output", "ndjson").out.splitlines()
    assert [json.loads(line) for line in lines] == [{"row": "a"}, {"row": "b"}]
    assert jobs(redis_url, "logs", "q", "1", "--follow", "--json").code == 2


def test_logs_are_followed_until_the_job_has_finished(redis_url: str, client: Client) -> None:
    add(client, "1", "active")
    client.call("RPUSH", KEYS.logs("1"), "a")
    results: list[Ran] = []
    follower = threading.Thread(
        target=lambda: results.append(jobs(redis_url, "logs", "q", "1", "--follow"))
    )
    follower.start()
    time.sleep(0.2)
    client.call("RPUSH", KEYS.logs("1"), "b")
    client.call("ZADD", KEYS("completed"), T0, "1")
    wait_until(lambda: results, "the follower to end")
    follower.join()
    assert results[0].out == "a\nb\n"


def test_one_job_on_a_terminal_is_a_block(redis_url: str, client: Client) -> None:
    add(client, "1", "failed", T0, name="x" * 300, failedReason="boom")
    ran = run("jobs", "show", "q", "1", terminal=True, QCTL_REDIS_URL=redis_url, NO_COLOR="1")
    lines = ran.out.splitlines()
    assert lines[0] == "✖ job 1  failed"
    assert lines[-1] == "  to run it again: qctl jobs retry q 1"
    assert max(map(len, lines)) <= 80
    assert "x" * 300 in "".join(line.strip() for line in lines)
