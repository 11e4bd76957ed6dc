"""The command that installs an extra, typed as printed, in real installations where possible."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qctl import extras

ROOT = Path(__file__).parents[1]
PRINT = "from qctl.extras import install_command; print(install_command('metrics'))"


@pytest.mark.parametrize("extra", ["top", "metrics", "demo", "mcp", "otel"])
def test_the_command_works_where_qctl_runs(extra: str) -> None:
    # Nothing is fetched: here the extras are installed.
    words = [*shlex.split(extras.install_command(extra)), "--no-index", "--dry-run"]
    if "--editable" in words:
        pytest.importorskip("editables")  # what builds it, without an index
        words.append("--no-build-isolation")
    assert f"{ROOT}[{extra}]" in words
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "already satisfied" in done.stdout


def test_an_environment_without_pip_is_named_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    expected = ["uv", "pip", "install", "--python", sys.executable, "--editable", f"{ROOT}[top]"]
    assert shlex.split(extras.install_command("top")) == expected


class Record:
    """The record of where a package came from, as installers write it (PEP 610)."""

    def __init__(self, fields: Mapping[str, Any] | None) -> None:
        self.text = None if fields is None else json.dumps(fields)

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.text


@pytest.mark.parametrize(
    ("fields", "package"),
    [
        (None, "qctl[top]"),
        ({"url": f"file://{ROOT}", "dir_info": {}}, f"{ROOT}[top]"),
        ({"url": "file:///nonexistent/qctl", "dir_info": {}}, "qctl[top]"),
        ({"url": "https://e.org/q.whl", "archive_info": {}}, "qctl[top] @ https://e.org/q.whl"),
        (
            {"url": "https://e.org/q.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "qctl[top] @ git+https://e.org/q.git@abc",
        ),
    ],
)
def test_qctl_is_installed_from_where_it_came(
    monkeypatch: pytest.MonkeyPatch, fields: Mapping[str, Any] | None, package: str
) -> None:
    monkeypatch.setattr(extras, "distribution", lambda _: Record(fields))
    assert shlex.split(extras.install_command("top"))[-1] == package


@pytest.mark.parametrize(
    ("file", "tool"), [("pipx_metadata.json", "pipx"), ("uv-receipt.toml", "uv tool")]
)
def test_a_tool_keeps_the_extras_that_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, tool: str
) -> None:
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(extras, "distribution", lambda _: Record(None))
    monkeypatch.setattr(extras, "find_spec", lambda module: module == "textual" or None)
    assert extras.install_command("metrics") == f"{tool} install --force 'qctl[metrics,top]'"


def test_the_single_file_names_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert extras.install_command("demo").endswith("(`qctl help install`)")


@pytest.mark.parametrize("tool", ["pipx", "uv tool"])
@pytest.mark.skipif(not os.environ.get("QCTL_INSTALLERS"), reason="QCTL_INSTALLERS=1: fetches")
def test_a_tool_installs_it_by_the_printed_command(tool: str, tmp_path: Path) -> None:
    """In a folder of its own, from this checkout; what qctl needs comes from the index."""
    program = tool.split(maxsplit=1)[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: `pip install {program}`")
    environ = {
        **os.environ,
        "PIPX_HOME": str(tmp_path / "tools"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "UV_TOOL_DIR": str(tmp_path / "tools"),
        "UV_TOOL_BIN_DIR": str(tmp_path / "bin"),
    }

    def run(*words: str | Path) -> str:
        return subprocess.run(
            words,
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        ).stdout

    run(*tool.split(), "install", f"{ROOT}[testing]")
    (python,) = (tmp_path / "tools").glob("**/qctl/bin/python")
    words = shlex.split(run(python, "-c", PRINT))
    assert words == [*tool.split(), "install", "--force", f"{ROOT}[metrics,testing]"]
    run(*words)
    run(python, "-c", "import prometheus_client, fakeredis")
    assert run(tmp_path / "bin/qctl", "--version").startswith("qctl ")
