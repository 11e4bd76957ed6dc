"""Redis' replies and the texts in them as Python values, tolerant of what others have written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError

# Beyond this JavaScript cannot count (wire format 3): such a number was never meant as one.
MAX_INTEGER = 2**53


def checked(reply: Any) -> Any:
    """A pipeline's reply.

    Raises:
        ReplyError: the reply is one.
    """
    if isinstance(reply, ReplyError):
        raise reply
    return reply


def value_or(reply: Any, default: Any) -> Any:
    """A pipeline's reply, or ``default`` if the key is of another type than the command reads.

    A job's id may be the name of another key, such as ``wait``; one such job must not hide all
    others.

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
    """The replies to commands in one round trip.

    Raises:
        ReplyError: one of them is an error.
    """
    return [checked(reply) for reply in client.pipeline(commands)]


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
    """A field's value and whether it is JSON, as BullMQ understands it; else the raw text.

    Args:
        default: the value of a missing field.
    """
    if text is None:
        return default, True
    try:
        return json.loads(text, parse_constant=_refuse), True
    except (ValueError, RecursionError):
        return text, False


def _refuse(constant: str) -> Any:
    # Python would read NaN and Infinity; to BullMQ they are not JSON.
    raise ValueError(constant)
