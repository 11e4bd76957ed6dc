"""Data that no sane producer writes: it is shown whole, obeyed never, and moved unharmed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.output.json import MAX_DEPTH, TOO_DEEP
from qctl.wire.read.clients import client_name
from tests.labs.hostile import (
    DEEP,
    PAYLOADS,
    STATES,
    TEXTS,
    Qctl,
    assert_explained,
    assert_harmless,
    dump,
    evil_queue,
    key,
    put,
    raw,
)
from tests.labs.servers import RedisServer

QUEUE = "evil"
# A queue's name has no colon (BullMQ refuses it), and no argument can hold a NUL.
NAMES = [text for text in TEXTS if b":" not in raw(text)]
READING = [
    ("status",),
    ("status", QUEUE),
    ("queues",),
    ("workers",),
    ("workers", QUEUE),
    *(("jobs", "list", QUEUE, "--limit", "1000", "--state", state) for state in STATES),
    ("jobs", "list", QUEUE, "--state", "failed", "--where", "data.text ~ 'x' and attempts_made>1"),
    ("jobs", "show", QUEUE, b"failed " + raw(TEXTS[0])),
    ("jobs", "logs", QUEUE, b"failed " + raw(TEXTS[0])),
    ("jobs", "retry-stalled", "--dry-run"),
    ("jobs", "retry-stalled", "--failed", "--dry-run", QUEUE),
    ("pause", "--dry-run", QUEUE),
    ("resume", "--dry-run", QUEUE),
    ("drain", "--dry-run", QUEUE),
    ("impact", QUEUE),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of this module's own, with users who may read only."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    with contextlib.closing(connect(server.url)[1]) as client:
        for user, more in (("reader", ()), ("seer", ("+client|list", "+info"))):
            rules = ("on", f">{user}", "~*", "+@read", "+ping", "+scan", *more)
            client.call("ACL", "SETUSER", user, "reset", *rules)
    yield server
    server.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[Client]:
    with contextlib.closing(connect(server.url)[1]) as client:
        client.call("FLUSHALL")
        yield client


@pytest.fixture
def qctl(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Qctl:
    return Qctl(tmp_path_factory.mktemp("home"), server.url)


@contextlib.contextmanager
def worker(server: RedisServer, queue: str, name: str | None = None) -> Iterator[None]:
    """A connection that looks like a worker's."""
    with contextlib.closing(connect(server.url)[1]) as connection:
        connection.call("CLIENT", "SETNAME", client_name("bull", queue, name))
        yield


# Reading


def test_reading_shows_everything_and_writes_nothing(
    qctl: Qctl, client: Client, server: RedisServer
) -> None:
    evil_queue(client, QUEUE)
    before = dump(client)
    with worker(server, QUEUE, "\x21[red]\\x1b[31m~"):
        for command in READING:
            for result in qctl.everywhere(*command).values():
                # Stalled jobs without data are left alone, which is not all that was asked for.
                assert result.code == (7 if "retry-stalled" in command else 0), result
    assert dump(client) == before


def test_the_doctor_stands_everything_and_writes_nothing(
    qctl: Qctl, client: Client, server: RedisServer
) -> None:
    evil_queue(client, QUEUE)
    before = dump(client)
    with worker(server, QUEUE, "\x21[red]\\x1b[31m~"):
        for options in ((), ("--full",)):
            for result in qctl.everywhere("doctor", QUEUE, *options).values():
                assert result.code == 1, result
                assert "unexpected" not in result.stdout
                assert "could not be checked" not in result.stdout
    assert dump(client) == before


@pytest.mark.parametrize("user", ["reader", "seer"])
def test_a_user_who_may_only_read_sees_all_but_what_is_unknown(
    qctl: Qctl, client: Client, server: RedisServer, user: str
) -> None:
    evil_queue(client, QUEUE)
    commands = [command for command in READING if command[0] != "workers"]
    for result in qctl.all(commands, QCTL_REDIS_URL=server.url_for(user, user)):
        codes = {"retry-stalled": 7, "pause": 5, "drain": 5}
        # What the real thing would be refused, its dry run is refused, too.
        expected = next((codes[word] for word in result.arguments[:2] if word in codes), 0)
        assert result.code == expected, result
        assert_harmless(result)
    with worker(server, QUEUE):
        queue, workers, table = qctl.all(
            [("status", "--json"), ("workers", "--json"), ("status",)],
            QCTL_REDIS_URL=server.url_for(user, user),
        )
    known = 1 if user == "seer" else None
    assert queue.object["queues"][0]["workers"] == known
    # The reader may not ask for it.
    assert (queue.object["redis"]["version"] is None) == (user == "reader")
    row = next(line for line in table.stdout.splitlines() if line.startswith(QUEUE))
    assert row.split()[-1] == ("1" if user == "seer" else "?")
    if user == "seer":
        assert len(workers.object["workers"]) == 1
    else:
        assert_explained(workers, 1, "may not list clients", "+client|list")


def test_every_id_and_payload_is_in_the_json(qctl: Qctl, client: Client) -> None:
    ids = evil_queue(client, QUEUE)
    commands = [
        ("jobs", "list", QUEUE, "--limit", "1000", "--state", state, "--json") for state in STATES
    ]
    for state, result in zip(STATES, qctl.all(commands), strict=True):
        found = {raw(job["id"]): job for job in result.object["jobs"]}
        assert set(found) == set(ids[state])
        assert result.object["total"] == len(ids[state])
        letter = raw(state) if state != "waiting-children" else b"children"
        for text in TEXTS:
            job = found[letter + b" " + raw(text)]
            assert raw(job["name"]) == raw(text)
            assert raw(job["failed_reason"]) == raw(text)
        for index, payload in enumerate(PAYLOADS):
            data = found[letter + b"-data-%d" % index]["data"]
            is_cut = payload and payload.count("}") + payload.count("]") > MAX_DEPTH
            is_cut = is_cut and TOO_DEEP in json.dumps(data)
            assert is_cut or data == payload or data == _loaded(payload), payload
        assert found[letter + b"-ghost"]["missing"]


def _loaded(payload: str | None) -> Any:
    # What JSON.parse makes of it; numbers too large for JSON are null.
    return json.loads(payload.replace("1e400", "null")) if payload else {}


def test_each_hostile_job_can_be_shown_with_its_log(qctl: Qctl, client: Client) -> None:
    ids = evil_queue(client, QUEUE)["failed"]
    shown = [job_id for job_id in ids if not job_id.endswith(b"ghost")]
    for mode in ((), ("--json",)):
        # The log is the same for all, and the JSON has gone through the same hands as a list's.
        some = shown[:: 9 if mode else 2]
        commands = [("jobs", "show", *mode, "--", QUEUE, job_id) for job_id in some]
        for job_id, result in zip(some, qctl.all(commands), strict=True):
            assert result.code == 0, result
            assert_harmless(result)
            if mode:
                assert raw(result.object["id"]) == job_id
    for job_id in shown[::20]:
        logs = qctl.everywhere("jobs", "logs", QUEUE, job_id)
        rows = logs["json"].object["logs"]
        assert [*map(raw, rows)] == [*map(raw, TEXTS)]
        assert [raw(row["row"]) for row in logs["ndjson"].objects] == [*map(raw, TEXTS)]
        assert len(logs["table"].stdout.splitlines()) == len(TEXTS)
    assert_explained(qctl("jobs", "show", QUEUE, "failed-ghost"), 3, "no record", "failed")


def test_five_megabytes_are_printed_whole(qctl: Qctl, client: Client) -> None:
    text = "x" * 5_000_000
    put(client, QUEUE, "big", "wait", {"name": text, "data": json.dumps([text]), "timestamp": 1})
    listed = qctl.everywhere("jobs", "list", QUEUE, "--state", "waiting")
    shown = qctl.everywhere("jobs", "show", QUEUE, "big")
    for job in (listed["json"].object["jobs"][0], listed["ndjson"].object, shown["json"].object):
        assert job["data"] == [text]
        assert job["name"] == text
    assert len(listed["table"].stdout) < 2000
    assert len(shown["table"].stdout) < 20_000


def test_ids_that_are_names_of_other_keys(qctl: Qctl, client: Client) -> None:
    names = ("meta", "wait", "events", "failed", "a:b", "repeat:x", "")
    for name in names:
        put(client, QUEUE, name, "wait", {})
        put(client, QUEUE, name, "active", {})
        put(client, QUEUE, name, "failed", {})
    put(client, QUEUE, "fine", "wait")
    put(client, QUEUE, "fine-too", "active")
    before = dump(client)
    status = qctl("status", "--json")
    assert status.code == 0
    assert status.object["queues"][0]["counts"]["waiting"] == len(names) + 1
    for state in ("waiting", "stalled", "failed"):
        result = qctl.everywhere("jobs", "list", QUEUE, "--state", state)["json"]
        assert {*names} <= {job["id"] for job in result.object["jobs"]}
    for name in names[1:]:
        for verb in ("show", "logs"):
            result = qctl("jobs", verb, "--", QUEUE, name)
            assert_explained(result, 3, "no record" if verb == "show" else "job")
    assert dump(client) == before
    result = qctl("jobs", "retry-stalled", QUEUE, "--json")
    assert result.code == 7, result
    assert "fine-too" in result.object["queues"][0]["retried"]
    skipped = {job["id"] for job in result.object["queues"][0]["skipped"]}
    assert skipped >= {*names} - {"meta"}
    # What has no record was left where it was.
    assert {*client.call("LRANGE", key(QUEUE, "active"), 0, -1)} >= skipped


def test_a_bare_hash_is_a_job_and_one_in_no_list_has_no_state(qctl: Qctl, client: Client) -> None:
    put(client, QUEUE, "bare", "wait", {"custom": "1"})
    put(client, QUEUE, "lost", "", {"name": "n", "timestamp": 1})
    bare, lost, listed = qctl.all(
        [
            ("jobs", "show", QUEUE, "bare", "--json"),
            ("jobs", "show", QUEUE, "lost", "--json"),
            ("jobs", "list", QUEUE, "--state", "waiting", "--json"),
        ]
    )
    assert bare.object["state"] == "waiting"
    assert lost.object["state"] == "unknown"
    assert [job["missing"] for job in listed.object["jobs"]] == [False]


# Names


def test_hostile_queue_names_are_found_and_operated(qctl: Qctl, client: Client) -> None:
    for name in NAMES:
        put(client, name, "1", "wait")
        put(client, name, "2", "active")
    put(client, "fine", "1", "wait")
    client.call("HSET", "bull:a:b:meta", "version", "bullmq:6.7.0")
    listed = {raw(name) for name in qctl.everywhere("queues")["json"].object["queues"]}
    assert listed == {raw(name) for name in NAMES} | {b"fine"}
    dashed = [name for name in NAMES if raw(name).startswith(b"-")]
    plain = [name for name in NAMES if name not in dashed]
    for command in (
        ("status",),
        ("workers",),
        ("pause",),
        ("resume",),
        ("jobs", "retry-stalled", "--dry-run"),
        ("drain", "--dry-run"),
    ):
        results = qctl.everywhere(*command, *plain, "--", *dashed)
        assert all(result.code == 0 for result in results.values()), results
        named = results["json"].object.get("queues", [])
        found = [raw(item if isinstance(item, str) else item["name"]) for item in named]
        assert found == ([raw(name) for name in (*plain, *dashed)] if named else [])
        if command[0] == "pause":
            paused = [client.call("HGET", key(name, "meta"), "paused") for name in NAMES]
            assert paused == ["1"] * len(NAMES)
    assert client.call("KEYS", "qctl:*") == []
    lists = [("jobs", "list", "--state", "waiting", "--json", "--", name) for name in NAMES]
    for name, result in zip(NAMES, qctl.all(lists), strict=True):
        assert raw(result.object["queue"]) == raw(name)
        assert [job["id"] for job in result.object["jobs"]] == ["1"]


def test_what_status_recommends_can_be_pasted_into_a_shell(qctl: Qctl, client: Client) -> None:
    name = "-$(touch pwned)'s"
    put(client, name, "1", "active")
    client.call("HSET", key(name, "meta"), "paused", "1")
    result = qctl("status")
    commands = [line.strip() for line in result.stdout.splitlines() if line.startswith("    ")]
    assert sorted(commands) == [
        "qctl jobs list --state stalled -- '-$(touch pwned)'\"'\"'s'",
        "qctl jobs retry-stalled -- '-$(touch pwned)'\"'\"'s'",
        "qctl resume -- '-$(touch pwned)'\"'\"'s'",
    ]


@pytest.mark.parametrize("name", ["nope\nerror: forged", "no\x1b[31mpe", "[red]", b"\xff"])
def test_a_hostile_name_that_does_not_exist(qctl: Qctl, client: Client, name: str) -> None:
    put(client, "q", "1")
    for command in (
        ("status", name),
        ("jobs", "show", "q", name),
        ("jobs", "list", name, "--state", "failed"),
    ):
        assert_explained(qctl(*command), 3, "no ")


# Changing


def test_stalled_jobs_go_back_byte_for_byte(qctl: Qctl, client: Client) -> None:
    ids = [put(client, QUEUE, text, "active", score="1") for text in TEXTS]
    before = {i: client.call("DUMP", key(QUEUE, i)) for i in ids}
    result = qctl("jobs", "retry-stalled", "--json", QUEUE)
    assert result.code == 0, result
    (queue,) = result.object["queues"]
    assert {raw(job_id) for job_id in queue["retried"]} == {*ids}
    assert queue["skipped"] == []
    assert {raw(i) for i in client.call("LRANGE", key(QUEUE, "wait"), 0, -1)} == {*ids}
    assert client.call("LLEN", key(QUEUE, "active")) == 0
    assert {i: client.call("DUMP", key(QUEUE, i)) for i in ids} == before


@pytest.mark.parametrize("options", [(), ("--count-stall",), ("--failed",)])
def test_no_field_of_a_job_keeps_it_from_going_back_or_loses_it(
    qctl: Qctl, client: Client, options: tuple[str, ...]
) -> None:
    ids = evil_queue(client, QUEUE)
    result = qctl("jobs", "retry-stalled", QUEUE, "--json", *options)
    assert result.code == 7, result
    (queue,) = result.object["queues"]
    gone = {raw(job["id"]) for job in queue["skipped"]}
    assert gone == {b"stalled-ghost"}
    assert {raw(job_id) for job_id in queue["retried"]} == {*ids["stalled"]} - gone
    places = [*client.call("LRANGE", key(QUEUE, "wait"), 0, -1)]
    places += client.call("ZRANGE", key(QUEUE, "prioritized"), 0, -1)
    places += client.call("LRANGE", key(QUEUE, "active"), 0, -1)
    assert {raw(i) for i in places} >= {*ids["stalled"], *ids["waiting"], *ids["active"]}


def test_meta_hashes_full_of_nonsense(qctl: Qctl, client: Client) -> None:
    values = ("abc", "-1", "1e400", "9" * 400, "²", "")
    queues = [f"q{index}" for index in range(len(values))]
    for queue, value in zip(queues, values, strict=True):
        put(client, queue, "1", "active")
        fields = dict.fromkeys(("opts.maxLenEvents", "concurrency", "version"), value)
        client.call("HSET", key(queue, "meta"), *(word for item in fields.items() for word in item))
    commands = [("status", "--json"), ("drain", "--dry-run", "--json", *queues)]
    results = qctl.all(commands)
    assert [result.code for result in results] == [0, 0], results
    for command, paused in (("pause", "1"), ("resume", None)):
        result = qctl(command, *queues)
        assert result.code == 0, result
        assert_harmless(result)
        flags = [client.call("HGET", key(queue, "meta"), "paused") for queue in queues]
        assert flags == [paused] * len(queues)


@pytest.mark.parametrize("form", ["table", "ndjson"])
def test_a_hostile_queue_is_drained(
    qctl: Qctl, client: Client, server: RedisServer, form: str
) -> None:
    ids = evil_queue(client, QUEUE)
    for job_id in ids["active"]:
        client.call("DEL", key(QUEUE, job_id + b":lock"))
    options = () if form == "table" else ("--output", "ndjson")
    result = qctl("drain", *options, "--timeout", "20s", QUEUE)
    assert result.code == 0, result
    assert_harmless(result)
    assert client.call("HGET", key(QUEUE, "meta"), "paused") == "1"
    assert client.call("LLEN", key(QUEUE, "active")) == len(ids["active"]) + 1
    if form == "ndjson":
        assert result.objects[-1]["outcome"] == "drained"


# Notes

NOTES = (
    "garbage",
    "",
    "null",
    "[]",
    "{}",
    '"text"',
    "1e400",
    DEEP,
    b"\xff\xfe",
    '{"owner": 1, "verb": "drain"}',
    '{"owner": "x", "verb": ["drain"], "user": {}, "host": null, "pid": "1", "at_ms": 1e400}',
    '{"owner": "x", "verb": "drain", "user": "\\u001b[31m", "host": "h\\nerror: forged",'
    ' "pid": -1, "at_ms": 99999999999999999999, "added by": "a later version"}',
)


def test_pause_notes_that_are_not_ours(qctl: Qctl, client: Client) -> None:
    queues = [f"q{index}" for index in range(len(NOTES))]
    for queue, note in zip(queues, NOTES, strict=True):
        put(client, queue, "1", "wait")
        client.call("HSET", key(queue, "meta"), "paused", "1")
        client.call("SET", f"qctl:paused:bull:{queue}", note)
    for command in (("status",), ("pause", "--dry-run"), ("drain", "--dry-run")):
        results = qctl.everywhere(*command, *queues).values()
        assert all(result.code == 0 for result in results), results
    for command in ("pause", "resume"):
        result = qctl(command, *queues)
        assert result.code == 0, result
        assert_harmless(result)
    assert not any(client.call("HEXISTS", key(queue, "meta"), "paused") for queue in queues)
    assert client.call("KEYS", "qctl:*") == []


def test_a_note_of_another_type_is_in_nobodys_way(qctl: Qctl, client: Client) -> None:
    put(client, QUEUE, "1", "wait")
    client.call("LPUSH", f"qctl:paused:bull:{QUEUE}", "x")
    for command in (("status",), ("pause", QUEUE), ("resume", QUEUE)):
        assert qctl(*command).code == 0
    assert client.call("KEYS", "qctl:*") == []


def test_a_lease_of_another_version_is_respected(qctl: Qctl, client: Client) -> None:
    put(client, QUEUE, "1", "wait")
    client.call("SET", f"qctl:lease:bull:{QUEUE}", '{"owner": "x", "user": "a\\nb", "new": 1}')
    for command in (("drain", QUEUE), ("resume", QUEUE)):
        assert_explained(qctl(*command), 5, "drain", "(pid 0)")
    assert client.call("HGET", key(QUEUE, "meta"), "paused") is None


def test_a_lease_that_is_nobodys_is_taken(qctl: Qctl, client: Client) -> None:
    put(client, QUEUE, "1", "wait")
    client.call("SET", f"qctl:lease:bull:{QUEUE}", "garbage")
    assert qctl("drain", QUEUE).code == 0
    assert client.call("EXISTS", f"qctl:lease:bull:{QUEUE}") == 0


# Keys of a wrong type

TYPED = (
    *("meta", "wait", "paused", "active", "delayed", "prioritized", "waiting-children"),
    *("completed", "failed", "repeat"),
)


def test_a_broken_queue_hides_no_other(qctl: Qctl, client: Client, server: RedisServer) -> None:
    put(client, "fine", "1", "wait")
    put(client, "fine", "2", "active")
    for suffix in TYPED:
        queue = f"broken {suffix}"
        put(client, queue, "1", "", {"name": "x", "timestamp": 1})
        client.call("DEL", key(queue, suffix))
        client.call("SET", key(queue, suffix), "a text")
    before = dump(client)
    with worker(server, "broken active", "w"), worker(server, "fine", "w"):
        for form, result in qctl.everywhere("status").items():
            assert_explained(result, 7, "10 of 11 queues cannot be read", "'broken repeat'")
            if form == "table":
                assert "fine" in result.stdout
            else:
                assert [queue["name"] for queue in result.object["queues"]] == ["fine"]
        workers = qctl("workers", "--json")
        assert workers.code == 0, workers
        assert len(workers.object["workers"]) == 2
        retried = qctl("jobs", "retry-stalled", "--dry-run", "--json")
        assert_explained(retried, 7, "cannot be read")
        assert retried.object["queues"][0]["retried"] == ["2"]
    commands = [
        (*command, f"broken {suffix}")
        for suffix in TYPED
        for command in (
            ("status",),
            ("pause",),
            ("resume",),
            ("jobs", "retry-stalled", "--yes"),
            ("drain",),
            ("jobs", "list", "--state", "waiting"),
        )[:: 1 if suffix in {"meta", "active"} else 2]
    ]
    for command, result in zip(commands, qctl.all(commands), strict=True):
        suffix = str(command[-1]).partition(" ")[2]
        assert_explained(result, 1, "type", f"bull:{command[-1]}:{suffix}")
    assert dump(client) == before


@pytest.mark.parametrize("suffix", ["events", "marker", "stalled"])
def test_a_key_that_is_only_written_has_a_wrong_type(
    qctl: Qctl, client: Client, suffix: str
) -> None:
    put(client, QUEUE, "1", "active")
    put(client, QUEUE, "2", "failed", {"failedReason": "job stalled more than allowable limit"})
    client.call("HSET", key(QUEUE, "meta"), "paused", "1")
    client.call("DEL", key(QUEUE, suffix))
    client.call("SET", key(QUEUE, suffix), "a text")
    before = dump(client)
    assert qctl("status").code == 0
    commands: list[tuple[str, ...]] = [("jobs", "retry-stalled", QUEUE, "--failed")]
    commands += [("resume", QUEUE)] if suffix != "stalled" else []
    for result in qctl.all(commands):
        assert_explained(result, 1, "type")
    assert dump(client) == before
    if suffix == "events":
        client.call("HDEL", key(QUEUE, "meta"), "paused")
        before = dump(client)
        pause, drain = qctl.all([("pause", QUEUE), ("drain", QUEUE)])
        assert_explained(pause, 1, "type")
        assert drain.code == 1, drain
        assert "WRONGTYPE" in drain.stderr
        assert dump(client) == before
