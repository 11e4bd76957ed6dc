"""Puts back the jobs of a process that has died, at once instead of after its locks expire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.runtime.logs import Log
from qctl.runtime.processes.messages import Held
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.active import read_active
from qctl.wire.write import worker_calls as working
from qctl.wire.write.transitions import retry_stalled

# Seconds before each look: a dead process's last command may still be on its way into Redis.
LOOKS_S = (0.0, 0.25, 1.0, 3.0)
_HASTY_LOOK_S = 0.25
_RETRY_S = 1.0


def put_back(held: Held, *, counted: bool) -> list[str]:
    """Jobs that are active under the worker's tokens go back, to run next.

    Args:
        held: of a worker that is dead.
        counted: whether it counts as a stall, as BullMQ counts the jobs of a worker that died.

    Returns:
        the ids of those that went back.

    Raises:
        QctlError: Redis could not do it.
    """
    keys = QueueKeys(held.prefix, held.queue)
    _, client = connect(held.redis_url)
    with contextlib.closing(client):
        heartbeats.end(client, keys.prefix, held.owner)
        locks = {
            job.id: job.lock_token
            for job in read_active(client, [keys])
            if job.lock_token and heartbeats.owner_of(job.lock_token) == held.owner
        }
        if not locks:
            return []
        if counted:
            answers = retry_stalled(client, keys, locks, count_stall=held.max_stalled_count)
            return [job_id for job_id, answer in answers.items() if answer == "retried"]
        done: list[str] = []
        pairs = [*locks.items()]
        for start in range(0, len(pairs), working.MAX_BATCH):
            chunk = pairs[start : start + working.MAX_BATCH]
            call = working.give_back(keys, chunk)
            codes = scripts.run_call(client, call)[1]
            # It takes them in reverse, so that the first runs first.
            done += [
                job_id for (job_id, _), code in zip(reversed(chunk), codes, strict=True) if not code
            ]
        return done


async def recover(
    pid: int,
    workers: Sequence[Held],
    log: Log,
    *,
    counted: bool,
    stopping: asyncio.Event,
) -> None:
    """Put back the jobs of a process's workers; look again a few times.

    Once it is ``stopping`` the looks follow fast. While Redis is away it is tried again until then,
    after which the stalled check of some other worker brings the jobs back.
    """
    is_away = False
    for pause_s in LOOKS_S:
        await _rest(pause_s, stopping)
        for held in workers:
            while True:
                try:
                    ids = await asyncio.to_thread(put_back, held, counted=counted)
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
                    log.warning("its jobs were put back", pid=pid, queue=held.queue, jobs=jobs)
                break


async def _rest(seconds: float, stopping: asyncio.Event) -> None:
    """Sleep; hardly, once we are stopping."""
    hasty_s = min(seconds, _HASTY_LOOK_S)
    await asyncio.sleep(hasty_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds - hasty_s):
            await stopping.wait()
