"""``qctl help``: every page that exists is listed, and every page that is named exists."""

from __future__ import annotations

import ast
import os
import pty
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from qctl.cli.pages import TOPICS
from qctl.output.text import cells
from tests.labs.cli import run

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"qctl help ([a-z][a-z-]*)")
A_FILE = re.compile(r"\bdocs/|\b[a-z-]+\.md\b")


def test_the_list_has_every_page_with_a_line() -> None:
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} == set(TOPICS)
    ran = run("help")
    assert (ran.code, ran.err) == (0, "")
    for topic, line in TOPICS.items():
        assert re.search(rf"^{topic} +{re.escape(line)}$", ran.out, re.MULTILINE), topic
    assert max(map(cells, ran.out.splitlines())) <= 80


def test_a_pipe_gets_the_page_as_it_is() -> None:
    ran = run("help", "drain")
    assert (ran.code, ran.out) == (0, (ROOT / "docs/drain.md").read_text())


@pytest.mark.parametrize(
    ("topic", "hint"),
    [("drian", "qctl help drain"), ("status", "qctl status --help"), ("xyzzy", "qctl help")],
)
def test_an_unknown_page_gets_the_nearest(topic: str, hint: str) -> None:
    ran = run("help", topic)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1] == f"try: {hint}"


def test_a_configuration_that_cannot_be_read_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "qctl").mkdir()
    (tmp_path / "qctl/config.toml").write_text("not toml")
    assert run("help", "configuration", XDG_CONFIG_HOME=str(tmp_path)).code == 0


@pytest.mark.parametrize("topic", TOPICS)
def test_a_terminal_shows_every_page_in_its_width(topic: str) -> None:
    # An empty PAGER means none.
    ran = run("help", topic, terminal=True, PAGER="", NO_COLOR="1")
    assert ran.code == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", ran.out)
    assert "](" not in re.sub(r"^    .*$", "", plain, flags=re.MULTILINE)
    words = " ".join(plain.split())
    # A link in a cell of a table may be wrapped.
    source = re.sub(r"^\|.*$", "", (ROOT / f"docs/{topic}.md").read_text(), flags=re.MULTILINE)
    for link in {*re.findall(r"\]\(([a-z-]+)\.md", source)} & {*TOPICS}:
        assert f"qctl help {link}" in words
    # Code is never cut or wrapped.
    for block in re.findall(r"^```\w*\n(.*?)^```", source, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert f"    {line}\n" in plain
    text = [line for line in plain.splitlines() if not line.startswith("    ")]
    assert max(map(cells, text)) <= 80


def test_a_terminal_gets_the_pager(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "PAGER": f"tee {shown}"}
    done = subprocess.run(
        [sys.executable, "-m", "qctl", "help", "top"],
        env=environ, stdin=theirs, stdout=theirs, timeout=30, check=True,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert "The live view" in shown.read_text()


def test_a_missing_pager_is_no_error() -> None:
    ran = run("help", "top", terminal=True, PAGER="/nonexistent/pager")
    assert (ran.code, "The live view" in ran.out) == (0, True)


def test_pages_that_messages_and_help_texts_name_exist() -> None:
    """Texts of the package; only docstrings that are no help text may name a file of docs/."""
    named: set[str] = set()
    for path in (ROOT / "src/qctl").rglob("*.py"):
        tree = ast.parse(path.read_text())
        commands = path.parent.name == "cli"
        docstrings = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and isinstance(node.body[0], ast.Expr)
            # The docstring of a command is its help.
            and not (commands and isinstance(node, ast.FunctionDef) and node.decorator_list)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or node in docstrings:
                continue
            text = str(node.value)
            named.update(NAMED.findall(text))
            # What writes docs/ may name its files.
            if path.name not in {"reference.py", "pages.py"}:
                assert not A_FILE.search(text), f"{path.name}:{node.lineno}: {text}"
    assert named >= {"configuration", "doctor", "deploy"}
    assert named <= set(TOPICS)


def test_the_wheel_has_the_pages(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    assert {f"qctl/pages/{topic}.md" for topic in TOPICS} <= files
