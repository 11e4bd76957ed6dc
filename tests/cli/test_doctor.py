"""``doctor`` as a script and an operator see it."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.ops.doctor.examination import name_of
from qctl.ops.doctor.run import CHECKS
from qctl.wire.keys import QueueKeys
from tests.labs.build import Q, put
from tests.labs.cli import Ran, run
from tests.labs.servers import RedisServer

PAGE = Path(__file__).parents[2] / "docs/doctor.md"
HOSTILE = "ev\x1b[31mil\n\u202e[bold]"


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """A Redis without a hazard of its own."""
    return start_redis("--appendonly", "yes")


@pytest.fixture
def client(server: RedisServer) -> Iterator[Client]:
    with contextlib.closing(connect(server.url)[1]) as client:
        yield client


def doctor(server: RedisServer, *words: str, terminal: bool = False, **environ: str) -> Ran:
    home = {"PM2_HOME": "/nonexistent", **environ}
    return run("doctor", "--redis", server.url, *words, terminal=terminal, **home)


def test_nothing_found_says_what_was_looked_at(server: RedisServer, client: Client) -> None:
    put(client, "1", "completed")
    ran = doctor(server)
    assert ran.code == 0
    last = ran.out.splitlines()[-1]
    assert last.startswith("nothing found; ")
    assert last.endswith(": 1 queue, 0 workers, 0 processes")
    assert "safe" not in ran.out


def test_an_info_alone_is_exit_0(server: RedisServer, client: Client) -> None:
    client.call("SET", "bull:old:id", "7")
    ran = doctor(server)
    assert ran.code == 0
    assert ran.out.splitlines()[-1].startswith("0 errors, 0 warnings, 1 info; ")


def test_json_is_complete(server: RedisServer, client: Client) -> None:
    put(client, "1", "paused")
    ran = doctor(server, "--json")
    assert ran.code == 1
    report = json.loads(ran.out)
    assert list(report) == ["findings", "checks", "examined"]
    (finding,) = (f for f in report["findings"] if f["check"] == "legacy-paused")
    assert finding["severity"] == "error"
    assert finding["subject"] == {"kind": "queue", "name": "q"}
    assert finding["evidence"] == {"in_paused": 1, "in_wait": 0}
    assert set(finding) == {
        *("check", "severity", "subject", "what", "evidence", "remedy", "commands"),
    }
    assert [each["check"] for each in report["checks"]] == [name_of(check) for check in CHECKS]
    assert {each["status"] for each in report["checks"]} == {"ok", "found", "skipped"}
    assert report["examined"] == {"queues": 1, "workers": 0, "processes": 0, "left_out": []}


def test_the_table_fits_80_columns_and_shows_names_harmlessly(
    server: RedisServer, client: Client
) -> None:
    keys = QueueKeys("bull", HOSTILE)
    put(client, "1", "paused", keys=keys)
    put(client, "x" * 200, "active", keys=keys)
    ran = doctor(server, terminal=True)
    assert ran.code == 1
    assert "\u202e" not in ran.out
    plain = doctor(server, "--no-color", terminal=True).out
    assert "\x1b" not in plain
    commands = [line for line in plain.splitlines() if line.startswith("           qctl ")]
    assert commands
    assert [line for line in plain.splitlines() if len(line) > 80 and line not in commands] == []
    assert plain.startswith("error    ev\\x1b[31mil\\n")
    assert "[legacy-paused]" in plain


def test_many_findings_of_one_kind_are_summed_up(server: RedisServer, client: Client) -> None:
    for number in range(25):
        put(client, "1", "paused", keys=QueueKeys("bull", f"q{number}"))
    ran = doctor(server)
    assert ran.out.count("[legacy-paused]") == 10
    assert "15 more of legacy-paused (error): --json lists all" in ran.out
    assert "50 errors" in ran.out.splitlines()[-1]
    assert len(json.loads(doctor(server, "--json").out)["findings"]) >= 25


def test_checks_that_fail_for_one_reason_are_one_finding(
    server: RedisServer, client: Client
) -> None:
    put(client, "1", "completed")
    client.call("ACL", "SETUSER", "lowly", "on", ">x", "~*", "+@all", "-client|list")
    url = server.url_for("lowly", "x")
    ran = run("doctor", "--redis", url, PM2_HOME="/nonexistent", terminal=True)
    assert ran.code == 1
    words = " ".join(ran.out.split())
    assert words.count("could not be checked") == 1
    assert "gone-workers, no-workers, worker-names, unnamed-workers: could not" in words
    assert ", unknown workers, " in words
    assert len(json.loads(run("doctor", "--redis", url, "--json").out)["findings"]) > 3


def test_its_commands_go_to_the_redis_that_was_asked_about(
    server: RedisServer, client: Client, tmp_path: Path
) -> None:
    put(client, "1", "active")
    place = f"--redis {parse_url(server.url)}"
    (stalled,) = (f for f in findings("--redis", server.url) if f["check"] == "stalled")
    assert stalled["commands"] == [
        f"qctl jobs list q --state stalled {place}",
        f"qctl jobs retry-stalled q {place}",
    ]
    put(client, "2")
    config = tmp_path / "qctl" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'[contexts.prod]\nredis = {{ url = "{server.url}" }}\n')
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert "qctl workers q --context prod" in str(findings("--context", "prod", **home))
    assert "qctl workers q" in str(findings(QCTL_CONTEXT="prod", **home))


def findings(*words: str, **environ: str) -> list[dict[str, Any]]:
    ran = run("doctor", "--json", *words, PM2_HOME="/nonexistent", **environ)
    found: list[dict[str, Any]] = json.loads(ran.out)["findings"]
    return found


def test_named_queues_only(server: RedisServer, client: Client) -> None:
    put(client, "1", "paused")
    put(client, "1", "completed", keys=QueueKeys("bull", "other"))
    assert doctor(server, "other").code == 0
    assert doctor(server, "q").code == 1


def test_exit_codes_of_what_is_not_there(server: RedisServer, client: Client) -> None:
    assert doctor(server).code == 3
    put(client, "1", "completed", keys=Q)
    ran = doctor(server, "nosuch", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert doctor(server, "--target", "nosuch").code == 3
    assert doctor(server, "--target", "pm2:nosuch").code == 6
    server.stop()
    assert doctor(server).code == 6


def test_the_page_names_every_check(server: RedisServer) -> None:
    text = PAGE.read_text().partition("## Checks")[2].partition("## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [name_of(check) for check in CHECKS]


def test_what_is_left_without_a_job_or_a_state_goes_as_the_remedy_says(
    server: RedisServer, client: Client
) -> None:
    put(client, "good", "completed")
    for place, job_id in (("wait", "w 1"), ("completed", "c1"), ("delayed", "d1")):
        put(client, job_id, place)
        client.call("DEL", Q(job_id))
    put(client, "lost", "")
    put(client, "ended", "", finishedOn=1_700_000_000_000)
    # Left by a worker that took an id without a job.
    client.call("HSET", Q("ghost"), "processedOn", "1", "ats", "1")
    checks = {"missing-hashes", "lost-jobs"}
    findings = json.loads(doctor(server, "--json").out)["findings"]
    shown = [c for f in findings if f["check"] in checks for c in f["commands"]]
    assert len(shown) == 4
    for command in shown:
        words = shlex.split(command)
        assert words[0] == "qctl"
        ran = run(*words[1:], terminal=True, stdin="y\n")
        assert ran.code == 0, (command, ran)
    left = json.loads(doctor(server, "--full", "--json").out)["findings"]
    assert not checks & {f["check"] for f in left}
    assert client.call("EXISTS", Q("ghost"), Q("ended")) == 0
    assert client.call("LRANGE", Q("wait"), 0, -1) == ["lost"]
    assert client.call("ZRANGE", Q("completed"), 0, -1) == ["good"]
    # The queue's own hashes are no jobs, whatever they are called.
    assert run("jobs", "remove", "q", "meta", QCTL_REDIS_URL=server.url).code != 0
    assert client.call("EXISTS", Q("meta")) == 1


def test_status_mentions_the_errors_of_the_last_run(
    server: RedisServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(*words: str, terminal: bool = False, **more: str) -> Ran:
        return run("status", *words, terminal=terminal, **environ, **more)

    url = server.url.replace("redis://", "redis://default:se:cret@")
    client.call("CONFIG", "SET", "requirepass", "se:cret")
    client.call("AUTH", "se:cret")
    environ = {"PM2_HOME": "/nonexistent", "XDG_STATE_HOME": str(tmp_path), "QCTL_REDIS_URL": url}
    for queue in "abcd":
        put(client, "1", "paused", keys=QueueKeys("bull", queue))
    assert json.loads(status("--json").out)["doctor_errors"] is None
    # A run on some queues says nothing about the others.
    assert run("doctor", "a", **environ).code == 1
    assert json.loads(status("--json").out)["doctor_errors"] is None

    assert run("doctor", **environ).code == 1
    (file,) = (tmp_path / "qctl" / "doctor").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "cret" not in file.name + file.read_text()
    errors = json.loads(status("--json").out)["doctor_errors"]
    assert (errors["count"], len(errors["first"])) == (8, 3)
    assert errors["first"][0].startswith("a: 1 job is in BullMQ 5's list of paused jobs")
    assert 0 <= errors["age_s"] < 60
    for terminal in (False, True):
        ran = status("a", terminal=terminal, NO_COLOR="1")
        lines = ran.out.splitlines()
        at = next(n for n, line in enumerate(lines) if line.startswith("doctor   found 8 errors "))
        shown = " ".join(lines[at:]).partition("qctl doctor")[0]
        assert " ago: a: 1 job is in BullMQ 5's list" in shown
        assert "; 6 more" in " ".join(shown.split())
        assert "    qctl doctor" in lines

    # Another server at the address, and an old record.
    record = file.read_text()
    file.write_text(record.replace('"server": "', '"server": "x'))
    assert json.loads(status("--json").out)["doctor_errors"] is None
    file.write_text(record)
    now_s = time.time()
    monkeypatch.setattr("qctl.ops.doctor_errors.time.time", lambda: now_s + 3601)
    assert json.loads(status("--json").out)["doctor_errors"] is None
    monkeypatch.undo()
    for hostile in (
        "",
        "[]",
        record.replace('"count": 8', '"count": "x"'),
        record.replace('"count": 8', '"count": 0'),
        record[:-9],
    ):
        file.write_text(hostile)
        assert json.loads(status("--json").out)["doctor_errors"] is None
    file.write_text(record)
    assert json.loads(status("--json").out)["doctor_errors"] is not None

    # A run that finds none.
    client.call("FLUSHALL")
    put(client, "1", "completed")
    assert run("doctor", **environ).code == 0
    assert not file.exists()
