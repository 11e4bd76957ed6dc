"""Puts back the jobs of a process that died, without waiting until its locks expire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.runtime.logs import Log
from qctl.runtime.processes.messages import WorkerIdentity
from qctl.runtime.waiting import wait_first
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.active import read_active
from qctl.wire.write import worker_calls
from qctl.wire.write.transitions import retry_stalled

# Seconds before each attempt. The last command of a dead process may reach Redis late and fetch
# jobs, so one attempt is not enough.
PAUSES_S = (0.0, 0.25, 1.0, 3.0)
_MAX_PAUSE_WHEN_STOPPING_S = 0.25
# Seconds until a failed attempt is repeated, for example while Redis is away.
_RETRY_S = 1.0


def put_back(worker: WorkerIdentity, *, counted: bool) -> list[str]:
    """Put back the active jobs of a dead worker, to run next, and return their ids.

    Args:
        counted: whether to count a stall for each job, as BullMQ does if a worker dies. A job
            with too many stalls is failed instead.

    Raises:
        QctlError: Redis cannot be reached, or refuses.
    """
    keys = QueueKeys(worker.prefix, worker.queue)
    _, client = connect(worker.redis_url)
    with contextlib.closing(client):
        # Otherwise the dead worker is shown until its heartbeat expires.
        heartbeats.end(client, keys.prefix, worker.owner)
        locks = {
            job.id: job.lock_token
            for job in read_active(client, [keys])
            if job.lock_token and heartbeats.owner_of(job.lock_token) == worker.owner
        }
        if not locks:
            return []
        if counted:
            answers = retry_stalled(client, keys, locks, max_stalled=worker.max_stalled_count)
            return [job_id for job_id, answer in answers.items() if answer == "retried"]
        returned: list[str] = []
        pairs = [*locks.items()]
        for start in range(0, len(pairs), worker_calls.MAX_BATCH):
            chunk = pairs[start : start + worker_calls.MAX_BATCH]
            call = worker_calls.give_back(keys, chunk)
            codes = scripts.run_call(client, call)[1]
            # The codes are in reverse order: the script gives the last job back first.
            returned += [
                job_id for (job_id, _), code in zip(reversed(chunk), codes, strict=True) if not code
            ]
        return returned


async def recover(
    pid: int,
    workers: Sequence[WorkerIdentity],
    log: Log,
    *,
    counted: bool,
    stopping: asyncio.Event,
) -> None:
    """Put back the jobs of a dead process's workers, in several attempts (``PAUSES_S``).

    An attempt that fails is repeated. Once ``stopping`` is set, pauses are short, and a failed
    attempt is the last: the jobs are left to the stalled check of any worker.
    """
    has_failed = False
    for pause_s in PAUSES_S:
        await _pause(pause_s, stopping)
        for worker in workers:
            while True:
                try:
                    ids = await asyncio.to_thread(put_back, worker, counted=counted)
                except QctlError as error:
                    if not has_failed:
                        why = error.why or error.what
                        log.error("process's jobs not yet put back", pid=pid, why=why)
                    has_failed = True
                    if stopping.is_set():
                        return
                    await _pause(_RETRY_S, stopping)
                    continue
                if ids:
                    jobs = ",".join(ids)
                    log.warning("process's jobs put back", pid=pid, queue=worker.queue, jobs=jobs)
                break


async def _pause(seconds: float, stopping: asyncio.Event) -> None:
    """Sleep. After the first 0.25 s, end the sleep as soon as ``stopping`` is set."""
    short_s = min(seconds, _MAX_PAUSE_WHEN_STOPPING_S)
    await asyncio.sleep(short_s)
    await wait_first(stopping.wait(), timeout_s=seconds - short_s)
