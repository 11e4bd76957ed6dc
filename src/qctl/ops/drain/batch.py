"""Replace several processes of a target at the same time, in one thread."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

from qctl.errors import QctlError, is_outage
from qctl.ops.drain.context import EARLY_ENDS, DrainContext, TimedOut
from qctl.ops.drain.steps import Step
from qctl.wire.read.active import ActiveJob

T = TypeVar("T")


def together(
    context: DrainContext, tasks: Sequence[Generator[Step | None, None, T]]
) -> Generator[Step, None, list[T | Exception]]:
    """Carry out several tasks at the same time, in this thread, until each has ended.

    Args:
        tasks: generators that yield None wherever they wait, so that the others can go on.

    Yields:
        the steps of all tasks.

    Returns:
        the result of each task, or the exception that ended it early.
    """
    results: dict[int, T | Exception] = {}
    running = dict(enumerate(tasks))
    try:
        while running:
            for number, task in list(running.items()):
                try:
                    while (step := next(task)) is not None:
                        yield step
                except StopIteration as end:
                    results[number] = end.value
                except EARLY_ENDS as ending:
                    results[number] = ending
                    if isinstance(ending, QctlError) and is_outage(ending):
                        # Redis was away for too long, so the other tasks do not wait for it.
                        context.client.give_up()
                if number in results:
                    del running[number]
            if running:
                context.idle()
    finally:
        for task in running.values():
            task.close()
    return [results[number] for number in range(len(tasks))]


def raise_first(results: Sequence[object]) -> None:
    """Raise the exception that ended a task of ``together``, if any did.

    If there are several, an error comes first, then a timeout, then a request to stop.
    """
    endings = [each for each in results if isinstance(each, Exception)]
    if error := next((each for each in endings if isinstance(each, QctlError)), None):
        raise error
    if late := [each for each in endings if isinstance(each, TimedOut)]:
        raise _merged(late)
    for ending in endings:
        raise ending


def _merged(late: Sequence[TimedOut]) -> TimedOut:
    jobs: dict[object, ActiveJob] = {job.key: job for each in late for job in each.active}
    known = [each.tokens for each in late if each.tokens is not None]
    tokens = frozenset(token for each in known for token in each) if known else None
    return TimedOut(list(jobs.values()), tokens)
