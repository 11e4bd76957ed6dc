"""The command that installs an extra, typed as printed."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from qctl import extras


@pytest.mark.parametrize("extra", ["top", "metrics", "demo", "mcp"])
def test_the_command_works_where_qctl_runs(extra: str) -> None:
    # Nothing is fetched: here the extras are installed.
    words = [*shlex.split(extras.install_command(extra)), "--no-index", "--dry-run"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "already satisfied" in done.stdout


def test_an_environment_without_pip_is_named_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    expected = ["uv", "pip", "install", "--python", sys.executable, "qctl[top]"]
    assert shlex.split(extras.install_command("top")) == expected
