"""``status``, ``queues`` and ``workers`` as a script and an operator see them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.ops.queues import names as known
from qctl.ops.queues.find import Queues, queues_named_or_all
from qctl.wire.read.clients import client_name
from qctl.wire.read.discovery import Survey
from tests.labs.cli import Ran, run
from tests.labs.screens import check_colours
from tests.labs.servers import RedisServer, wait_until

HOSTILE = "ev\x1b[31mil\n\u202e[bold]"


@pytest.fixture
def url(redis_url: str, client: Client) -> str:
    """A server with two queues: ``email`` with jobs and a worker's pause, and a hostile name."""
    now_ms = int(time.time() * 1000)
    client.pipeline(
        [
            ("HSET", "bull:email:meta", "version", "bullmq:6.7.0", "paused", "1"),
            ("XADD", "bull:email:events", "*", "event", "x"),
            ("RPUSH", "bull:email:wait", "2", "1"),
            ("HSET", "bull:email:1", "timestamp", now_ms - 60_000),
            ("RPUSH", "bull:email:active", "3", "4"),
            ("SET", "bull:email:3:lock", "t"),
            ("ZADD", "bull:email:prioritized", "1", "5"),
            ("HSET", f"bull:{HOSTILE}:meta", "version", "bullmq:5.0.0"),
        ]
    )
    return redis_url


def status(url: str, *words: str, **environ: str) -> Ran:
    return run("status", "--redis", url, *words, PM2_HOME="/nonexistent", **environ)


def test_json_has_the_shape_of_the_contract(url: str) -> None:
    ran = status(url, "email", "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert ran.out.count("\n") == 1
    assert list(report) == [
        *("redis", "queues", "processes", "queues_known_at", "other_prefixes", "problems"),
        "doctor_errors",
    ]
    assert report["queues_known_at"] is None
    assert report["redis"]["url"] == url
    assert re.match(r"\d+\.\d+", report["redis"]["version"])
    assert report["redis"]["mode"] == "standalone"
    (queue,) = report["queues"]
    assert list(queue)[:11] == [
        *("name", "prefix", "format", "client_version", "paused", "paused_by", "counts"),
        *("waiting_is_least", "oldest_waiting_s", "schedulers", "workers"),
    ]
    assert queue["counts"] == {
        "waiting": 2,
        "active": 2,
        "stalled": 1,
        "delayed": 0,
        "prioritized": 1,
        "waiting_children": 0,
        "completed": 0,
        "failed": 0,
    }
    assert (queue["client_version"], queue["paused"], queue["paused_by"]) == ("6.7.0", True, None)
    assert 59 <= queue["oldest_waiting_s"] <= 120
    assert queue["workers"] == 0
    assert report["processes"] == []


def test_a_look_that_takes_long_says_what_it_does(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qctl.cli.status.PATIENCE_S", 0)
    inner = known.survey

    def slow(client: Client, prefixes: Prefixes, *, look_beyond: bool) -> Survey:
        wait_until(lambda: threading.active_count() == before, "the remark")
        return inner(client, prefixes, look_beyond=look_beyond)

    before = threading.active_count()
    monkeypatch.setattr(known, "survey", slow)
    ran = run("status", "--redis", url, terminal=True, PM2_HOME="/nonexistent")
    assert ran.err == "finding and reading the queues …\n"
    said = "searching all keys of this Redis for queues …\n"
    assert run("queues", "--redis", url, terminal=True).err == said
    assert run("queues", "--redis", url).err == ""


def test_a_slow_look_at_named_queues_does_not_speak_of_a_search(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qctl.cli.status.PATIENCE_S", 0)
    inner = queues_named_or_all

    def slow(*args: Any) -> Queues:
        wait_until(lambda: threading.active_count() == before, "the remark")
        return inner(*args)

    before = threading.active_count()
    monkeypatch.setattr("qctl.ops.queues.status.queues_named_or_all", slow)
    ran = run("status", "email", "--redis", url, terminal=True, PM2_HOME="/nonexistent")
    assert ran.err == "reading the queues …\n"


def test_the_table_shows_hostile_names_harmlessly(url: str) -> None:
    ran = status(url)
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out
    assert "ev\\x1b[31mil\\n\\u202e[bold]" in ran.out
    # Without the flag it would resume a queue of another Redis.
    assert f"    qctl resume email --redis {url}\n" in ran.out
    by_environment = run("status", "email", PM2_HOME="/nonexistent", QCTL_REDIS_URL=url)
    assert "    qctl resume email\n" in by_environment.out


def test_named_queues_come_in_their_order_and_once(url: str) -> None:
    ran = status(url, HOSTILE, "email", "email", "--json")
    assert [queue["name"] for queue in json.loads(ran.out)["queues"]] == [HOSTILE, "email"]


def test_a_missing_queue_is_exit_3_with_the_nearest_name(url: str) -> None:
    ran = status(url, "email", "emial", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "no queue is called 'emial'" in ran.err
    assert ran.err.endswith(f"try: qctl status email --redis {url}\n")


@pytest.mark.parametrize("words", [["status"], ["status", "email"], ["queues"]])
def test_a_prefix_that_holds_nothing_is_exit_3_and_names_those_that_do(
    url: str, words: list[str]
) -> None:
    ran = run(*words, "--redis", url, "--prefix", "bullmq", PM2_HOME="/nonexistent")
    assert (ran.code, ran.out) == (3, "")
    assert "'bull'" in ran.err
    that_works = "status email" if "email" in words else "queues"
    assert ran.err.endswith(f"try: qctl {that_works} --prefix bull --redis {url}\n")


def test_of_several_prefixes_the_near_one_is_suggested(url: str, client: Client) -> None:
    for prefix in ("another", "zz"):
        client.call("HSET", f"{prefix}:q:meta", "opts.maxLenEvents", "10000")
    near = run("status", "--prefix", "bul", QCTL_REDIS_URL=url, PM2_HOME="/nonexistent")
    assert near.err.endswith("try: qctl queues --prefix bull\n")
    far = run("status", "--prefix", "xyzzy", QCTL_REDIS_URL=url, PM2_HOME="/nonexistent")
    assert far.err.endswith("try: name one of them with --prefix\n")


def test_an_empty_database_is_exit_3(redis_url: str) -> None:
    ran = status(redis_url)
    assert ran.code == 3
    assert "holds no BullMQ queue at all" in ran.err


def test_a_broken_queue_does_not_hide_the_others(url: str, client: Client) -> None:
    client.call("SET", "bull:broken:meta", "text")
    ran = status(url, "--json")
    assert ran.code == 7
    assert [queue["name"] for queue in json.loads(ran.out)["queues"]] == ["email", HOSTILE]
    assert "'broken': WRONGTYPE" in ran.err
    named = status(url, "broken")
    assert (named.code, named.out) == (1, "")
    assert "bull:broken:meta" in named.err


def test_pm2_trouble_is_a_remark(url: str, tmp_path: object) -> None:
    (tmp_path / "rpc.sock").write_text("no socket")  # type: ignore[operator]
    ran = run("status", "--redis", url, "--json", PM2_HOME=str(tmp_path))
    assert ran.code == 0
    assert json.loads(ran.out)["processes"] == []
    assert "no PM2 processes shown" in ran.err


def test_queues(url: str) -> None:
    assert run("queues", "--redis", url).out == "email\nev\\x1b[31mil\\n\\u202e[bold]\n"
    ran = run("queues", "--redis", url, "--json")
    assert json.loads(ran.out) == {
        "queues": ["email", HOSTILE],
        "by_prefix": {"bull": ["email", HOSTILE]},
    }


def test_workers(url: str, client: Client) -> None:
    connections = [connect(url)[1] for _ in range(4)]
    names = [("email", "w1"), ("email", None), ("email", None), (HOSTILE, "x")]
    for connection, (queue, name) in zip(connections, names, strict=True):
        connection.call("CLIENT", "SETNAME", client_name("bull", queue, name))
    client.call("HSET", "bull:email:3", "pb", "w1", "name", "j")
    ran = run("workers", "email", "--redis", url, "--json", PM2_HOME="/nonexistent")
    rows = json.loads(ran.out)["workers"]
    assert [(row["queue"], row["name"], row["jobs"]) for row in rows] == [
        ("email", None, None),
        ("email", None, None),
        ("email", "w1", ["3"]),
    ]
    everywhere = run("workers", "--redis", url, PM2_HOME="/nonexistent")
    assert len(everywhere.out.splitlines()) == 5
    assert run("workers", "nix", "--redis", url).code == 3
    shown = json.loads(status(url, "--json").out)["queues"]
    assert [queue["workers"] for queue in shown] == [3, 1]
    for connection in connections:
        connection.close()


def test_no_workers_is_said(url: str) -> None:
    ran = run("workers", "--redis", url, PM2_HOME="/nonexistent")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("no worker is connected; ")


def test_below_a_report_that_is_longer_than_the_terminal_stands_how_many_problems_are_above(
    client: Client, redis_url: str
) -> None:
    for number in range(30):
        client.call("HSET", f"bull:q{number:02}:meta", "version", "bullmq:6.7.0")
    client.call("RPUSH", "bull:q29:wait", "1")
    tall = run("status", terminal=True, PM2_HOME="/nonexistent", QCTL_REDIS_URL=redis_url)
    assert tall.err == (
        "1 problem in 1 queue, listed at the top; only those: `qctl status --problems`\n"
    )
    assert re.findall("^\\S*(q\\d\\d)", tall.out, re.MULTILINE)[0] == "q29"
    piped = run("status", PM2_HOME="/nonexistent", QCTL_REDIS_URL=redis_url)
    assert piped.err == ""


# Watching


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_watching_needs_a_terminal_or_lines(url: str, words: list[str]) -> None:
    ran = status(url, "--watch", *words)
    assert ran.code == 2
    assert "--output ndjson" in ran.err


@pytest.mark.parametrize("interval", ["0", "0.01", "1e9", "5x", "99999999"])
def test_a_strange_interval_is_refused(url: str, interval: str) -> None:
    ran = status(url, "--watch", interval, "--output", "ndjson")
    assert ran.code == 2
    assert repr(interval) in ran.err


def test_watching_prints_a_line_per_look_until_ctrl_c(url: str) -> None:
    words = [sys.executable, "-m", "qctl", "status", "--watch", "0.1", "--output", "ndjson"]
    process = subprocess.Popen(
        [*words, "--redis", url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PM2_HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"},
    )
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    process.stdout.close()
    assert [len(line["queues"]) for line in lines] == [2, 2, 2]


def test_watching_needs_a_terminal_that_obeys_escape_sequences(url: str) -> None:
    ran = run("status", "--watch", "--redis", url, terminal=True, TERM="dumb")
    assert (ran.code, "--output ndjson" in ran.err) == (2, True)


@contextlib.contextmanager
def watching(url: str, *words: str, lines: int = 24) -> Iterator[tuple[int, int]]:
    """The pid of ``qctl status --watch`` and the terminal that it draws on; Ctrl-C ends it."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        environ = {**os.environ, "PM2_HOME": "/nonexistent", "TERM": "xterm", "COLUMNS": "80"}
        environ |= {"LINES": str(lines), "COLORTERM": "truecolor"}
        command = [sys.executable, "-m", "qctl", "status", "--watch", "0.2", "--redis", url, *words]
        os.execve(sys.executable, command, environ)  # noqa: S606
    try:
        yield pid, terminal
    finally:
        os.kill(pid, signal.SIGINT)
        _read_until(terminal, lambda _: False)
        _, result = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(result) == 0


def test_watching_redraws_on_a_terminal_until_ctrl_c(url: str) -> None:
    with watching(url) as (_, terminal):
        shown = _read_until(terminal, lambda text: text.count("Ctrl-C to ") >= 2)
    assert "ev\\x1b[31mil" in shown
    check_colours(shown)
    # Rich moves the cursor up to draw over the frame before.
    assert "\x1b[1A" in shown


def test_a_redis_that_hangs_is_named_while_it_hangs_and_the_age_of_the_figures(
    start_redis: Callable[..., RedisServer],
) -> None:
    redis_server = start_redis()
    with contextlib.closing(connect(redis_server.url)[1]) as client:
        client.call("HSET", "bull:email:meta", "version", "bullmq:6.7.0")
    with watching(redis_server.url) as (_, terminal):
        _read_until(terminal, lambda text: "Ctrl-C to " in text)
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            hung = _read_until(terminal, lambda text: "these figures are" in text)
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
        # White on red.
        assert re.search("\x1b\\[[0-9;]*41mRedis has not answered for ", hung)
        assert "email" in hung[hung.index("has not answered") :]
        # The line goes away when Redis answers again.
        _read_until(terminal, lambda text: _last_screen(text).startswith("redis://"))


def _last_screen(text: str) -> str:
    """What was drawn since the cursor last moved up."""
    return re.sub("\x1b\\[[0-9;]*[A-Za-z]", "", text.rpartition("\x1b[1A")[2]).lstrip("\r")


def test_a_watch_that_never_got_an_answer_says_so_and_ends_with_ctrl_c(
    start_redis: Callable[..., RedisServer],
) -> None:
    redis_server = start_redis()
    with contextlib.closing(connect(redis_server.url)[1]) as client:
        client.call("HSET", "bull:email:meta", "version", "bullmq:6.7.0")
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        with watching(redis_server.url) as (_, terminal):
            shown = _read_until(terminal, lambda text: "Ctrl-C to " in text)
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert "Redis has not answered for " in shown
    assert "figures" not in shown


def _read_until(terminal: int, enough: object, timeout_s: float = 20.0) -> str:
    """The output until it is enough, or until the program ends; fails if that takes too long."""
    text = ""
    deadline = time.monotonic() + timeout_s
    while not enough(text):  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not shown in time: {text!r}"
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        text += chunk.decode("utf-8", "replace")
    return text
