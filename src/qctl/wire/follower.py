"""Follows the events of one queue, and notices where some may be missing (wire format 8).

This module sends nothing: the same ``Follower`` serves blocking clients and event loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Arg
from qctl.wire.events import (
    STREAM_START,
    Event,
    Stream,
    event_order,
    has_missed,
    next_events_command,
    parse_next_events,
    parse_stream,
    stream_command,
)
from qctl.wire.keys import QueueKeys
from qctl.wire.replies import checked

_WRITES_LOST = (
    "Redis no longer has the last event, as after a failover that lost writes: events may be "
    "missing"
)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events may be missing here; ``why`` says why."""

    why: str


class Follower:
    """The place of a reader in a queue's events.

    For each read, send ``read_command``, then ``check_commands``, and pass the replies to
    ``advance``.

    Args:
        after: the id after which the first read begins.
        is_event: whether an event has the id ``after``; False if ``after`` may be a place between
            two events.
    """

    def __init__(self, keys: QueueKeys, after: str, *, is_event: bool) -> None:
        self._keys = keys
        self._cursor = after
        self._is_event = is_event

    def read_command(self, block_ms: int) -> tuple[Arg, ...]:
        """The command that waits for the next events."""
        return next_events_command(self._keys, self._cursor, block_ms)

    def check_commands(self) -> list[tuple[Arg, ...]]:
        """The commands that show whether events are missing.

        Send them after the read, so that a trim before the read is noticed.
        """
        key, at = self._keys("events"), self._cursor
        return [("XRANGE", key, at, at, "COUNT", 1), stream_command(self._keys)]

    def advance(self, reply: Any, checks: Sequence[Any] | None) -> list[Event | Gap]:
        """The events in the reply to ``read_command``, perhaps after a gap.

        Args:
            checks: the replies to ``check_commands``; None if Redis went away before it replied.

        Raises:
            ReplyError: Redis refused one of the checks.
        """
        events = parse_next_events(reply)
        found: list[Event | Gap] = []
        if checks is not None and self._cursor != STREAM_START:
            stream = parse_stream(checks[1])
            why = self._gap(checked(checks[0]), stream) if events else self._trouble(stream)
            found = [Gap(why)] if why else []
        if events:
            self._cursor, self._is_event = events[-1].id, True
        return [*found, *events]

    def _trouble(self, stream: Stream | None) -> str:
        """After a read that returned no events: why events may be missing, or "".

        If so, move the cursor, so that no later event is missed.
        """
        if stream is None:
            # All events of the next stream under this key are new.
            self._cursor = STREAM_START
            return "the event stream is gone: deleted, or the queue was obliterated"
        if self._is_event and event_order(stream.last_id) < event_order(self._cursor):
            # The next events may have lower ids than the events that are lost.
            self._cursor = stream.last_id
            return _WRITES_LOST
        return ""

    def _gap(self, at_cursor: Any, stream: Stream | None) -> str:
        """Why events between the cursor and the events just read may be missing, or ""."""
        if self._is_event and at_cursor:
            return ""
        # A cursor that is not the id of an event may be earlier than the first event of the queue.
        # Then events can be missing only if the stream was trimmed.
        oldest = stream.oldest_id if stream and (stream.is_cut or self._is_event) else None
        if has_missed(self._cursor, oldest):
            return f"the stream now begins at {oldest}: earlier events may be missing"
        return _WRITES_LOST if self._is_event else ""
