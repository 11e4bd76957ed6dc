"""Find the jobs that the processes of a roll have left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from qctl.ops.drain.context import DrainContext
from qctl.ops.drain.roll.ledger import RollLedger
from qctl.ops.drain.steps import Step, Waiting
from qctl.ops.processes.restart import Interrupted
from qctl.wire.keys import JobKey
from qctl.wire.read.active import ActiveJob, read_active

# How often the pending jobs are shown.
SHOW_EVERY_S = 1.0
# How long to wait beyond a lock's remaining time: by then, it was renewed or has expired.
LOCK_GRACE_S = 5.0


class LeftBehind:
    """The jobs that the processes of a batch have left behind.

    The processes of a batch exit at the same time.

    Args:
        before: the active jobs before the processes were asked to exit.

    Attributes:
        is_any_gone: whether any of the processes has exited.
        jobs: job that was left behind → its last reading; None if it is already back in its queue.
    """

    def __init__(
        self,
        context: DrainContext,
        ledger: RollLedger,
        before: Sequence[ActiveJob] = (),
    ) -> None:
        self._context = context
        self._tracker = context.tracker
        self._ledger = ledger
        # Jobs that had no worker before the processes were asked to exit.
        self._orphans = frozenset(job.key for job in before if job.is_orphan)
        # The names of the workers in exited processes; None if any of these workers has no name.
        self._names: frozenset[str] | None = frozenset()
        # The latest reading of each job that was active after any of the exits.
        self._active: dict[JobKey, ActiveJob] = {}
        # For each job in ``before``: the name of the worker that had it.
        self._workers = {job.key: job.worker for job in before}
        self.is_any_gone = False
        self.jobs: dict[JobKey, ActiveJob | None] = {}

    def note_exit(self, own_names: frozenset[str] = frozenset()) -> None:
        """Read the active jobs after a process has exited, including any that it left behind.

        Args:
            own_names: the names of the process's workers; empty if any worker has no name.
        """
        self._names = self._names | own_names if self._names is not None and own_names else None
        self._tracker.catch_up()
        jobs = read_active(self._context.client, self._context.queues)
        self._ledger.add_jobs(job.key for job in jobs if job.key not in self._orphans)
        self.is_any_gone = True
        self._active |= {job.key: job for job in jobs}

    def find(self) -> Iterator[Step]:
        """Find the active jobs that no longer have a worker, and put them into ``jobs``.

        A job whose worker has another name than all workers of these processes is left out: its
        worker is gone for another reason. For example, another host was cut off from Redis.

        If a job's lock expires, its process left the job behind. If the job ends, or the worker
        that holds the lock renews any lock or takes another job, the worker is alive.

        Raises:
            Interrupted: the operator wants to stop.
        """
        context = self._context
        pending: dict[JobKey, ActiveJob] = {}
        for job in self._active.values():
            if not self._may_be_own(job.worker):
                continue
            if not job.is_orphan:
                pending[job.key] = job
            elif job.key not in self._orphans:
                self.jobs[job.key] = job
        tokens = {job.lock_token for job in self._active.values()}
        longest_ms = max((job.lock_ttl_ms or 0 for job in pending.values()), default=0)
        until = time.monotonic() + longest_ms / 1000 + LOCK_GRACE_S
        began = shown_at = time.monotonic()
        while pending and time.monotonic() < until:
            if context.stop():
                raise Interrupted
            now = {job.key: job for job in read_active(context.client, context.queues)}
            self._settle(pending, now, tokens)
            if pending and time.monotonic() - shown_at >= SHOW_EVERY_S:
                shown_at = time.monotonic()
                yield Waiting(
                    active=context.plan.shown(pending.values()),
                    orphans=(),
                    waited_s=round(shown_at - began, 1),
                )
            if pending:
                self._tracker.rest()
        for keys, job_id in sorted(pending):
            context.notes.append(
                f"it is unknown whether job {job_id} of {context.label(keys)} still runs"
            )
        self._tracker.catch_up()
        for key in self._ledger.take_stalled() - self._orphans:
            # By now, another worker may have the job.
            if key not in self._workers or self._may_be_own(self._workers[key]):
                self.jobs[key] = None

    def _may_be_own(self, worker: str | None) -> bool:
        """Whether the worker with this name may belong to the processes."""
        return self._names is None or worker in self._names

    def _settle(
        self,
        pending: dict[JobKey, ActiveJob],
        now: dict[JobKey, ActiveJob],
        tokens: set[str | None],
    ) -> None:
        """Remove from ``pending`` each job that ended, was left behind, or has a living worker."""
        # A worker that took a job or renewed a lock after the process exited is alive.
        alive = {_owner(job) for job in now.values() if job.lock_token not in tokens}
        for key, before in pending.items():
            job = now.get(key)
            if job is not None and job.was_renewed_since(before):
                alive.add(_owner(job))
        for key, before in list(pending.items()):
            job = now.get(key)
            if job is None or job.lock_token not in {None, before.lock_token}:
                del pending[key]
            elif job.is_orphan:
                del pending[key]
                self.jobs[key] = job
            elif _owner(job) in alive - {""}:
                del pending[key]
            else:
                pending[key] = job


def _owner(job: ActiveJob) -> str:
    """The part that all lock tokens of a worker share; "" for a token of another form."""
    return (job.lock_token or "").rpartition(":")[0]
