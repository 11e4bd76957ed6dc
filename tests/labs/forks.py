"""Children of this process that use its objects; an exit code other than 0 is an error."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from qctl.runtime.api.queue import Queue
from qctl.wire.write.adding import NewJob


def forked(work: Callable[[], int]) -> int:
    """The pid of a child that ends with the result of ``work``, or 255 when it fails or hangs."""
    pid = os.fork()
    if not pid:
        code = 255
        try:
            signal.alarm(30)
            code = work()
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def add_own(queue: Queue, owner: str, jobs: int) -> int:
    """How many of the ids that came back are not one's own."""
    wrong = 0
    for n in range(jobs):
        job_id = f"{owner}-{n}"
        wrong += queue.add("x", job_id=job_id) != job_id
    ids = [f"{owner}-bulk-{n}" for n in range(jobs)]
    wrong += queue.add_bulk([NewJob("x", job_id=job_id) for job_id in ids]) != ids
    return min(wrong, 255)
