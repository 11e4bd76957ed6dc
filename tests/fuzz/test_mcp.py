"""The arguments of an agent, and what its commands print."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import strategies as st

from qctl.errors import UsageError
from tests.labs.fuzzing import ANY_TEXT, JSON, TEXT, assert_clean, assert_json, encoded, fuzz

pytest.importorskip("mcp")
jsonschema = pytest.importorskip("jsonschema")
from qctl.cli.mcp.bounds import MAX_CHARACTERS, bounded  # noqa: E402
from qctl.cli.mcp.calls import Runner, _error_of, _result_of  # noqa: E402
from qctl.cli.mcp.tools import TOOLS  # noqa: E402

NAMES = sorted({name for tool in TOOLS for name in tool.schema["properties"]})


@fuzz(tool=st.sampled_from(TOOLS), arguments=st.dictionaries(st.sampled_from(NAMES),
      JSON | TEXT | st.lists(TEXT, max_size=2), max_size=4))  # fmt: skip
def test_arguments(tool: Any, arguments: dict[str, Any]) -> None:
    if not jsonschema.Draft202012Validator(tool.schema).is_valid(arguments):
        return
    try:
        words = tool.words(arguments)
    except UsageError:
        return
    own = {option for each in tool.command.params for option in (*each.opts, *each.secondary_opts)}
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert flags <= own
    assert not flags & {"--yes", "--redis", "--confirm"}


@fuzz(out=encoded(JSON) | ANY_TEXT, err=ANY_TEXT)
def test_output_of_a_command(out: str, err: str) -> None:
    result, _ = _result_of(out)
    assert_json(result)
    _error_of(err.splitlines())
    runner = Runner((), {})
    outcome = runner._outcome(
        1, io.BytesIO(out.encode(errors="replace")), io.BytesIO(err.encode(errors="replace"))
    )
    assert_json(outcome)


@fuzz(value=JSON | st.lists(ANY_TEXT, max_size=8) | st.dictionaries(ANY_TEXT, JSON, max_size=4))
def test_results_are_cut(value: Any) -> None:
    found, remarks = bounded(value)
    assert len(json.dumps(found)) <= MAX_CHARACTERS * 2
    json.dumps([found, remarks]).encode()
    assert_clean(*(remark.encode("unicode_escape").decode() for remark in remarks))
