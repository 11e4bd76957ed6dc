"""What an operator types, what failed jobs say, and qctl's own files."""

from __future__ import annotations

import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Address
from qctl.durations import duration, parse_duration_s, short_duration
from qctl.errors import UsageError
from qctl.ops.doctor_errors import DoctorMemory
from qctl.ops.jobs.model import Job
from qctl.ops.jobs.shape import MAX_SHAPE, shape_of
from qctl.ops.jobs.where import parse_where
from qctl.ops.queues.names import QueueNameCache
from qctl.ops.times import local_time_remark, parse_time
from qctl.output.text import visible
from tests.labs.fuzzing import ANY_TEXT, JSON, TEXT, assert_clean, assert_json, broken_rows, fuzz

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = st.sampled_from(
    (
        *(
            "data.a",
            "data.a.b",
            "name",
            "id",
            "failed_reason",
            "attempts_made",
            "(",
            ")",
            "5",
            "'x'",
        ),
        *("=", "!=", "~", "<", ">=", "and", "or", "not", "1e999", "null", "[", "5m"),
        *("(a+)+$", "((a*)*)*b"),
    )
)


@fuzz(text=st.lists(WORDS | TEXT, max_size=10).map(" ".join) | ANY_TEXT, data=JSON, name=ANY_TEXT)
def test_where(text: str, data: Any, name: str) -> None:
    try:
        test = parse_where(text)
    except UsageError as error:
        assert_clean(*map(visible, error.lines))
        return
    job = Job(id="1", name=name, state="failed", data={"a": data}, failed_reason=name)
    assert test(job) in {True, False}


@fuzz(length=st.integers(1, 3000), wanted=st.sampled_from(("~ 'aab'", "~ '(a+)+$'", "~ 'a.*a.*b'")))
def test_long_texts_are_searched_soon(length: int, wanted: str) -> None:
    test = parse_where(f"name {wanted}")
    assert not test(Job(id="1", name="a" * length + "!", state="failed"))


@fuzz(reason=ANY_TEXT)
def test_shapes(reason: str) -> None:
    shape = shape_of(reason)
    assert shape is not None
    assert len(shape) <= MAX_SHAPE
    assert_clean(visible(shape))


@fuzz(text=ANY_TEXT | st.from_regex(r"\d{1,400}\.?\d*(ms|s|m|h|d)?", fullmatch=True))
def test_durations_and_times(text: str) -> None:
    try:
        seconds = parse_duration_s(text, "--timeout")
        assert duration(seconds)
        assert short_duration(seconds)
    except UsageError as error:
        assert_clean(*map(visible, error.lines))
    try:
        at = parse_time(text, NOW)
    except UsageError as error:
        assert_clean(*map(visible, error.lines))
    else:
        assert_clean(visible(local_time_remark(text, at)))


RECORD = {
    "about": ["redis://localhost:6379/0", "bull"], "server": "run", "queues": [["bull", "q"]],
    "took_s": 1.0, "other_prefixes": ["x"], "count": 2, "first": ["q: no"],
}  # fmt: skip


@fuzz(text=broken_rows(RECORD | {"at_s": 1, "scanned_at_s": 1}, JSON).map(json.dumps) | ANY_TEXT)
def test_state_files(text: str) -> None:
    now = f'_at_s": {time.time()}'
    text = text.replace('_at_s": 1', now).replace('"at_s": 1', '"' + now[1:])
    with tempfile.TemporaryDirectory() as home:
        names = QueueNameCache(Path(home), Address(), Prefixes())
        memory = DoctorMemory(Path(home), Address(), Prefixes(), "run")
        for path in (names.path, memory._file.path):
            path.parent.mkdir()
            path.write_bytes(text.encode(errors="replace"))
        assert_json(names.read())
        found = memory.recall()
        assert_json(found)
        assert found is None or found.count > 0
