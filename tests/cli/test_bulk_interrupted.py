"""A run over many jobs that is interrupted, or loses its Redis: what it says was done, was."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from tests.labs.build import row, scores
from tests.labs.bulk import fill
from tests.labs.servers import RedisServer, wait_until

COUNT = 400


class Run:
    """``qctl`` in a process of its own."""

    def __init__(self, url: str, folder: Path, *words: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("QCTL_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qctl", *words],
            env={**env, "QCTL_REDIS_URL": url, "HOME": str(folder)},
            cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        try:
            out, err = self._process.communicate(timeout=30)
        finally:
            self._process.kill()
        assert "Traceback" not in out + err
        return self._process.returncode, out, err


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """One that keeps what was written when it ends."""
    return start_redis("--appendonly", "yes")


@contextlib.contextmanager
def connected(server: RedisServer) -> Iterator[Client]:
    with contextlib.closing(connect(server.url)[1]) as client:
        yield client


def started(client: Client, run: Run) -> None:
    wait_until(lambda: len(row(client, "wait")) >= 4, "the first jobs to be retried")


WORDS = ("jobs", "retry-failed", "q", "--yes", "--rate", "40")


def said(output: str, out: str) -> int:
    """How many were done, by the report that came last."""
    if output == "table":
        assert "ended early" in out
        return int(out.removeprefix("q: ").split(" ", 1)[0])
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert report["complete"] is False
    return int(report["done"])


@pytest.mark.parametrize(
    ("number", "output"), [(signal.SIGINT, "table"), (signal.SIGTERM, "ndjson")]
)
def test_ctrl_c_ends_it_between_two_calls(
    redis_url: str, client: Client, tmp_path: Path, number: signal.Signals, output: str
) -> None:
    fill(client, COUNT)
    run = Run(redis_url, tmp_path, *WORDS, "--output", output)
    started(client, run)
    run.signal(number)
    code, out, err = run.end()
    assert code == 130
    done = said(output, out)
    assert len(row(client, "wait")) == done
    assert len(scores(client, "failed")) == COUNT - done > 0
    assert f"{done} jobs were retried before" in err


@pytest.mark.parametrize(("end", "output"), [("stop", "table"), ("kill", "json")])
def test_a_redis_that_goes_away(server: RedisServer, tmp_path: Path, end: str, output: str) -> None:
    with connected(server) as client:
        fill(client, COUNT)
        run = Run(server.url, tmp_path, *WORDS, "--output", output)
        started(client, run)
    getattr(server, end)()
    code, out, err = run.end()
    assert code == 7
    done = said(output, out)
    assert f"after {done} jobs were retried" in err
    assert f"{server.port}/0 cannot be reached" in err
    assert "the same command again" in err
    server.start()
    with connected(server) as client:
        waiting = row(client, "wait")
        # Of the last call nobody knows; each job is in one place.
        assert done <= len(waiting) <= done + 4
        assert len(scores(client, "failed")) == COUNT - len(waiting)
        # The same command once more goes on with the others.
        code, out, err = Run(server.url, tmp_path, *WORDS[:-2]).end()
        assert (code, err) == (0, "")
        assert len(row(client, "wait")) == COUNT
        assert len(set(row(client, "wait"))) == COUNT


def test_a_redis_that_was_away_from_the_start(server: RedisServer, tmp_path: Path) -> None:
    server.stop()
    code, out, err = Run(server.url, tmp_path, *WORDS).end()
    assert (code, out) == (6, "")
    assert "cannot be reached" in err


def test_ctrl_c_ends_the_question(redis_url: str, client: Client, tmp_path: Path) -> None:
    fill(client, COUNT)
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "qctl", "jobs", "retry-failed", "q", "--name", "mail"],
        env={**os.environ, "QCTL_REDIS_URL": redis_url, "HOME": str(tmp_path), "TERM": "dumb"},
        cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while b"[y/N]" not in shown:
            shown += os.read(control, 1024)
        assert f"Retry {COUNT // 2} of {COUNT} failed jobs of q?".encode() in shown
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
        os.close(control)
    assert row(client, "wait") == []
