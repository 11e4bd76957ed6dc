"""Follows the event streams of a drain's queues, from the pause to the proof."""

from __future__ import annotations

import time
from collections.abc import Sequence

from qctl.errors import QctlError, is_outage
from qctl.ops.drain.inventory import Inventory
from qctl.ops.drain.ledger import Ledger
from qctl.ops.drain.ownership import Pauses
from qctl.ops.patience import PatientClient
from qctl.ops.processes.restart import POLL_S
from qctl.wire.events import READ_COUNT, Event, event_order, last_event_id, read_events, read_gaps
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.write.pausing import disown_pause

# How long one read waits for events. A request to stop is noticed only after the read.
BLOCK_MS = 200


class Tracker:
    """Applies the events to a drain's inventory, ledger and pauses.

    Args:
        queues: all queues of the drain.
        owner: the id of this drain in its pause notes.
        ledger: what becomes of the active jobs.

    Attributes:
        inventory: the jobs of all queues, running or not.
        pauses: who paused and resumed the queues.
        cursors: queue → the id of the last event read; holds only queues that are already followed.
        missed: queues whose event stream may have been trimmed before all of it was read.
        has_started: whether a job has started since the last pause.
    """

    def __init__(
        self, client: PatientClient, queues: Sequence[QueueKeys], owner: str, ledger: Ledger
    ) -> None:
        self._client = client
        self._owner = owner
        self.queues = queues
        self.ledger = ledger
        self.inventory = Inventory()
        self.pauses = Pauses()
        self.cursors: dict[QueueKeys, str] = {}
        self.missed: set[QueueKeys] = set()
        self.has_started = False
        # Queue → the cursor before its oldest read that is not yet checked for missed events.
        self._unchecked: dict[QueueKeys, str] = {}

    def label(self, keys: QueueKeys) -> str:
        """How messages name a queue of the drain; see ``QueueKeys.label``."""
        return keys.label(common_prefix(self.queues))

    def follow(self, *, wait: bool = False) -> list[tuple[QueueKeys, Event]]:
        """Read new events.

        Args:
            wait: whether to wait for an event if there is none, for at most ``BLOCK_MS``.
        """
        before = dict(self.cursors)
        events = read_events(self._client, self.cursors, block_ms=BLOCK_MS if wait else 0)
        # Apply all events before the next command, because the command may fail and these events
        # are not read again.
        self.ledger.follow(events)
        self.inventory.follow(events)
        for keys, event in events:
            self._unchecked.setdefault(keys, before[keys])
            self.pauses.follow(keys, event)
            if event.name in {"active", "paused"}:
                self.has_started = event.name == "active"
        for keys in [*self.pauses.to_disown]:
            # Delete our pause note in Redis, so that the watchdog leaves the queue paused.
            disown_pause(self._client, keys, self._owner)
            self.pauses.to_disown.discard(keys)
        if self._unchecked:
            self._note_gaps(self._unchecked)
            self._unchecked.clear()
        return events

    def catch_up(self) -> None:
        """Read all events up to now, however many there are."""
        goals = {keys: event_order(last_event_id(self._client, keys)) for keys in self.cursors}
        while any(event_order(self.cursors[keys]) < goal for keys, goal in goals.items()):
            # If no event is left but the goal is not reached, the stream was deleted, or restored
            # from an older state.
            if not self.follow():
                break
        # Also check streams without new events, because they may have been deleted or restored.
        self._note_gaps(self.cursors)

    def rest(self) -> None:
        """Wait for about ``POLL_S``, and meanwhile read events before they are trimmed.

        An outage of Redis is ignored.
        """
        until = time.monotonic() + POLL_S
        try:
            with self._client.at_most(0.0):
                while len(self.follow()) >= READ_COUNT and time.monotonic() < until:
                    pass
        except QctlError as error:
            if not is_outage(error):
                raise
        time.sleep(max(until - time.monotonic(), 0))

    def _note_gaps(self, cursors: dict[QueueKeys, str]) -> None:
        unknown = {keys: at for keys, at in cursors.items() if keys not in self.missed}
        if gaps := read_gaps(self._client, unknown):
            self.missed.update(gaps)
            self.ledger.note_missed_events()
