"""Output that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qctl.runtime.api.queue import Queue
from tests.labs.cli import run

FULL = Path("/dev/full")

COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "table": ["status"],
    "json": ["status", "--json"],
    "ndjson": ["status", "--output", "ndjson"],
    "settings": ["config", "view"],
    "completion": ["completion", "bash"],
    "metrics": ["metrics"],
}


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_full_disk_is_named(kind: str, redis_url: str) -> None:
    with Queue("q", redis_url=redis_url) as queue:
        queue.add("x")
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "qctl", *COMMANDS[kind]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "QCTL_REDIS_URL": redis_url},
            timeout=60,
            check=False,
        )
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines[:2] == ["error: the output cannot be written", "No space left on device"]
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_is_wrapped_between_words_on_a_terminal(redis_url: str) -> None:
    words = ["jobs", "list", "q", "--state", "failed", "--where", f"{'status = 1 and ' * 9}status"]
    piped = run(*words, QCTL_REDIS_URL=redis_url).err.splitlines()
    shown = run(*words, QCTL_REDIS_URL=redis_url, terminal=True, NO_COLOR="1").err.splitlines()
    fields = next(line for line in piped if line.startswith("fields: "))
    assert len(fields) > 80
    assert fields not in shown
    assert fields.replace(" ", "") in "".join(shown).replace(" ", "")
    # What is to be copied, or points to a place in the line above, stays as it is.
    assert [line for line in piped if line[:1] in {"t", " "}] == [
        line for line in shown if line[:1] in {"t", " "}
    ]


def test_an_error_is_coloured_only_on_a_terminal_that_wants_it() -> None:
    words = ("jobs", "show", "q", "1", "--redis", "redis://127.0.0.1:1")
    plain = run(*words).err
    assert plain.startswith("error: ")
    assert "\x1b" not in plain
    coloured = run(*words, terminal=True).err
    assert coloured.startswith("\x1b[1;31merror:\x1b[0m ")
    assert "\x1b[1mtry:\x1b[0m " in coloured
    for unwanted in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert run(*words, terminal=True, **unwanted).err == plain
    assert run(*words, "--no-color", terminal=True).err == plain
