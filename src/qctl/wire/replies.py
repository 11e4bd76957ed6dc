"""Turns Redis' replies, and the texts in them, into Python values; malformed texts do no harm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError

# Above this, JavaScript's whole numbers are not all exact (wire format 3), so a field with a larger
# number is malformed.
MAX_INTEGER = 2**53


def checked(reply: Any) -> Any:
    """A pipeline's reply.

    Raises:
        ReplyError: the reply is an error.
    """
    if isinstance(reply, ReplyError):
        raise reply
    return reply


def value_or(reply: Any, default: Any) -> Any:
    """A pipeline's reply, or ``default`` if the key is of another type than the command reads.

    A job may have an id that is the name of another key, such as ``wait``. Such a job must not
    prevent that other jobs are read.

    Raises:
        ReplyError: the reply is another error.
    """
    if isinstance(reply, ReplyError) and reply.code == "WRONGTYPE":
        return default
    return checked(reply)


def read_values(
    client: Client, commands: Sequence[Sequence[Arg]], default: Any = None
) -> list[Any]:
    """The replies to commands in one round trip, each as by ``value_or``."""
    return [value_or(reply, default) for reply in client.pipeline(commands)]


def read_checked(client: Client, commands: Sequence[Sequence[Arg]]) -> list[Any]:
    """The replies to commands in one round trip, each as by ``checked``."""
    return [checked(reply) for reply in client.pipeline(commands)]


def read_groups(client: Client, groups: Sequence[Sequence[Sequence[Arg]]]) -> list[list[Any]]:
    """The unchecked replies to groups of commands in one round trip, in the same groups."""
    replies = iter(client.pipeline([command for group in groups for command in group]))
    return [[next(replies) for _ in group] for group in groups]


def to_dict(flat: Sequence[str]) -> dict[str, str]:
    """``[field, value, field, value …]``, as Redis sends a hash, as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def to_int(value: Any) -> int | None:
    """A count or a time in a field; None for a missing, malformed or absurd one."""
    try:
        whole = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return whole if abs(whole) <= MAX_INTEGER else None


def read_json(text: str | None, default: Any) -> tuple[Any, bool]:
    """The value of a field, and whether the field is JSON as BullMQ understands it.

    The value of a field that is not JSON is its text. A missing field (None) counts as JSON with
    the value ``default``.
    """
    if text is None:
        return default, True
    try:
        return json.loads(text, parse_constant=_refuse), True
    except (ValueError, RecursionError):
        return text, False


def read_object(text: str | None) -> dict[str, Any]:
    """The JSON object in a field; empty for any other field."""
    value = read_json(text, None)[0]
    return value if isinstance(value, dict) else {}


def _refuse(constant: str) -> Any:
    # Python would read NaN and Infinity; to BullMQ they are not JSON.
    raise ValueError(constant)
