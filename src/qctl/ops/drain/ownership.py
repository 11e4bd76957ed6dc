"""Who has paused and resumed the queues of a drain: this drain ("we") or somebody else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from qctl.wire.events import Event
from qctl.wire.keys import QueueKeys


@dataclass(slots=True)
class Pauses:
    """Who has paused and resumed each queue since the drain began.

    Attributes:
        ours: queues that we paused, or may have paused. A queue is removed when we or our watchdog
            resume it.
        resumed: queues that we, or our watchdog, have resumed.
        is_left_to_watchdog: whether the watchdog has to resume the queues in ``ours``.
        resumed_by_others: queues that somebody else has resumed.
        forced: queues that were resumed with ``qctl resume --force``.
        own_pause_ids: ids of the events of our own pauses.
        own_resume_ids: ids of the events of our own resumes.
        paused_again_lately: how often we paused each queue again since the last restart.
        times_paused_again: how often we paused each queue again during the whole drain.
        resumed_at_start: the queues that were resumed when a target or the new workers started. The
            value is the target, or "the new workers".
        lost_by_redis: queues that were paused again, because Redis had lost their pause.
        disowned: queues whose pause is no longer ours, because somebody else also paused them.
        to_disown: disowned queues whose pause note in Redis still names this drain.
        began_ms: Redis' time of our first pause.
        ended_ms: Redis' time of the last resume; None while the queues are paused.
    """

    ours: set[QueueKeys] = field(default_factory=set)
    resumed: set[QueueKeys] = field(default_factory=set)
    is_left_to_watchdog: bool = False
    resumed_by_others: set[QueueKeys] = field(default_factory=set)
    forced: set[QueueKeys] = field(default_factory=set)
    own_pause_ids: set[str] = field(default_factory=set)
    own_resume_ids: set[str] = field(default_factory=set)
    paused_again_lately: Counter[QueueKeys] = field(default_factory=Counter)
    times_paused_again: Counter[QueueKeys] = field(default_factory=Counter)
    resumed_at_start: dict[QueueKeys, str] = field(default_factory=dict)
    lost_by_redis: set[QueueKeys] = field(default_factory=set)
    disowned: set[QueueKeys] = field(default_factory=set)
    to_disown: set[QueueKeys] = field(default_factory=set)
    began_ms: int | None = None
    ended_ms: int | None = None

    def is_ours(self, keys: QueueKeys) -> bool:
        """Whether we paused a queue, and nobody else has paused it since."""
        return keys in self.ours and keys not in self.disowned

    def paused(self, keys: QueueKeys, event_id: str) -> None:
        """Record that we have paused a queue; ``event_id``: the id of the ``paused`` event."""
        self.own_pause_ids.add(event_id)
        self.ours.add(keys)
        self.began_ms = self.began_ms or int(event_id.partition("-")[0])

    def paused_again(self, keys: QueueKeys, event_id: str) -> bool:
        """Record a pause of ours, and return whether the pause is new."""
        if event_id in self.own_pause_ids:
            return False
        self.paused(keys, event_id)
        self.disowned.discard(keys)
        self.to_disown.discard(keys)
        self.paused_again_lately[keys] += 1
        self.times_paused_again[keys] += 1
        return True

    def resumed_by_us(self, keys: QueueKeys, event_id: str, at_ms: int) -> None:
        """Record that we have resumed a queue; ``event_id`` is "" if no event was written."""
        self.resumed.add(keys)
        self.own_resume_ids.add(event_id)
        self.ended_ms = at_ms

    def follow(self, keys: QueueKeys, event: Event) -> None:
        """Apply an event of a queue."""
        if event.name == "paused" and event.id in self.own_pause_ids:
            self.ended_ms = None
        elif event.name == "paused":
            self.disowned.add(keys)
            self.to_disown.add(keys)
        elif event.name == "resumed":
            self.ended_ms = event.at_ms
            if self.is_left_to_watchdog and keys in self.ours:
                # The watchdog has resumed the queue.
                self.ours.discard(keys)
                self.resumed.add(keys)
            elif event.id not in self.own_resume_ids:
                self.resumed_by_others.add(keys)
            if event.is_forced:
                self.forced.add(keys)
