"""Whether a paused queue is paused by the one in qctl's pause note.

A resume by BullMQ leaves the note where it is, and a later pause by BullMQ must not look like the
note's. The note has the id of its ``paused`` event, and the events since then show what happened,
as long as they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qctl.connection.address import Client
from qctl.wire.events import Event, to_event
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import HOLDS, OVER, UNKNOWN, noted_event, parse_holder
from qctl.wire.replies import value_or

# Events of one round trip over all queues, and the fewest of one queue.
_WINDOW, _MIN_WINDOW = 1000, 50
# For one queue, these read as many events as BullMQ keeps by default.
_MAX_TRIPS = 10


def check_notes(client: Client, notes: Mapping[QueueKeys, Any]) -> dict[QueueKeys, str]:
    """Whether each paused queue is paused by the pause in its note.

    Args:
        notes: the text of each pause note.

    Returns:
        ``HOLDS`` if it is; ``OVER`` if the queue was resumed since, or if the note is a drain's and
        somebody else has paused the queue as well; ``UNKNOWN`` if the events do not reach back to
        the note, are too many, or cannot be read.
    """
    answers = dict.fromkeys(notes, UNKNOWN)
    cursors = {keys: event for keys, text in notes.items() if (event := noted_event(text))}
    first = dict(cursors)
    for _ in range(_MAX_TRIPS):
        if not cursors:
            break
        count = max(_WINDOW // len(cursors), _MIN_WINDOW)
        replies = client.pipeline(
            [("XRANGE", keys("events"), at, "+", "COUNT", count) for keys, at in cursors.items()]
        )
        for keys, reply in zip([*cursors], replies, strict=True):
            events = [to_event(*entry) for entry in value_or(reply, [])]
            # Begins with the last event of the window before. If that is gone, others may be, too.
            if not events or events[0].id != cursors[keys]:
                del cursors[keys]
            elif any(_ends(event, notes[keys]) for event in events if event.id != first[keys]):
                answers[keys] = OVER
                del cursors[keys]
            elif len(events) < count:
                answers[keys] = HOLDS
                del cursors[keys]
            else:
                cursors[keys] = events[-1].id
    return answers


def _ends(event: Event, note: Any) -> bool:
    holder = parse_holder(note)
    is_temporary = holder is not None and holder.is_temporary
    return event.name == "resumed" or (is_temporary and event.name == "paused")
