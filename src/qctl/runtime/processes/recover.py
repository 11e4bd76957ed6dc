"""Puts back the jobs of a process that died, at once instead of after its locks expire."""

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

# Seconds before each attempt: the last command of a dead process may still reach Redis.
PAUSES_S = (0.0, 0.25, 1.0, 3.0)
_MAX_PAUSE_WHEN_STOPPING_S = 0.25
_RETRY_S = 1.0


def put_back(worker: WorkerIdentity, *, counted: bool) -> list[str]:
    """Put back the active jobs of a dead worker, to run next.

    Args:
        counted: whether this counts as a stall, as BullMQ counts it when a worker dies.

    Returns:
        the ids of the jobs that went back.

    Raises:
        QctlError: Redis could not do it.
    """
    keys = QueueKeys(worker.prefix, worker.queue)
    _, client = connect(worker.redis_url)
    with contextlib.closing(client):
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
        done: list[str] = []
        pairs = [*locks.items()]
        for start in range(0, len(pairs), worker_calls.MAX_BATCH):
            chunk = pairs[start : start + worker_calls.MAX_BATCH]
            call = worker_calls.give_back(keys, chunk)
            codes = scripts.run_call(client, call)[1]
            # The script takes them in reverse, so that the first job runs first.
            done += [
                job_id for (job_id, _), code in zip(reversed(chunk), codes, strict=True) if not code
            ]
        return done


async def recover(
    pid: int,
    workers: Sequence[WorkerIdentity],
    log: Log,
    *,
    counted: bool,
    stopping: asyncio.Event,
) -> None:
    """Put back the jobs of a dead process's workers; repeat that a few times.

    While Redis is away it tries again, until ``stopping`` is set: then the jobs are left to the
    stalled check of any worker. Once that is set, the attempts follow quickly.
    """
    is_away = False
    for pause_s in PAUSES_S:
        await _rest(pause_s, stopping)
        for worker in workers:
            while True:
                try:
                    ids = await asyncio.to_thread(put_back, worker, counted=counted)
                except QctlError as error:
                    if not is_away:
                        why = error.why or error.what
                        log.error("its jobs are not yet put back", pid=pid, why=why)
                    is_away = True
                    if stopping.is_set():
                        return
                    await _rest(_RETRY_S, stopping)
                    continue
                if ids:
                    jobs = ",".join(ids)
                    log.warning("its jobs were put back", pid=pid, queue=worker.queue, jobs=jobs)
                break


async def _rest(seconds: float, stopping: asyncio.Event) -> None:
    """Sleep; no longer than a moment once we are stopping."""
    short_s = min(seconds, _MAX_PAUSE_WHEN_STOPPING_S)
    await asyncio.sleep(short_s)
    await wait_first(stopping.wait(), timeout_s=seconds - short_s)
