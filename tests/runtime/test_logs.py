"""Structured log lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from qctl.runtime import logs
from qctl.runtime.logs import Log


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    logger = logging.getLogger("qctl")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def written(style: str, message: str = "a message", **fields: object) -> str:
    stream = io.StringIO()
    logs.configure(style, stream=stream)
    Log("worker", queue="q").warning(message, **fields)
    return stream.getvalue()


def test_a_line_of_text() -> None:
    line = written("text", jobs=3, why="no answer", empty="", quoted='say "x"')
    clock, rest = line.split(" ", 1)
    assert len(clock) == len("12:00:01")
    assert rest == (
        'WARNING a message queue=q jobs=3 why="no answer" empty="" quoted="say \\"x\\""\n'
    )


def test_a_line_of_json() -> None:
    row = json.loads(written("json", jobs=[1], other=object))
    assert row.pop("at").endswith("Z")
    assert row == {
        "level": "warning", "logger": "qctl.worker", "message": "a message", "queue": "q",
        "jobs": [1], "other": "<class 'object'>",
    }  # fmt: skip


@pytest.mark.parametrize("style", logs.FORMATS)
@pytest.mark.parametrize(
    "hostile", ["two\nlines", "\x1b[31mred", "\r", "\u2028", "\u202e", "\ud800"]
)
def test_what_others_wrote_stays_on_one_line(style: str, hostile: str) -> None:
    line = written(style, f"message {hostile}", field=hostile)
    assert line.count("\n") == 1
    assert len(line.splitlines()) == 1
    assert not {"\x1b", "\r", "\u2028", "\u202e"} & set(line)
    line.encode()


def test_a_level_that_is_off_costs_no_line() -> None:
    stream = io.StringIO()
    logs.configure(level=logging.ERROR, stream=stream)
    Log("worker").warning("unheard")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("style", logs.FORMATS)
def test_a_traceback_is_included(style: str) -> None:
    stream = io.StringIO()
    logs.configure(style, stream=stream)
    try:
        int("inner")
    except ValueError:
        logging.getLogger("qctl.app").exception("trouble")
    assert "ValueError: invalid literal" in stream.getvalue()
    if style == "json":
        assert "Traceback" in json.loads(stream.getvalue())["traceback"]


def test_an_app_that_configures_logging_itself_gets_the_fields(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Log("worker", queue="q").error("message", job="1")
    assert vars(caplog.records[0])["qctl_fields"] == {"queue": "q", "job": "1"}
    assert caplog.records[0].getMessage() == "message queue=q job=1"
