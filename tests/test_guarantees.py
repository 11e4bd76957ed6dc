"""Every test that docs/guarantees.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/guarantees.md"
# `tests/x/test_y.py::test_z`, or `::test_z` of the file named before it in the same row.
NAMED = re.compile(r"`(?:…|(tests/[\w/]+\.py))?(?:::(test_\w+))?`")


def named() -> list[tuple[str, str]]:
    """Of each test that is named: its file, and its name or "" for all of the file."""
    found = []
    for line in PAGE.read_text().splitlines():
        file = ""
        for match in NAMED.finditer(line):
            file = match[1] or file
            if file and (match[1] or match[2]):
                found.append((file, match[2] or ""))
    return found


def test_tests_are_named() -> None:
    assert len(named()) > 100


@pytest.mark.parametrize("file", sorted({file for file, _ in named()}))
def test_they_exist(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    tests = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    missing = {name for path, name in named() if path == file and name} - tests
    assert not missing
