"""Whether a queue is still paused by the pause that qctl's pause note records.

BullMQ's resume does not delete the note, and a later pause by BullMQ must not be taken for the one
in the note. The note has the id of its ``paused`` event. The events since then show what happened,
as long as Redis keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qctl.connection.address import Client
from qctl.wire.events import Event, to_event
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import HOLDS, OVER, UNKNOWN, noted_event, parse_holder
from qctl.wire.replies import value_or

# Events read per round trip: 1,000, shared among the queues, but at least 50 for each queue.
_WINDOW, _MIN_WINDOW = 1000, 50
# Maximum round trips. For one queue, 10 trips read the 10,000 events that BullMQ keeps by default.
_MAX_TRIPS = 10


def check_notes(client: Client, notes: Mapping[QueueKeys, Any]) -> dict[QueueKeys, str]:
    """Whether each paused queue is still paused by the pause in its note.

    Args:
        notes: the text of each pause note.

    Returns:
        ``HOLDS`` if it is. ``OVER`` if the queue was resumed after that pause, or if a drain made
        that pause and another pause followed. ``UNKNOWN`` if the note names no event, or if not all
        events since that event could be read.
    """
    answers = dict.fromkeys(notes, UNKNOWN)
    cursors = {keys: event for keys, text in notes.items() if (event := noted_event(text))}
    noted = dict(cursors)
    for _ in range(_MAX_TRIPS):
        if not cursors:
            break
        count = max(_WINDOW // len(cursors), _MIN_WINDOW)
        replies = client.pipeline(
            [("XRANGE", keys("events"), at, "+", "COUNT", count) for keys, at in cursors.items()]
        )
        for keys, reply in zip([*cursors], replies, strict=True):
            events = [to_event(*entry) for entry in value_or(reply, [])]
            # The first window begins at the note's event, and each later window at the last event
            # of the window before it. If Redis has trimmed that event, Redis may also have trimmed
            # later events.
            if not events or events[0].id != cursors[keys]:
                del cursors[keys]
            elif any(
                _ends_pause(event, notes[keys]) for event in events if event.id != noted[keys]
            ):
                answers[keys] = OVER
                del cursors[keys]
            elif len(events) < count:
                answers[keys] = HOLDS
                del cursors[keys]
            else:
                cursors[keys] = events[-1].id
    return answers


def _ends_pause(event: Event, note: Any) -> bool:
    """Whether an event after the noted pause shows that this pause is over."""
    holder = parse_holder(note)
    # A drain notes the event of its own latest pause, so a later pause is somebody else's.
    is_temporary = holder is not None and holder.is_temporary
    return event.name == "resumed" or (is_temporary and event.name == "paused")
