"""Hints: every command that one names can be typed."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.cli import check_hint

SRC = Path(__file__).parents[2] / "src/qctl"


def texts(node: ast.expr) -> Iterator[str]:
    """What an expression may say, with X for what is known only when it runs."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            for parts in itertools.product(*map(list, map(texts, values))):
                yield "".join(parts)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*texts(body), *texts(orelse))
        case ast.BoolOp(values=values):
            yield from itertools.chain(*map(texts, values))
        case ast.BinOp(left=left, right=right):
            for parts in itertools.product(texts(left), texts(right)):
                yield "".join(parts)
        case _:
            yield "X"


def test_the_commands_in_all_hints_exist() -> None:
    hints = {
        text
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg in {"hint", "remedy"}
        for text in texts(node.value)
        if "qctl " in text
    }
    assert hints
    for hint in sorted(hints):
        check_hint(hint)


@pytest.mark.parametrize(
    ("hint", "commands"),
    [
        ("qctl status", 1),
        ("correct it: qctl config path", 1),
        ("fix the app, then qctl worker restart X", 1),
        ("name the target (see `qctl worker list`)", 1),
        ("qctl shows it", 0),
        ("resume it with qctl only", 0),
        ("install qctl[top]", 0),
    ],
)
def test_commands_are_found_in_prose(hint: str, commands: int) -> None:
    assert check_hint(hint) == commands


@pytest.mark.parametrize(
    "hint",
    [
        "qctl statsu",
        "correct it: qctl config paths",
        "see `qctl worker lst`",
        "use it once, qctl jobs retry-faild runs them again",
        "see `qctl jobs list emails --stat failed`",
    ],
)
def test_a_wrong_command_is_found(hint: str) -> None:
    with pytest.raises(Exception, match=r"statsu|paths|lst|faild|--stat"):
        check_hint(hint)
