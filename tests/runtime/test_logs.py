"""Structured log lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from qctl import Job, JobFields
from qctl.runtime import logs
from qctl.runtime.job.current import set_current_job
from qctl.runtime.job.job import Link
from qctl.runtime.logs import Log
from qctl.wire.keys import QueueKeys


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("qctl")]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


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
    logs.configure(level="error", stream=stream)
    Log("worker").warning("unheard")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("style", logs.FORMATS)
def test_a_traceback_is_included_and_cannot_forge_a_line(style: str) -> None:
    stream = io.StringIO()
    logs.configure(style, stream=stream)
    hostile = "inner\n12:00:01 INFO forged\x1b[2J"
    try:
        int(hostile)
    except ValueError as error:
        error.args = (hostile,)
        Log("worker").with_traceback(logging.ERROR, "job failed", error, why="inner")
    written = stream.getvalue()
    assert written.count("ValueError: inner") == written.count("Traceback") == 1
    if style == "json":
        assert json.loads(written)["traceback"].endswith(hostile)
    else:
        first, *rest = written.splitlines()
        assert first.endswith(" ERROR job failed why=inner")
        assert all(line.startswith("    ") for line in rest)
        assert "\x1b" not in written


def job(job_id: str = "7") -> Job:
    link = SimpleNamespace(keys=QueueKeys("bull", "emails"))
    return Job(job_id, {"name": "welcome", "atm": "1"}, "token", cast("Link", link), 0.0)


@pytest.fixture
def in_a_job() -> Iterator[None]:
    token = set_current_job(job())
    yield
    token.var.reset(token)


def without_pytests_handlers() -> logging.Logger:
    """The root logger as it is in an app. pytest has given it handlers for this test."""
    root = logging.getLogger()
    root.handlers.clear()
    return root


def app_writes(style: str, level: str = "info") -> list[str]:
    """What qctl's handler writes of two lines of the app and one of qctl."""
    stream = io.StringIO()
    logs.configure(style, level, stream)
    logs.share_with_app()
    logging.getLogger("shop.mail").info("sent to %s", "ada\n", extra={"tries": 2, "name_": "x"})
    logging.getLogger("shop.mail").debug("unheard")
    Log("worker", queue="q").info("of qctl")
    return stream.getvalue().splitlines()


@pytest.mark.usefixtures("in_a_job")
def test_the_apps_lines_have_the_fields_of_their_job() -> None:
    without_pytests_handlers()
    assert [line.split(" ", 1)[1] for line in app_writes("text")] == [
        r"INFO shop.mail: sent to ada\n queue=emails job=7 name=welcome attempt=2",
        "INFO of qctl queue=q",
    ]
    without_pytests_handlers()
    row, own = map(json.loads, app_writes("json"))
    del row["at"], own["at"]
    assert row == {
        "level": "info", "logger": "shop.mail", "message": "sent to ada\n", "queue": "emails",
        "job": "7", "name": "welcome", "attempt": 2, "tries": 2, "name_": "x",
    }  # fmt: skip
    # qctl's line is not about the job in whose context a callback happens to run.
    assert own == {"level": "info", "logger": "qctl.worker", "message": "of qctl", "queue": "q"}


def test_the_level_counts_for_the_app_and_outside_of_a_job_there_are_no_fields() -> None:
    without_pytests_handlers()
    assert app_writes("text", "warning") == []
    without_pytests_handlers().setLevel(logging.WARNING)
    heard = app_writes("text", "debug")
    assert [line.split(" ", 1)[1] for line in heard][1:] == [
        "DEBUG shop.mail: unheard", "INFO of qctl queue=q",
    ]  # fmt: skip


@pytest.mark.usefixtures("in_a_job")
def test_an_app_with_a_logging_set_up_of_its_own_keeps_it() -> None:
    theirs = io.StringIO()
    handler = logging.StreamHandler(theirs)
    handler.setFormatter(logging.Formatter("%(job_queue)s %(job_id)s %(job_attempt)s|%(message)s"))
    handler.addFilter(JobFields())
    root = without_pytests_handlers()
    root.addHandler(handler)
    assert app_writes("json") == []
    assert root.level == logging.WARNING
    root.warning("of the app")
    assert theirs.getvalue().splitlines() == ["emails 7 2|of qctl queue=q", "emails 7 2|of the app"]


def test_a_logger_with_a_handler_of_its_own_is_not_written_twice() -> None:
    stream, own = io.StringIO(), io.StringIO()
    without_pytests_handlers()
    logs.configure(stream=stream)
    logs.share_with_app()
    library, nested = logging.getLogger("lib"), logging.getLogger("lib.part")
    handlers = [logging.StreamHandler(own), logging.NullHandler()]
    for logger, handler in zip((library, nested), handlers, strict=True):
        logger.addHandler(handler)
    try:
        nested.warning("once")
    finally:
        library.handlers.clear()
    assert (own.getvalue(), stream.getvalue()) == ("once\n", "")
    nested.warning("a library's NullHandler writes nothing")
    nested.handlers.clear()
    assert stream.getvalue().count("\n") == 1


def test_an_apps_handler_gets_the_fields_of_qctls_lines(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger().addHandler(caplog.handler)
    Log("worker", queue="q").error("message", job="1")
    assert vars(caplog.records[0])["qctl_fields"] == {"queue": "q", "job": "1"}
    assert caplog.records[0].getMessage() == "message queue=q job=1"
