"""``schedules set`` and ``schedules migrate``, through the whole program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.ops.schedules import migrate
from qctl.wire.replies import to_dict
from qctl.wire.schedulers.scheduling import Schedule as Rule
from tests.labs.build import Q, job, put, row, scores
from tests.labs.cli import Ran, run
from tests.labs.schedules import MD5_KEY, at, legacy, make, now_ms
from tests.labs.servers import wait_until

OLD_KEY = "report::1893456000000:Europe/Berlin:0 3 * * *"


def qctl(redis_url: str, *arguments: str, **options: Any) -> Ran:
    return run("schedules", *arguments, QCTL_REDIS_URL=redis_url, **options)


def record(client: Client, scheduler_id: str) -> dict[str, str]:
    return to_dict(client.call("HGETALL", Q.scheduler(scheduler_id)))


# set


def test_set_makes_a_scheduler(redis_url: str, client: Client) -> None:
    assert qctl(redis_url, "set", "q", "s", "--every", "1h").code == 3
    put(client, "1")
    words = ("set", "q", "s", "--cron", "0 3 * * *", "--tz", "UTC", "--name", "tick")
    options = ("--data", '{"n": 1}', "--attempts", "2", "--priority", "5")
    dry = json.loads(qctl(redis_url, *words, *options, "--dry-run", "--json").out)
    assert client.call("EXISTS", Q("repeat")) == 0
    ran = qctl(redis_url, *words, *options)
    assert ran.code == 0
    assert "no worker" in ran.err
    stored = record(client, "s")
    assert (stored["name"], stored["pattern"], stored["tz"]) == ("tick", "0 3 * * *", "UTC")
    assert (dry["outcome"], dry["before"], dry["dry_run"]) == ("made", None, True)
    (pending,) = scores(client, "delayed")
    made = job(client, pending)
    assert (made["data"], made["priority"]) == ('{"n":1}', "5")
    assert dry["next_at"] in qctl(redis_url, "show", "q", "s").out


def test_set_changes_what_is_given_and_asks(redis_url: str, client: Client) -> None:
    rule = Rule(cron="0 3 * * *", tz="Europe/Berlin", limit=9)
    make(client, "s", rule, name="tick", data={"n": 1}, attempts=4, priority=3, lifo=True)
    client.call("HSET", Q.scheduler("s"), "qctl", "myapp")
    words = ("set", "q", "s", "--cron", "0 4 * * *")
    ran = qctl(redis_url, *words)
    assert (ran.code, "--yes" in ran.err) == (2, True)
    assert "0 3 * * * Europe/Berlin → 0 4 * * * Europe/Berlin" in ran.err
    assert qctl(redis_url, *words, stdin="n\n", terminal=True).code == 5
    assert record(client, "s")["pattern"] == "0 3 * * *"
    ran = qctl(redis_url, *words, stdin="y\n", terminal=True)
    assert ran.code == 0
    assert "the code of the package myapp makes this scheduler" in ran.err
    stored = record(client, "s")
    assert (stored["pattern"], stored["tz"], stored["limit"]) == ("0 4 * * *", "Europe/Berlin", "9")
    assert (stored["name"], stored["data"], "qctl" in stored) == ("tick", '{"n":1}', False)
    (pending,) = scores(client, "delayed")
    opts = json.loads(job(client, pending)["opts"])
    assert (opts["attempts"], opts["priority"], opts["lifo"]) == (4, 3, True)
    # The time zone is a pattern's.
    done = json.loads(
        qctl(redis_url, "set", "q", "s", "--every", "1h", "--attempts", "7", "--yes", "--json").out
    )
    assert (done["outcome"], done["every_ms"], done["tz"]) == ("changed", 3_600_000, None)
    assert done["before"]["pattern"] == "0 4 * * *"
    # Options alone leave the times, also of a pattern's job that is due.
    make(client, "c", Rule(cron="0 3 * * *", tz="UTC"))
    at(client, "c", now_ms() - 5000)
    due = scores(client, "repeat")["c"]
    assert qctl(redis_url, "set", "q", "c", "--attempts", "7", "--yes").code == 0
    assert scores(client, "repeat")["c"] == due
    assert row(client, "wait") == [f"repeat:c:{due}", *row(client, "wait")[1:]]
    all_due = scores(client, "repeat")
    assert qctl(redis_url, "set", "q", "s", "--data", '{"n": 2}', "--yes").code == 0
    assert scores(client, "repeat") == all_due
    assert '"attempts":7' in record(client, "s")["opts"]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("s",), 2, "nothing to set"),
        (("s", "--name", "x"), 2, "needs its times"),
        (("s", "--cron", "61 * * * *"), 2, "values are 0 to 59"),
        (("s", "--cron", "0 3 * * *", "--tz", "Mars"), 2, "no time zone"),
        (("s", "--cron", "0 3 * * *", "--every", "5s"), 2, "either cron or every"),
        (("s", "--every", "5s", "--tz", "UTC"), 2, "only a scheduler with cron"),
        (("s", "--every", "soon"), 2, "--every"),
        ((MD5_KEY, "--every", "5s"), 5, "legacy repeatable"),
    ],
)
def test_set_refuses(
    redis_url: str, client: Client, words: tuple[str, ...], code: int, reason: str
) -> None:
    legacy(client, MD5_KEY, name="nightly", every=7000)
    ran = qctl(redis_url, "set", "q", *words)
    assert ran.code == code
    assert reason in ran.err
    assert list(scores(client, "repeat")) == [MD5_KEY]


# migrate


def test_migrate_keeps_times_data_and_options(redis_url: str, client: Client) -> None:
    old = legacy(client, MD5_KEY, name="nightly", every=7000)
    due = old.rpartition(":")[2]
    legacy(client, OLD_KEY, iteration="not-to-be-guessed")
    (pending,) = [each for each in scores(client, "delayed") if "guessed" in each]
    opts = json.loads(job(client, pending)["opts"])
    opts["repeat"] = {"pattern": "0 3 * * *", "count": 3, "key": OLD_KEY, "tz": "Europe/Berlin"}
    client.call("HSET", Q(pending), "opts", json.dumps(opts), "rjk", OLD_KEY, "name", "report")
    client.call("HSET", Q(old), "rjk", MD5_KEY)
    before = client.call("DBSIZE")
    dry = json.loads(qctl(redis_url, "migrate", "q", "--dry-run", "--json").out)
    assert [row["outcome"] for row in dry["repeatables"]] == ["planned", "planned"]
    assert client.call("DBSIZE") == before
    ran = qctl(redis_url, "migrate", "q")
    assert (ran.code, "--yes" in ran.err) == (2, True)
    ran = qctl(redis_url, "migrate", "q", stdin="n\n", terminal=True)
    assert (ran.code, client.call("DBSIZE")) == (5, before)
    assert "Replace 2 repeatables" in ran.err
    ran = qctl(redis_url, "migrate", "q", "--yes", "--json")
    assert ran.code == 0, ran.err
    rows = {row["key"]: row for row in json.loads(ran.out)["repeatables"]}
    assert {key: row["id"] for key, row in rows.items()} == {MD5_KEY: "nightly", OLD_KEY: "report"}
    assert {row["outcome"] for row in rows.values()} == {"migrated"}
    assert set(scores(client, "repeat")) == {"nightly", "report"}
    assert scores(client, "repeat")["nightly"] == due
    assert scores(client, "delayed").keys() == {
        f"repeat:{name}:{ms}" for name, ms in scores(client, "repeat").items()
    }
    assert client.call("KEYS", Q(f"*{MD5_KEY}*")) == []
    made = job(client, f"repeat:nightly:{due}")
    assert (made["name"], made["data"], made["rjk"]) == ("nightly", '{"x":1}', "nightly")
    new_opts = json.loads(made["opts"])
    assert (new_opts["attempts"], new_opts["repeat"]) == (2, {"every": 7000, "count": 3})
    assert record(client, "nightly") == {
        "name": "nightly", "every": "7000", "ic": "3", "offset": str(int(due) % 7000),
        "data": '{"x":1}', "opts": '{"attempts":2}',
    }  # fmt: skip
    assert record(client, "report")["endDate"] == "1893456000000"
    again = qctl(redis_url, "migrate", "q", "--yes")
    assert (again.code, again.out) == (0, "no repeatables of old versions\n")


def test_migrate_leaves_what_cannot_become_a_scheduler(
    redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_PAUSE_S", 0)
    keys = {letter: letter * 32 for letter in "abcdef"}
    # Two of one name; one whose job runs; one whose job is gone; one like a scheduler; one that
    # only BullMQ 5 can read.
    legacy(client, keys["a"], name="twice", every=5000)
    legacy(client, keys["b"], name="twice", every=6000)
    active = legacy(client, keys["c"], name="active", every=7000)
    client.call("ZREM", Q("delayed"), active)
    client.call("LPUSH", Q("active"), active)
    gone = legacy(client, keys["d"], name="gone", every=7000)
    client.call("ZREM", Q("delayed"), gone)
    client.call("DEL", Q(gone))
    legacy(client, keys["e"], name="twin", every=7000)
    make(client, "own-id", Rule(every=7), name="twin", data={"x": 1})
    odd = legacy(client, keys["f"], name="odd", pattern="0 3 30 2 *")
    client.call("HSET", Q(odd), "opts", '{"repeat":{"pattern":"0 3 30 2 *","count":1}}')
    ran = qctl(redis_url, "migrate", "q", "--yes", "--json")
    assert ran.code == 7
    rows = {row["name"]: row for row in json.loads(ran.out)["repeatables"]}
    assert {name for name, row in rows.items() if row["outcome"] == "migrated"} == {"twice"}
    assert rows["active"]["why"].startswith("its job runs")
    assert rows["gone"]["why"].startswith(
        "its pending job, which holds the data and options, was not found"
    )
    assert rows["twin"]["command"] == f"qctl schedules remove q {keys['e']}"
    assert "no such day" in rows["odd"]["why"]
    left = set(scores(client, "repeat"))
    assert {keys["c"], keys["d"], keys["e"], keys["f"], "own-id"} < left
    assert len([each for each in left if each.startswith("twice-")]) == 2
    client.call("LREM", Q("active"), 0, active)
    client.call("ZADD", Q("completed"), 1, active)
    ran = qctl(redis_url, "migrate", "q", "--yes")
    # Its job has ended without a next one, as with a worker of BullMQ 6.
    assert "active (every 7s) is now scheduler active; next job" in ran.out
    client.call("HSET", Q("meta"), "version", "bullmq:5.15.0")
    assert qctl(redis_url, "migrate", "q", "--yes").code == 5


def test_migrate_that_is_killed_loses_no_schedule(redis_url: str, client: Client) -> None:
    names = {f"{number:032x}": f"job{number}" for number in range(400)}
    for key, name in names.items():
        legacy(client, key, name=name, every=7000)

    def migrated() -> int:
        return sum(
            not name.isalnum() or name in names.values() for name in scores(client, "repeat")
        )

    command = [sys.executable, "-m", "qctl", "schedules", "migrate", "q", "--yes"]
    process = subprocess.Popen(
        command, env=os.environ | {"QCTL_REDIS_URL": redis_url},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: migrated() > 0, "the first scheduler", every_s=0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < migrated() < len(names)
    assert {names.get(each, each) for each in scores(client, "repeat")} == set(names.values())
    assert len(scores(client, "delayed")) == len(names)
    assert qctl(redis_url, "migrate", "q", "--yes").code == 0
    assert set(scores(client, "repeat")) == set(names.values())
    assert scores(client, "delayed").keys() == {
        f"repeat:{name}:{ms}" for name, ms in scores(client, "repeat").items()
    }
