"""How many jobs a worker's step settles, and how many it fetches, at most.

A step costs about as much as three jobs, so big steps need less CPU time per job. But jobs that
start together and take equally long also end together: one big step settles them all and starts as
many others, and meanwhile most handlers wait for that step. Small steps let such a convoy
drift apart. So steps are small, and grow only while they are what limits the worker.
"""

from __future__ import annotations

MIN_JOBS = 5


class StepSize:
    """Follows the load: a worker's steps double while they are the bottleneck, else they halve.

    The steps are not the bottleneck if a step settles fewer than ``jobs`` jobs, and the worker may
    send one more step but has no work for it. They are the bottleneck if steps leave a backlog
    (ended jobs to settle, or free places to fill) again and again, until these steps have settled
    more than ``concurrency`` jobs. A convoy also leaves a backlog, but has at most ``concurrency``
    jobs.

    Args:
        max_jobs: the largest step.
        concurrency: how many jobs the worker runs at a time.

    Attributes:
        jobs: how many jobs a step may settle now, and how many it may fetch.
    """

    def __init__(self, max_jobs: int, concurrency: int) -> None:
        self._max_jobs = max_jobs
        self._concurrency = concurrency
        # ``jobs`` is ``max_jobs`` halved this often, so that the largest step is reached exactly.
        self._max_halvings = self._halvings = (max_jobs // MIN_JOBS).bit_length()
        self._settled_with_backlog = 0
        self.jobs = min(MIN_JOBS, max_jobs)

    def note_partial_step(self) -> None:
        """Note a step of fewer than ``jobs``, after which one more could be sent."""
        self._settled_with_backlog = 0
        self._halve(min(self._halvings + 1, self._max_halvings))

    def note_all_in_flight(self, settling: int, *, has_backlog: bool) -> None:
        """Note that no more steps may be sent now.

        Args:
            settling: how many jobs are settled by the steps that were sent since the last note.
            has_backlog: whether another step would be sent if it could.
        """
        self._settled_with_backlog = self._settled_with_backlog + settling if has_backlog else 0
        if self._settled_with_backlog > self._concurrency:
            self._settled_with_backlog = 0
            self._halve(max(self._halvings - 1, 0))

    def _halve(self, halvings: int) -> None:
        self._halvings = halvings
        self.jobs = min(max(self._max_jobs >> halvings, MIN_JOBS), self._max_jobs)
