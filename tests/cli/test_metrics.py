"""``metrics`` as typed: printed, and served until SIGTERM."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qctl.cli import metrics
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.extras import install_command
from qctl.wire.drain_record import DrainResult, add_drain
from tests.labs.build import Q, put
from tests.labs.cli import Ran, run
from tests.labs.servers import RedisServer, free_port, wait_until


def typed(url: str, *words: str) -> Ran:
    return run("metrics", *words, QCTL_REDIS_URL=url, PM2_HOME="/nonexistent")


def fields_of(value: object) -> Iterator[str]:
    """Names of all fields of a JSON value, at any depth."""
    if isinstance(value, dict):
        yield from value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from fields_of(each)


def test_every_field_of_the_json_is_documented(client: Client, redis_url: str) -> None:
    put(client, "1")
    add_drain(client, "bull", DrainResult(1_700_000_000_500, "drained", 1, 0, 0, 0, 0, 0, 41, 6))
    (line,) = typed(redis_url, "--json").out.splitlines()
    reading = json.loads(line)
    assert reading["drains"]["last"]["ended_at"] == "2023-11-14T22:13:20.500Z"
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    block = page.partition("\n`metrics`: ")[2].partition("\n\n")[0]
    # Of status' own fields its block tells; of a mapping the first key stands for all.
    del reading["queues"][0]["counts"]
    for kind in ("drains", "jobs"):
        reading["drains"][kind] = {}
    assert [name for name in fields_of(reading) if f'"{name}"' not in block] == []


Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def get(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def test_printed_once(redis_url: str, client: Client) -> None:
    put(client, "1")
    ran = typed(redis_url)
    assert (ran.code, ran.err) == (0, "")
    assert get(parsed(ran.out), "qctl_queue_jobs", queue="q", prefix="bull", state="waiting") == 1
    assert "qctl_jobs_finished" not in ran.out


def test_json(redis_url: str, client: Client) -> None:
    put(client, "1", "active")
    reading = json.loads(typed(redis_url, "--json").out)
    assert (reading["up"], reading["error"], reading["processes"]) == (True, None, [])
    (queue,) = reading["queues"]
    assert (queue["name"], queue["counts"]["stalled"], queue["workers"]) == ("q", 1, 0)


def test_a_broken_queue_is_told_beside(redis_url: str, client: Client) -> None:
    put(client, "1")
    client.call("SET", "bull:odd:meta", "x")
    ran = typed(redis_url)
    assert get(parsed(ran.out), "qctl_queues_unreadable") == 1
    assert ran.err.startswith("queue 'odd' cannot be read")


def test_redis_away_is_exit_6_when_printed() -> None:
    ran = typed("redis://:s3cret@127.0.0.1:1/0")
    assert (ran.code, ran.out) == (6, "")
    assert "s3cret" not in ran.err


def test_without_the_package(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda _: None)
    for words in ([], ["--serve", ":9120"]):
        ran = typed(redis_url, *words)
        assert ran.code == 1
        assert ran.err.endswith(f"try: {install_command('metrics')}\n")
    assert typed(redis_url, "--json").code == 0


@pytest.mark.parametrize(
    "words", [["--serve", "nowhere"], ["--serve", ":0"], ["--max-queues", "0"]]
)
def test_wrong_words(redis_url: str, words: list[str]) -> None:
    assert typed(redis_url, *words).code == 2


class Served:
    """A ``qctl metrics --serve`` of its own."""

    def __init__(self, url: str, *words: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qctl", "metrics", "--serve", f":{self.port}", *words],
            env={
                **os.environ,
                "QCTL_REDIS_URL": url,
                "XDG_CONFIG_HOME": "/nonexistent",
                "PM2_HOME": "/nonexistent",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()

    def scrape(self) -> Series:
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return parsed(answer.read().decode())

    def finished(self, result: str = "completed") -> float | None:
        labels = {"queue": "q", "prefix": "bull", "result": result}
        return get(self.scrape(), "qctl_jobs_finished_total", **labels)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        assert said == ""
        return self.process.returncode


def clients_since(client: Client) -> int:
    """How many clients have connected after this one; those of an earlier test may still end."""
    own = client.call("CLIENT", "ID")
    lines = str(client.call("CLIENT", "LIST")).splitlines()
    return sum(int(line.partition(" ")[0].removeprefix("id=")) > own for line in lines)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(url: str, *words: str) -> Served:
        started.append(Served(url, *words))
        return started[-1]

    yield start
    for served in started:
        served.process.kill()
        served.process.communicate()


def test_served_until_sigterm(redis_url: str, client: Client, serve: Callable[..., Served]) -> None:
    put(client, "1")
    served = serve(redis_url)
    assert served.first_line == f"serving http://127.0.0.1:{served.port}/metrics\n"
    assert get(served.scrape(), "qctl_queue_jobs", queue="q", prefix="bull", state="waiting") == 1
    wait_until(lambda: served.finished() == 0, "the queue to be followed")
    for name in ("active", "completed"):
        client.call("XADD", Q("events"), "*", "event", name, "jobId", "1")
    wait_until(lambda: served.finished() == 1, "the job to be counted")
    assert get(served.scrape(), "qctl_job_duration_seconds_count", queue="q", prefix="bull") == 1
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(served.scrape) for _ in range(8)]:
            assert get(future.result(), "qctl_up") == 1
    # A client that sends nothing, or hangs up, is not mentioned.
    for sent in (b"", b"GET /met", b"nonsense\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), 30) as client_socket:
            client_socket.sendall(sent)
    # One connection for all scrapes, one for the events.
    wait_until(lambda: clients_since(client) == 2, "one connection for each")
    # Another one on the same port says what to do.
    ran = typed(redis_url, "--serve", f"127.0.0.1:{served.port}")
    assert ran.code == 1
    assert "cannot listen on" in ran.err
    assert served.end() == 0


def test_redis_comes_and_goes(
    start_redis: Callable[..., RedisServer], serve: Callable[..., Served]
) -> None:
    server = start_redis("--requirepass", "s3cret")
    url = server.url_for("", "s3cret")
    with contextlib.closing(connect(url)[1]) as client:
        put(client, "1")
    served = serve(url, "--json")
    assert json.loads(served.first_line) == {"serving": f"http://127.0.0.1:{served.port}/metrics"}
    wait_until(lambda: served.finished() == 0, "the queue to be followed")
    with contextlib.closing(connect(url)[1]) as client:
        client.call("XADD", Q("events"), "*", "event", "failed", "jobId", "1")
    wait_until(lambda: served.finished("failed") == 1, "the job to be counted")
    server.stop()
    series = served.scrape()
    assert get(series, "qctl_up") == 0
    assert get(series, "qctl_scrape_errors_total", kind="unreachable") == 1
    assert get(series, "qctl_jobs_finished_total", queue="q", prefix="bull", result="failed") == 1
    assert get(series, "qctl_queues") is None
    server.start()
    with contextlib.closing(connect(url)[1]) as client:
        put(client, "2")
    wait_until(lambda: get(served.scrape(), "qctl_up") == 1, "Redis to be read again")
    assert served.end() == 0
