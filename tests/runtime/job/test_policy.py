"""What a job's options make of its end: attempts, backoff, what to keep."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.runtime.job.policy import KEEP_ALL, UnknownBackoffError, backoff_s, keep_rule, policy_of

ERROR = RuntimeError("why")
jitters = st.floats(0.01, 1)
delays = st.integers(1, 10_000_000)
attempts = st.integers(1, 12)


def delay_of(backoff: Any, attempts_made: int = 1, **custom: Any) -> float:
    policy = policy_of(json.dumps({"attempts": 50, "backoff": backoff}))
    return backoff_s(policy, attempts_made, ERROR, custom)


def test_no_backoff_is_at_once() -> None:
    for backoff in (None, 0, {}, {"type": "fixed"}, {"type": "exponential", "delay": 0}):
        assert delay_of(backoff, 3) == 0


def test_a_delay_below_nothing() -> None:
    for kind in ("fixed", "exponential"):
        assert delay_of({"type": kind, "delay": -7}) == 0
        # BullMQ's word for: no retry.
        assert delay_of({"type": kind, "delay": -1}) == -1
    assert delay_of(-1) == -1


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("9007199254740991", 2**53 - 1), ("9.007199254741e+15", 2**53), ("1e+21", 2**53),
        ("1.7976931348623157e+308", 2**53), ("1e999", 2**53), ('"3"', 3), ("2.5", 3), ("0.5", 1),
        ("true", 1), ("-4", 0), ("null", 0), ('"x"', 0), ("{}", 0), ("[3]", 0),
    ],
)  # fmt: skip
def test_attempts(text: str, allowed: int) -> None:
    assert policy_of(f'{{"attempts":{text}}}').attempts == allowed


@given(delays, attempts)
def test_fixed_and_exponential(delay_ms: int, made: int) -> None:
    assert delay_of(delay_ms, made) == delay_of({"type": "fixed", "delay": delay_ms}, made)
    assert delay_of({"type": "fixed", "delay": delay_ms}, made) == delay_ms / 1000
    growing = delay_of({"type": "exponential", "delay": delay_ms}, made)
    assert growing == delay_ms * 2 ** (made - 1) / 1000


@given(delays, attempts, jitters)
def test_jitter_takes_off_no_more_than_its_share(delay_ms: int, made: int, jitter: float) -> None:
    for kind, most_ms in (("fixed", delay_ms), ("exponential", delay_ms * 2 ** (made - 1))):
        got_ms = delay_of({"type": kind, "delay": delay_ms, "jitter": jitter}, made) * 1000
        assert math.floor(most_ms * (1 - jitter)) - 1 <= got_ms <= most_ms
        assert abs(got_ms - round(got_ms)) < 1e-3


def test_a_custom_backoff_is_asked_with_the_attempts_and_the_error() -> None:
    asked: list[Any] = []

    def mine(made: int, error: BaseException) -> float:
        asked.append((made, error))
        return -1.0

    assert delay_of({"type": "mine", "delay": 5}, 4, mine=mine) == -1
    assert asked == [(4, ERROR)]


def test_a_custom_backoff_may_take_the_place_of_a_known_one() -> None:
    assert delay_of({"type": "fixed", "delay": 5}, fixed=lambda *_: 9.0) == 9


def test_an_unknown_backoff_says_which_there_are() -> None:
    with pytest.raises(UnknownBackoffError, match="this worker has: fixed, exponential, mine"):
        delay_of({"type": "theirs"}, mine=lambda *_: 0)


def test_a_growing_delay_has_an_end() -> None:
    assert math.isfinite(delay_of({"type": "exponential", "delay": 1000}, 10_000))


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        (None, None),
        (True, "0||"),
        (False, KEEP_ALL),
        (0, "0||"),
        (5, "5||"),
        ({"count": 5}, "5||"),
        ({"age": 3600}, "-1|3600|"),
        ({"age": 3600, "count": 7, "limit": 2}, "7|3600|2"),
        ({"age": 1.5}, "-1|1.5|"),
        ({}, KEEP_ALL),
        ("", KEEP_ALL),
        # A text is true.
        ("true", "0||"),
        ("false", "0||"),
        ("100", "0||"),
        ({"age": 0}, "-1|0|"),
        ({"age": -5, "count": 2}, "2|0|"),
        ({"age": "10"}, "-1|10|"),
        ({"age": "x"}, KEEP_ALL),
        ({"count": 1e21}, KEEP_ALL),
        ([1], None),
    ],
    ids=str,
)
def test_keep_rules(option: Any, rule: str | None) -> None:
    assert keep_rule(option) == rule
    policy = policy_of(json.dumps({"removeOnComplete": option, "removeOnFail": option}))
    assert (policy.keep_completed, policy.keep_failed) == (rule, rule)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def options_of(*names: str) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(names), json_values)


@given(st.integers(0, 10**9))
def test_a_rule_for_an_age_has_all_its_digits(age: int) -> None:
    assert keep_rule({"age": age, "count": 3}) == f"3|{age}|"


@given(options_of("count", "age", "limit") | json_values)
def test_every_rule_is_one_that_the_scripts_read(option: Any) -> None:
    rule = keep_rule(option)
    assert rule is None or re.fullmatch(r"-?\d+\|(\d+(\.\d+)?)?\|\d*", rule), rule


@given(
    options_of("attempts", "backoff", "removeOnComplete", "stackTraceLimit", "lifo", "kl")
    | json_values
)
def test_no_options_make_a_worker_stumble(opts: Any) -> None:
    policy = policy_of(json.dumps(opts))
    assert isinstance(policy.attempts, int)
    try:
        delay_s = backoff_s(policy, 1, ERROR, {})
        assert delay_s >= 0 or delay_s == -1
    except UnknownBackoffError:
        assert policy.backoff_kind


def test_options_that_are_not_json_are_ignored() -> None:
    assert policy_of("{not json").attempts == 0
