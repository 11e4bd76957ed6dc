"""Turns Redis' replies, and the texts in them, into Python values. Bad texts raise no error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError

# Up to this number, all whole numbers are exact in JavaScript (wire format 3). A field with a
# larger number counts as malformed.
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
    """A pipeline's reply, or ``default`` if the key has a wrong type for the command.

    A job may have an id that is the name of another key, such as ``wait``. Such a job must not
    stop the reading of other jobs.

    Raises:
        ReplyError: the reply is another error.
    """
    if isinstance(reply, ReplyError) and reply.code == "WRONGTYPE":
        return default
    return checked(reply)


def read_values(
    client: Client, commands: Sequence[Sequence[Arg]], default: Any = None
) -> list[Any]:
    """The replies to commands in one round trip, each passed through ``value_or``."""
    return [value_or(reply, default) for reply in client.pipeline(commands)]


def read_checked(client: Client, commands: Sequence[Sequence[Arg]]) -> list[Any]:
    """The replies to commands in one round trip, each passed through ``checked``."""
    return [checked(reply) for reply in client.pipeline(commands)]


def read_groups(client: Client, groups: Sequence[Sequence[Sequence[Arg]]]) -> list[list[Any]]:
    """Run groups of commands in one round trip; return the unchecked replies in the same groups."""
    replies = iter(client.pipeline([command for group in groups for command in group]))
    return [[next(replies) for _ in group] for group in groups]


def to_dict(flat: Sequence[str]) -> dict[str, str]:
    """The dict in ``[field, value, field, value …]``, the form in which Redis sends a hash."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def to_int(value: Any) -> int | None:
    """The count or time in a field; None if missing, malformed or above ``MAX_INTEGER``."""
    try:
        whole = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return whole if abs(whole) <= MAX_INTEGER else None


def read_json(text: str | None, default: Any) -> tuple[Any, bool]:
    """The value of a field, and whether the field is JSON as BullMQ understands it.

    If the field is not JSON, its text is the value. A missing field (None) counts as JSON with the
    value ``default``.
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
    # Python would accept NaN and Infinity, but BullMQ does not.
    raise ValueError(constant)
