"""The language of --where, and --since."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.errors import UsageError
from qctl.ops.jobs.model import Job
from qctl.ops.jobs.where import FIELDS, parse_where

JOB = Job(
    id="12",
    name="send mail",
    state="active",
    data={
        "user": {"id": 42, "name": "Zoë", "tags": []},
        "items": [{"sku": "A-1"}, {"sku": "B-2"}],
        "n": None,
        "ok": True,
        "code": "0042",
        "big": 10**400,
        "at": "2026-01-31T12:00:00Z",
    },
    opts={"attempts": 3, "backoff": {"type": "fixed"}},
    attempts_made=2,
    attempts_started=3,
    attempts_max=3,
    worker="w:1",
    runtime_s=75.5,
    failed_reason='Request Timeout\n"oh"',
    progress={"done": 5},
)
MISSING = Job(id="9", name=None, state="waiting", missing=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id = 12", True),
        ("id = '12'", True),
        ("id == 12", True),
        ("id = 012", False),
        ("id = 12.0", False),
        ("id = 1.2e1", False),
        ("id != 012", True),
        ("id >= 12.0", True),
        ("id = '012'", False),
        ("runtime_s != null and attempts_made ~ 2", True),
        ("id != 12", False),
        ("id < 13", True),
        ("name = 'send mail'", True),
        ('name = "send mail"', True),
        ("name=send", False),
        ("name ~ SEND", True),
        ("name ~ 'd m'", True),
        ("state = active", True),
        ("attempts_made >= 2", True),
        ("attempts_made > 2", False),
        ("runtime_s > 75.4", True),
        ("runtime_s > 7.55e1", False),
        ("worker = w:1", True),
        ("error ~ timeout", True),
        ("error ~ '\"oh\\\"'", True),
        ("progress.done = 5", True),
        ("progress ~ done", True),
        ("data.user.id = 42", True),
        ("data.user.id = '42'", False),
        ("data.user.id <= 42.0", True),
        ("data.user.name ~ zoË", True),
        ("data.code = 42", False),
        ("data.code = 0042", True),
        ("data.code > 41", True),
        ("data.user.id = 042", True),
        ("data.code = '0042'", True),
        ("data.items.0.sku = A-1", True),
        ("data.items.1.sku ~ b", True),
        ("data.items.2.sku = null", True),
        ("data.items.99999999999999999999.sku = null", True),
        ("data.items.-1.sku = null", True),
        ("data.user ~ 42", True),
        ("data.n = null", True),
        ("data.n != null", False),
        ("data.none = null", True),
        ("data.none != 5", True),
        ("data.none < 5", False),
        ("data.none >= 5", False),
        ("data.none ~ x", False),
        ("data.ok = true", True),
        ("data.ok != false", True),
        ("data.ok = 1", False),
        ("data.ok = 'true'", False),
        ("data.ok < 5", False),
        ("data.big > 1e300", True),
        ("data.big < 5", False),
        ("data.at >= 2026-01-31", True),
        ("data.at < '2026-02'", True),
        ("opts.backoff.type = fixed", True),
        ("opts.attempts = 3 and priority = 0", True),
        ("id = 1 or id = 12", True),
        ("id = 12 and id = 1", False),
        ("id = 12 or id = 1 and id = 2", True),
        ("(id = 12 or id = 1) and id = 2", False),
        ("not id = 1", True),
        ("not (id = 12)", False),
        ("not not id = 12", True),
        ("NOT id = 1 AND NOT id = 2 OR id = 3", True),
        ("((((id=12))))", True),
        ("id = 12 and(id = 12)", True),
    ],
)
def test_expressions(text: str, expected: bool) -> None:
    assert parse_where(text)(JOB) is expected


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_can_be_asked_for(field: str) -> None:
    assert parse_where(f"{field} ~ ''")(JOB)
    assert parse_where(f"{field} ~ ''")(MISSING)


def test_a_job_without_a_record_has_null_everywhere() -> None:
    assert parse_where("name = null and data.x = null and opts.y = null")(MISSING)


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", 1, "a field"),
        ("   ", 1, "a field"),
        ("id", 3, "expected one of"),
        ("id =", 5, "a value"),
        ("id = ", 5, "a value"),
        ("id 5", 4, "expected one of"),
        ("id = 5 x", 8, "quotation marks"),
        ("id = 5)", 7, "no '('"),
        ("(id = 5", 1, "not closed"),
        ("(id = 5 x", 9, "')'"),
        ("idd = 5", 1, "did you mean id"),
        ("foo = 5", 1, "no such field"),
        ("data = 5", 1, "data.user.id"),
        ("data..x = 5", 1, "no such field"),
        ("data. = 5", 1, "no such field"),
        ("state.x = 5", 1, "no such field"),
        ("id = 'x", 6, "quotation mark"),
        ("id = 'x" + r"\"" * 50_000, 6, "quotation mark"),
        ("id = 5 and", 11, "a field"),
        ("and = 5", 1, "a field"),
        ("id < true", 6, "< needs a number or text, not true"),
        ("id = " + "1" * 5000, 6, "too large"),
        ("attempts_made < 1e999", 17, "too large"),
        ("attempts_made < attempts_max", 17, "compared with a number"),
        ("not runtime_s >= 60s", 18, "compared with a number"),
        ('attempts_made != "3"', 18, "compared with a number"),
        ("priority = false", 12, "compared with a number"),
        ("data.items[0].sku = x", 1, "data.items.0.id"),
        ("id = = 5", 6, "a value"),
        ("id ! 5", 4, "expected one of"),
        ("(" * 60 + "id=1" + ")" * 60, 51, "more than 50"),
        ("not " * 5000 + "id=1", 201, "more than 50"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_where(text)
    assert caught.value.what.startswith(f"--where, column {column}: ")
    assert problem in caught.value.what
    line, caret, *_ = caught.value.why.split("\n")
    assert caret.strip() == "^"
    assert len(caret) <= len(line) + 1


def test_an_error_in_a_long_expression_shows_its_surroundings() -> None:
    text = "id = 1 or " * 100 + "idd = 5"
    with pytest.raises(UsageError) as caught:
        parse_where(text)
    line, caret, *_ = caught.value.why.split("\n")
    assert line[len(caret) - 1 :].startswith("idd")
    assert len(line) < 80


def test_many_alternatives_are_no_depth() -> None:
    assert parse_where(" or ".join(["id = 1"] * 5000 + ["id = 12"]))(JOB)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner),
    max_leaves=10,
)
WORDS = "data.a data.a.0.b opts.b and or not ( ) = != < <= > >= ~ 5 -1.5e3 true null word"
PIECES = [*FIELDS, *WORDS.split(), "'x y'", '"q\\""', "1" * 5000, "1e999"]
pieces = st.sampled_from(PIECES)


@given(st.lists(pieces | st.text(max_size=5), max_size=12).map(" ".join), json_values)
def test_any_text_is_an_expression_or_a_usage_error(text: str, data: Any) -> None:
    try:
        test = parse_where(text)
    except UsageError:
        return
    assert test(Job(id="1", name="n", state="failed", data=data)) in {True, False}


@given(
    json_values,
    st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]),
    st.sampled_from(["5", "x", "'5'", "1e999", "-0", "true", "null"]),
)
def test_any_data_can_be_compared(data: Any, op: str, value: str) -> None:
    try:
        test = parse_where(f"data.a {op} {value}")
    except UsageError:
        return
    assert test(Job(id="1", name="n", state="failed", data={"a": data})) in {True, False}


@pytest.mark.parametrize("typed", ["1", "01", "1.0", "1e0", "true", "false"])
@pytest.mark.parametrize("field", ["id", "name", "worker", "error", "data.key"])
def test_text_is_compared_as_it_is_typed(field: str, typed: str) -> None:
    """Else ``--where 'id = 1'`` would delete job 01 as well."""
    for text in ("1", "01", "1.0", "1e0", "true", "false"):
        job = Job(
            id=text, name=text, state="failed", worker=text, failed_reason=text, data={"key": text}
        )
        # In JSON, true is a value of its own.
        expected = text == typed and (field != "data.key" or typed[0] not in "tf")
        assert parse_where(f"{field} = {typed}")(job) is expected
        assert parse_where(f"{field} != {typed}")(job) is not expected
        assert parse_where(f"{field} = '{typed}'")(job) is (text == typed)
