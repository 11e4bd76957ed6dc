"""The shape of failure reasons: what is replaced, and what is kept."""

from __future__ import annotations

import pytest

from qctl.ops.jobs.shape import MAX_SHAPE, shape_of

UUID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.mark.parametrize(
    ("reason", "shape"),
    [
        ("User 42 not found", "User <number> not found"),
        ("Timeout of 30000ms exceeded", "Timeout of <number>ms exceeded"),
        ("value -1.5e+10 of 1,234,567 (-3)", "value <number> of <number> (<number>)"),
        ("connect ECONNREFUSED 10.1.2.3:6379", "connect ECONNREFUSED <address>"),
        ("connect ECONNREFUSED ::1:6379", "connect ECONNREFUSED <address>"),
        ("connect ETIMEDOUT [2001:db8::8a2e:370:7334]:443", "connect ETIMEDOUT <address>"),
        ("redis-0.redis.svc:6379 is down", "<address> is down"),
        ("ada.b+x@mail.example.org bounced", "<address> bounced"),
        ("GET https://api.example.com/v1?x=1 failed", "GET <url> failed"),
        ("open /var/lib/app/x-17.json: gone", "open <path>: gone"),
        (r"C:\temp\x.txt is locked", "<path> is locked"),
        (f"job {UUID} is gone", "job <uuid> is gone"),
        ("at 2026-11-30T19:45:01.123Z", "at <time>"),
        ("commit 3f785c1a2b at 0x7ffeA1", "commit <hex> at <hex>"),
        ("no customer cus_NffrFeUfNV2Hib", "no customer cus_<id>"),
        ("id V1StGXR8_Z5jdHi6B-myT", "id <id>"),
        ("can't read 'foo' of \"a\\\"b\"", "can't read <text> of <text>"),
        ('{"code":404,"msg":"no"}', "{<text>:<number>,<text>:<text>}"),
        ("  two\n  lines\t", "two lines"),
        ("", ""),
        (None, None),
    ],
)
def test_what_differs_from_job_to_job_is_replaced(reason: str | None, shape: str | None) -> None:
    assert shape_of(reason) == shape


@pytest.mark.parametrize(
    "reason",
    [
        "job stalled more than allowable limit",
        "sha256, utf8, base64, Int32Array, HTTP2, E11000 and ES2022",
        "I/O error and/or text/html",
        "Foo::Bar a::b std::vector",
        "isn't valid, won't do",
        "deadbeef faced a decade",
    ],
)
def test_words_are_kept(reason: str) -> None:
    assert shape_of(reason) == reason


@pytest.mark.parametrize(
    "unit", ["'", "a", "a1", ":", "1:", "\\", '"\\', "/", "a.", "a+", "a@", "[::", "é1", " x", "-"]
)
def test_a_long_reason_has_a_short_shape(unit: str) -> None:
    """A reason of a megabyte must not take long: a pattern with backtracking would never end."""
    shape = shape_of(unit * 1_000_000)
    assert shape is not None
    assert len(shape) <= MAX_SHAPE
    assert shape_of(unit * 2_000_000) == shape
