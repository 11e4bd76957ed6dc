"""Reads the points in time that are given as values of options."""

from __future__ import annotations

from datetime import datetime

from qctl.cli.environment import Environment


def typed_time(env: Environment, text: str | None, flag: str = "--since") -> datetime | None:
    """The time that an option's value means (``ops.times.parse_time``); None without a value.

    Raises:
        UsageError: the text is not a time.
    """
    from qctl.ops.times import parse_time  # noqa: PLC0415 - rarely needed

    if text is None:
        return None
    at = parse_time(text, flag=flag)
    note_local_time(env, text, at, flag)
    return at


def note_local_time(env: Environment, text: str, at: datetime, flag: str = "--since") -> None:
    """Say which date and time a text stands for, if that depends on the time zone of this host."""
    from qctl.ops.times import local_time_remark  # noqa: PLC0415 - rarely needed

    if env.output == "table" and (remark := local_time_remark(text, at, flag=flag)):
        env.note(remark)
