"""What the runtime reads from other processes: a master's control socket, its children, jobs."""

from __future__ import annotations

import asyncio
import json

from hypothesis import strategies as st

from qctl.runtime.job.policy import backoff_s, keep_rule, policy_of
from qctl.runtime.processes import control
from qctl.runtime.processes.messages import ChildState, decode, from_row
from tests.fuzz.cases import Master, Reader, Writer
from tests.labs.fuzzing import ANY_TEXT, JSON, broken_rows, encoded, fuzz

REQUESTS = st.fixed_dictionaries(
    {"do": st.sampled_from(("state", "replace", "stop")) | JSON}, optional={"slot": JSON}
)


@fuzz(line=encoded(REQUESTS) | encoded(JSON) | ANY_TEXT)
def test_requests_to_a_master(line: str) -> None:
    master, writer = Master(), Writer()
    asyncio.run(control.answer(master, Reader(line.encode(errors="replace")), writer))  # type: ignore[arg-type]
    if writer.data:
        assert isinstance(json.loads(writer.data), dict)
    if master.replaced:
        request = json.loads(line)
        assert request["do"] == "replace"
        slot = request.get("slot")
        assert slot is None or (type(slot) is int and slot == 0)


STATE = {"kind": "state", "busy": 1, "done": 2, "rss_bytes": 3, "late": ""}


@fuzz(data=encoded(broken_rows(STATE, JSON)) | encoded(JSON) | ANY_TEXT)
def test_messages_of_a_child(data: str) -> None:
    row = decode(data.encode(errors="replace"))
    assert from_row(ChildState, row) is not None


@fuzz(opts=encoded(JSON) | ANY_TEXT)
def test_options_of_a_job(opts: str) -> None:
    policy = policy_of(opts)
    assert policy.attempts is not None
    for rule in (policy, opts):
        keep_rule(rule)
    if not policy.backoff_kind or policy.backoff_kind in {"fixed", "exponential"}:
        assert backoff_s(policy, 1, ValueError("x"), {}) >= -1
