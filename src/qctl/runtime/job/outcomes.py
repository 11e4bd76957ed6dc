"""Exceptions that decide what happens to a job after its run. Any other error fails the attempt."""

from __future__ import annotations

import math


def text_of(error: BaseException) -> str:
    """An error's text; "" if its own ``__str__`` fails."""
    try:
        return str(error)
    except Exception:
        return ""


class UnrecoverableError(Exception):
    """The job fails without a retry, however many attempts are left."""


class InvalidDataError(UnrecoverableError):
    """A job's data does not fit the annotation of its handler. The worker raises it."""


class RetryLater(Exception):  # noqa: N818 - a wish, not an error
    """Run the job again later.

    Args:
        delay_s: when, in seconds from now.
        counted: whether this run counts as one of the job's attempts. If it counts and is the last
            attempt, the job fails.

    Raises:
        ValueError: the delay is not a finite number.
    """

    def __init__(self, delay_s: float = 0.0, *, counted: bool = False) -> None:
        super().__init__(f"again in {_finite(delay_s):g} s")
        self.delay_s = delay_s
        self.counted = counted


class RateLimited(Exception):  # noqa: N818 - a wish, not an error
    """Another service limits the rate: the job goes back to wait, and the worker pauses fetching.

    The queue's other workers pause too, if they or the queue have a rate limit. The run does not
    count as an attempt.

    Args:
        delay_s: how long to fetch no jobs, in seconds; at most 30 if there is no rate limit.

    Raises:
        ValueError: the delay is not a finite number.
    """

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"rate limited for {_finite(delay_s):g} s")
        self.delay_s = delay_s


class WaitForChildren(Exception):  # noqa: N818 - a wish, not an error
    """Run the job again when the children that it added have ended; at once if none is pending."""


class JobTimeoutError(Exception):
    """The job ran longer than its task allows. The worker raises it, and the attempt fails."""


def _finite(delay_s: float) -> float:
    if not math.isfinite(delay_s):
        raise ValueError(f"a delay must be a finite number of seconds, not {delay_s}")
    return delay_s
