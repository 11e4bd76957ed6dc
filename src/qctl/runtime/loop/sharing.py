"""How workers share the places of a queue that limits how many of its jobs run at a time.

If 5 jobs may run at a time, the queue has 5 places. A worker that fetches its next job in the call
that settles its previous job keeps that job's place. BullMQ's workers always do this. Therefore, a
worker that starts later gets no place until the queue is empty. A qctl worker gives up a place now
and then, and waits for another one: Redis gives a free place to the worker that has waited longest.
"""

from __future__ import annotations

# A worker gives up one place each time this many jobs have ended.
JOBS_PER_OFFER = 4
# The shortest time between two moments at which the worker gives up places. If no other worker
# waits, a place that is given up is idle for a moment.
MIN_OFFER_PAUSE_S = 0.02


class Places:
    """Decides how many places a worker keeps when jobs end."""

    def __init__(self) -> None:
        self._ended_since_offer = 0
        self._offered_at_s = 0.0

    def to_keep(self, ending: int, occupied: int, now_s: float) -> int:
        """How many places of the ending jobs the worker keeps.

        Args:
            ending: the number of jobs that end.
            occupied: the number of places that the worker has, including those of the ending jobs.
        """
        self._ended_since_offer += ending
        is_too_soon = now_s < self._offered_at_s + MIN_OFFER_PAUSE_S
        if self._ended_since_offer < JOBS_PER_OFFER or is_too_soon:
            return ending
        self._ended_since_offer, self._offered_at_s = 0, now_s
        # Keep at least one place, because BullMQ workers never give up a place for this worker.
        return ending - min(max(ending // JOBS_PER_OFFER, 1), occupied - 1, ending)
