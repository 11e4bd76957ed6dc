"""How the workers of a queue share its places, if the queue limits its concurrency.

A worker that fetches its next job in the call that settles the last one keeps that job's place.
BullMQ's workers always do, so a worker that starts later gets no place as long as jobs wait. A
qctl worker now and then leaves a place and waits for another one: Redis serves the worker first
that has waited longest.
"""

from __future__ import annotations

# One job in this many leaves its place to others …
OFFER_EVERY = 4
# … but not more often than this: if no other worker waits, the place is idle for a moment.
PAUSE_S = 0.02


class Places:
    """The places that one worker keeps and leaves."""

    def __init__(self) -> None:
        self._ended = 0
        self._offered_at = 0.0

    def kept(self, ended: int, held: int, now_s: float) -> int:
        """How many of the places to keep whose jobs end now.

        Args:
            ended: how many jobs end now.
            held: places of this worker, these included.
            now_s: of a monotonic clock.
        """
        self._ended += ended
        if self._ended < OFFER_EVERY or now_s < self._offered_at + PAUSE_S:
            return ended
        self._ended, self._offered_at = 0, now_s
        # Never the last one: BullMQ's workers leave none, so it would not come back.
        return ended - min(max(ended // OFFER_EVERY, 1), held - 1, ended)
