"""How the workers of a queue share its places, where its concurrency is limited.

A worker that fetches its next job with the end of the last one keeps that job's place. So do
BullMQ's, and whoever comes later gets none for as long as jobs wait. A qctl worker now and then
leaves a place free and stands in line for another one: Redis serves first who has waited longest.
"""

from __future__ import annotations

# One of so many jobs leaves its place to others …
OFFERED_EVERY = 4
# … but not more often: when nobody else waits, the place is idle until it is taken again.
PAUSE_S = 0.02


class Places:
    """What one worker keeps and offers."""

    def __init__(self) -> None:
        self._ended = 0
        self._offered_at = 0.0

    def kept(self, ended: int, held: int, now_s: float) -> int:
        """How many places it keeps of those whose jobs end now.

        Args:
            ended: number of these.
            held: places that it has in all, these included.
            now_s: seconds on any clock that only goes forward.
        """
        self._ended += ended
        if self._ended < OFFERED_EVERY or now_s < self._offered_at + PAUSE_S:
            return ended
        self._ended, self._offered_at = 0, now_s
        # Never the last one: BullMQ's workers do not offer theirs, and it would not come back.
        return ended - min(max(ended // OFFERED_EVERY, 1), held - 1, ended)
