"""What a handler may raise to say how its job ends. Any other exception: retry, or fail."""

from __future__ import annotations

import math


def text_of(error: BaseException) -> str:
    """What an error says; "" where its own ``__str__`` fails."""
    try:
        return str(error)
    except Exception:
        return ""


class UnrecoverableError(Exception):
    """The job has failed, and another attempt would not help."""


class RetryLater(Exception):  # noqa: N818 - a wish, not an error
    """Run the job again later.

    Args:
        delay_s: in seconds.
        counted: whether this run counts as one of the job's attempts; a counted one that was the
            last fails the job.
    """

    def __init__(self, delay_s: float = 0.0, *, counted: bool = False) -> None:
        super().__init__(f"again in {_finite(delay_s):g} s")
        self.delay_s = delay_s
        self.counted = counted


class RateLimited(Exception):  # noqa: N818 - a wish, not an error
    """A limit elsewhere was hit: put the job back and start no more of this queue for a time.

    Workers of the queue that have a rate limit, or all where the queue has one, wait as well.

    Args:
        delay_s: in seconds.
    """

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"rate limited for {_finite(delay_s):g} s")
        self.delay_s = delay_s


class WaitForChildren(Exception):  # noqa: N818 - a wish, not an error
    """Run the job again when the children that it added have finished."""


class JobTimeoutError(Exception):
    """The job ran longer than its task allows."""


def _finite(delay_s: float) -> float:
    if not math.isfinite(delay_s):
        raise ValueError(f"a delay of {delay_s} s is no delay")
    return delay_s
