"""The Python examples of the documentation run, and pass strict type checkers."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from qctl import Queue
from qctl.testing import run_until_idle
from tests.labs.node import install_node_modules, node, node_env

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages that import what is not installed here (myapp; FastAPI, Django), which has no types then.
IMPORTING = {"testing", "web-apps"}
# The first two lines of a page are its title and an empty line.
WITHOUT_IMPORTS = [
    '# mypy: disable-error-code="import-not-found,untyped-decorator"',
    "# pyright: reportMissingImports=false",
]


def write_examples(folder: Path) -> list[Path]:
    """Write the Python blocks of each page as modules, with the line numbers of the page.

    A block that begins with a comment ``# NAME.py`` begins a module; other blocks continue it.
    """
    for page in PAGES:
        modules: dict[str, list[str]] = {}
        name = "examples"
        is_code = False
        for number, line in enumerate(page.read_text().splitlines()):
            if line.startswith("```"):
                is_code = line == "```python"
                continue
            if not is_code:
                continue
            if begins := re.fullmatch(r"# ([\w/]+)\.py", line):
                name = begins[1].replace("/", "_")
            lines = modules.setdefault(name, [])
            lines += [""] * (number - len(lines)) + [line]
        for each, lines in modules.items():
            if page.stem in IMPORTING:
                lines[:2] = WITHOUT_IMPORTS
            path = folder / f"{page.stem.replace('-', '_').lower()}__{each}.py"
            path.write_text("\n".join(lines) + "\n")
    return sorted(folder.glob("*.py"))


def test_examples_run(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCTL_REDIS_URL", redis_url)
    ran = {
        path.stem: runpy.run_path(str(path), run_name=path.stem)
        for path in write_examples(tmp_path)
        if not path.name.startswith(tuple(each.replace("-", "_") for each in IMPORTING))
    }
    # What the page says about data that fits, and data that does not.
    good = {"number": 7, "due": "2026-01-31", "lines": []}
    bad = {"number": "7", "lines": []}
    right, wrong = run_until_idle(ran["worker_api__app"]["shop"], [("order", good), ("order", bad)])
    assert right.state == "completed"
    reason = str(wrong.failed_reason)
    text = " ".join((ROOT / "docs/worker-api.md").read_text().split())
    assert (wrong.state, wrong.attempts, f"`{reason}`" in text) == ("failed", 1, True), reason


def test_the_worker_of_the_readme(
    tmp_path: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QCTL_REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    (path,) = [each for each in write_examples(tmp_path) if each.name.startswith("readme")]
    assert len(path.read_text().strip().splitlines()) <= 25
    worker = runpy.run_path(str(path), run_name="app")["worker"]

    async def add_while_the_worker_runs() -> None:
        await worker.start()
        try:
            await asyncio.to_thread(runpy.run_path, str(path), run_name="__main__")
        finally:
            await worker.stop()

    asyncio.run(add_while_the_worker_runs())
    assert re.fullmatch(r"ada at \d\d:\d\d:\d\d\n", capsys.readouterr().out)
    with Queue("emails") as queue:
        assert [each.cron for each in queue.schedulers()] == ["0 7 * * 1-5"]


def test_examples_pass_mypy_strict(tmp_path: Path) -> None:
    files = write_examples(tmp_path)
    assert {"worker_api__app.py", "from_arq__app.py"} <= {each.name for each in files}
    # With the options and the cache of the check of src/, which has read most of qctl already.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, files)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_examples_pass_pyright(tmp_path: Path) -> None:
    pyright = install_node_modules() / "pyright/index.js"
    files = write_examples(tmp_path)
    done = subprocess.run(
        [*node(), str(pyright), "--outputjson", "--pythonpath", sys.executable, *map(str, files)],
        cwd=tmp_path, env=node_env(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(files)
    errors = [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in found["generalDiagnostics"]
        if each["severity"] == "error"
    ]
    assert not errors
