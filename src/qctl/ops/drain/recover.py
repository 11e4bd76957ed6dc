"""Put the jobs that lost their worker back into their queues, where they run next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from qctl.ops.drain.context import DrainContext
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.steps import Recovered, Step
from qctl.ops.drain.tracker import BLOCK_MS
from qctl.ops.processes.suggest import command
from qctl.wire.keys import JobKey, QueueKeys
from qctl.wire.read.active import read_active
from qctl.wire.write.transitions import retry_stalled


def put_jobs_back(context: DrainContext, locks: Mapping[JobKey, str]) -> Iterator[Step]:
    """Put jobs back into their queues, where they run next.

    Args:
        locks: job → the lock token that it must still have; "" if it must have no lock.
    """
    for keys in context.queues:
        of_queue = {job_id: lock for (queue, job_id), lock in locks.items() if queue == keys}
        answers = retry_stalled(context.client, keys, of_queue) if of_queue else {}
        done = tuple(job_id for job_id, answer in answers.items() if answer == "retried")
        context.tracker.ledger.note_recovered((keys, job_id) for job_id in done)
        if done:
            yield Recovered(context.label(keys), done)


def recover_orphans(context: DrainContext) -> Iterator[Step]:
    """Put back the orphans: active jobs without a lock, whose worker is gone."""
    jobs = read_active(context.client, context.queues)
    yield from put_jobs_back(context, {job.key: "" for job in jobs if job.is_orphan})


def recover_sole(context: DrainContext, restarted: Restarted) -> Iterator[Step]:
    """If all workers of a queue were restarted, put its interrupted jobs back at once.

    A job whose lock has changed since the restart stays active, because a new worker has it.
    """
    sole = _sole_queues(context, restarted)
    locks = {job.key: job.lock_token or "" for job in restarted.in_the_way if job.keys in sole}
    yield from put_jobs_back(context, locks)


def recover_others(context: DrainContext, restarted: Restarted) -> Iterator[Step]:
    """Put each of the other interrupted jobs back once its lock has expired.

    Their queues may have other workers. If a lock is renewed, a living worker has the job.
    """
    client = context.client
    sole = _sole_queues(context, restarted)
    keys_left = {job.key for job in restarted.in_the_way if job.keys not in sole}
    keys_left |= {job.key for job in restarted.in_doubt}
    # Read the locks again: the old process may have renewed some before it ended.
    active = read_active(client, context.queues) if keys_left else []
    pending = {job.key: job for job in active if job.key in keys_left}
    while pending and not context.stop():
        now = {job.key: job for job in read_active(client, context.queues)}
        for key, before in list(pending.items()):
            job = now.get(key)
            if job is None or job.was_renewed_since(before):
                del pending[key]
            elif job.is_orphan:
                del pending[key]
                yield from put_jobs_back(context, {key: ""})
            else:
                pending[key] = job
        if pending:
            context.tracker.follow()
            # Sleep, because the queue runs again: ``follow(wait=True)`` would end at each event.
            time.sleep(BLOCK_MS / 1000)
    for keys, job_id in sorted(pending):
        context.notes.append(
            f"job {job_id} of {context.label(keys)} may have been interrupted; to put it back once "
            f"its lock has expired: {command(keys.prefix, 'jobs retry-stalled', keys.name)}"
        )


def _sole_queues(context: DrainContext, restarted: Restarted) -> list[QueueKeys]:
    """The queues whose workers were all restarted."""
    if restarted.replacement is not None:
        # Every old worker of these queues is gone.
        return [keys for keys in context.queues if restarted.replacement.replaces_all(keys)]
    connections, target = context.plan.connections, context.plan.target
    # If a process was not restarted, it may still work on jobs of these queues.
    if connections is None or target is None or len(restarted.new_pids) < len(target.processes):
        return []
    own = {w.id for p in target.processes for w in connections.owned.get(p.identity, ())}
    workers = {
        keys: {w.id for w in connections.workers if w.keys == keys} for keys in context.queues
    }
    return [keys for keys, ids in workers.items() if ids and ids <= own]
