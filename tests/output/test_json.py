"""Results as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from qctl.output.json import TOO_DEEP, dumps


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    at: datetime | None
    data: Any


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    items: tuple[Inner, ...]


def test_dataclasses_become_objects_with_fields_in_order() -> None:
    moment = datetime(2026, 1, 31, 13, 0, 0, 123_999, timezone(timedelta(hours=1)))
    result = Outer("q", (Inner(moment, {"a": [1]}), Inner(None, None)))
    assert dumps(result) == (
        '{"name": "q", "items": [{"at": "2026-01-31T12:00:00.123Z", "data": {"a": [1]}},'
        ' {"at": null, "data": null}]}'
    )


def test_a_whole_second_still_has_milliseconds() -> None:
    assert dumps(datetime(2026, 1, 1, tzinfo=UTC)) == '"2026-01-01T00:00:00.000Z"'


def test_lone_surrogates_and_line_ends_survive_on_one_ascii_line() -> None:
    text = "a\udcff\n\u2028é"
    line = dumps({"name": text})
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {"name": text}


def test_numbers_that_json_does_not_have_become_null() -> None:
    result = Outer("q", (Inner(None, {"x": float("nan"), "y": [float("inf"), 1.5]}),))
    assert json.loads(dumps(result))["items"][0]["data"] == {"x": None, "y": [None, 1.5]}


def test_nesting_that_python_cannot_write_is_cut() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    written = json.loads(dumps(Outer("q", (Inner(None, deep), Inner(None, [1])))))
    assert TOO_DEEP in json.dumps(written["items"][0])
    assert written["items"][1]["data"] == [1]


def test_other_plain_types() -> None:
    assert json.loads(dumps([Colour.RED, Path("/x"), MappingProxyType({"a": 1}), {"b"}])) == [
        "red",
        "/x",
        {"a": 1},
        ["b"],
    ]


def test_a_type_without_a_form_is_an_error() -> None:
    with pytest.raises(TypeError, match="object"):
        dumps(object())
