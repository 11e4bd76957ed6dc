"""What a process wrote before it died: samples of what Node, PM2 and Python really write."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.manage.last_words import error_first, last_words, log_size
from tests.labs.doctor import APP
from tests.labs.node import node

NODE = {
    "throw": (
        "setTimeout(() => { throw new Error('a setting is missing\\nsecond line') }, 1)",
        ["Error: a setting is missing", "second line", "    at Timeout._onTimeout"],
    ),
    "text": ("throw 'just text'", ["just text", "(Use `node"]),
    "promise": (
        "Promise.reject(new Error('in a promise', { cause: new TypeError('root') }))",
        ["Error: in a promise", "    at", "    ... "],
    ),
    "module": ("require('./nope')", ["Error: Cannot find module './nope'", "Require stack:"]),
    "syntax": ("foo(;", ["SyntaxError: "]),
    "logged": (
        "console.error('starting'); console.error(new RangeError('no port')); console.error('bye')",
        ["RangeError: no port", "    at Object.<anonymous>"],
    ),
}
PYTHON = """
def f():
    raise ValueError('bad')
try:
    f()
except ValueError as error:
    raise RuntimeError('no database today') from error
"""


@pytest.mark.parametrize("kind", NODE)
@pytest.mark.parametrize("stamp", ["", "2026-11-30T06:28:27: ", "[11/30 06:28 +00:00]: "])
def test_what_node_says_begins_with_the_error(tmp_path: Path, kind: str, stamp: str) -> None:
    code, expected = NODE[kind]
    script = tmp_path / "app.js"
    script.write_text(code)
    done = subprocess.run(
        [*node(), str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    # A crash loop has said the same before, and PM2 can put a date before each line.
    lines = [stamp + line for line in (done.stderr * 2).split("\n")]
    words = error_first(lines)
    assert len(words) <= 10
    for line, begins in zip(words, expected, strict=False):
        assert line.startswith(begins), words
    assert "node:internal" not in "".join(words)


def test_what_python_says_begins_with_the_error(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(PYTHON)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    words = error_first([*done.stderr.splitlines(), "process died exit=1"])
    assert words[0] == "RuntimeError: no database today"
    assert words[-1].strip().startswith("raise RuntimeError")


def test_without_an_error_the_last_lines_are_what_there_is() -> None:
    assert error_first([]) == []
    assert error_first(["a", "", "b"]) == ["a", "b"]
    assert error_first([str(n) for n in range(30)]) == [str(n) for n in range(20, 30)]
    assert error_first(["Error: early", "late"]) == ["Error: early", "late"]


def test_without_a_log() -> None:
    assert last_words(replace(APP, error_log=None)) == []
    assert log_size(replace(APP, error_log=None)) == 0
