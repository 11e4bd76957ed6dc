"""The end of a drain: resume, bring back jobs without a worker, tell what became of each job."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator

from qctl.errors import ExitStatus, QctlError, ReplyError, is_outage
from qctl.ops.drain import holding
from qctl.ops.drain.plan import not_restarted, stays_paused
from qctl.ops.drain.proof import Verdict, prove, unproved
from qctl.ops.drain.resuming import confirm, resume_own
from qctl.ops.drain.state import BLOCK_MS, DrainState
from qctl.ops.drain.steps import DrainReport, Recovered, Step
from qctl.ops.processes.suggest import command
from qctl.ops.queues.advice import limited
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import read_active
from qctl.wire.read.clients import list_workers
from qctl.wire.read.snapshot import QueueSnapshot, are_paused, read_snapshots
from qctl.wire.write.transitions import retry_stalled

# How long to watch for the first job after the resume: a worker that missed its marker looks again
# after BullMQ's drainDelay, 5 s.
FIRST_START_S = 10.0
# Ids that a command to type names at most.
MAX_NAMED = 20


class DrainEnd:
    """Puts back what a drain has changed, and makes its report."""

    def __init__(self, state: DrainState) -> None:
        self._state = state
        self._is_closed = False
        self._trouble: QctlError | None = None

    # Putting back

    def put_back(self, *, keep_paused: bool) -> Iterator[Step]:
        """Resume, and bring back the jobs that lost their worker; a roll has done that itself.

        Never raises: what cannot be put back now is left to the watchdog, and said in a note.
        """
        state = self._state
        try:
            has_restarted = bool(state.new_pids)
            if state.in_the_way and state.old_pids:
                yield from self._put_back_sole()
            if not keep_paused:
                yield from resume_own(state)
            has_left_jobs = state.old_pids or state.is_process_gone
            if has_left_jobs and state.plan.strategy != "roll":
                yield from self._recover_orphans()
                yield from self._await_locks()
            if has_restarted and not keep_paused:
                self._await_first_start()
            self._release()
        except QctlError as error:
            self._leave_to_watchdog(error)

    def close(self) -> None:
        """Undo what is left, without a word; for a drain that was cut short."""
        if self._is_closed:
            return
        try:
            for _ in resume_own(self._state):
                pass
            self._release()
        except QctlError as error:
            self._leave_to_watchdog(error)

    def _release(self) -> None:
        """Give the leases back, and dismiss the watchdog once nothing can bring our pause back."""
        guard = self._state.guard
        guard.free()
        guard.dismiss(watch_s=confirm(self._state))
        self._is_closed = True

    def _leave_to_watchdog(self, error: QctlError) -> None:
        state = self._state
        self._trouble = error
        names = ", ".join(keys.name for keys in sorted(state.paused_here))
        if names and is_outage(error):
            state.notes.append(
                f"{names} could not be resumed ({error.what}); the watchdog (pid "
                f"{state.guard.watchdog_pid}) does it as soon as Redis can be written to again"
            )
        elif names:
            queues = sorted(state.paused_here)
            remedy = command(queues[0].prefix, "resume", *(keys.name for keys in queues))
            state.notes.append(f"{names} could not be resumed ({error.what}): {remedy}")
        state.guard.abandon()
        state.is_left = True
        self._is_closed = True

    # Jobs that lost their worker

    def _recover_orphans(self) -> Iterator[Step]:
        """Put jobs without a lock back; whoever had them was restarted or has long been gone."""
        state = self._state
        jobs = read_active(state.client, state.queues)
        for keys in state.queues:
            orphans = {job.id: "" for job in jobs if job.keys == keys and job.is_orphan}
            yield from self.put_back_jobs(keys, orphans)

    def _put_back_sole(self) -> Iterator[Step]:
        """Jobs that were interrupted, of queues whose only workers were restarted: at once.

        Their lock is the one seen before the restart, so nobody else has taken them.
        """
        state = self._state
        for keys in self._sole_queues():
            locks = {j.id: j.lock_token or "" for j in state.in_the_way if j.keys == keys}
            yield from self.put_back_jobs(keys, locks)

    def _await_locks(self) -> Iterator[Step]:
        """The other interrupted jobs, each when its lock has run out.

        Nothing tells whose lock it is when there are workers elsewhere. A job whose lock is renewed
        is not interrupted: it is left to the worker that renews it.
        """
        state = self._state
        sole = self._sole_queues()
        keys_left = {job.key for job in state.in_the_way if job.keys not in sole}
        keys_left |= {job.key for job in state.in_doubt}
        # Compared from here on: until it ended, the old process may have renewed them once more.
        active = read_active(state.client, state.queues) if keys_left else []
        pending = {job.key: job for job in active if job.key in keys_left}
        while pending and not state.stop():
            now = {job.key: job for job in read_active(state.client, state.queues)}
            for key, before in list(pending.items()):
                job = now.get(key)
                if job is None or job.was_renewed_since(before):
                    del pending[key]
                elif job.is_orphan:
                    del pending[key]
                    yield from self.put_back_jobs(key[0], {key[1]: ""})
                else:
                    pending[key] = job
            if pending:
                state.follow()
                # By the clock: the queue runs again, and its events come without end.
                time.sleep(BLOCK_MS / 1000)
        for keys, job_id in sorted(pending):
            state.notes.append(
                f"job {job_id} of {keys.name} may have been interrupted; when its lock has run "
                f"out: {command(keys.prefix, 'jobs retry-stalled', keys.name)}"
            )

    def put_back_jobs(self, keys: QueueKeys, locks: dict[str, str]) -> Iterator[Step]:
        """Put jobs of a queue back, to run next.

        Args:
            locks: id → the lock that the job must still have; "" for none.
        """
        if not locks:
            return
        state = self._state
        answers = retry_stalled(state.client, keys, locks)
        done = tuple(job_id for job_id, answer in answers.items() if answer == "retried")
        state.ledger.recover((keys, job_id) for job_id in done)
        if done:
            yield Recovered(keys.name, done)

    def _sole_queues(self) -> list[QueueKeys]:
        """Queues of which every worker belonged to the restarted processes."""
        state = self._state
        connections, target = state.plan.connections, state.plan.target
        if connections is None or target is None or len(state.new_pids) < len(target.processes):
            return []
        own = {w.client_id for p in target.processes for w in connections.owned.get(p.key, ())}
        workers = {
            keys: {w.client_id for w in connections.workers if w.queue == keys.name}
            for keys in state.queues
        }
        return [keys for keys, ids in workers.items() if ids and ids <= own]

    # Telling

    def _await_first_start(self) -> None:
        """See a job start after the end: the proof that work goes on."""
        state = self._state
        deadline = time.monotonic() + FIRST_START_S
        # It may have been seen already, where an app resumed its queue when it started.
        while not (state.has_started or state.stop()):
            state.follow(wait=True)
            if state.has_started:
                return
            snapshots = read_snapshots(state.client, state.queues)
            ready = [s for s in snapshots if isinstance(s, QueueSnapshot) and not s.paused]
            # Of the others it is known why they wait.
            idle = [s for s in ready if s.backlog and not (s.rate_limited_ms or s.is_maxed)]
            if not idle:
                return
            if time.monotonic() > deadline:
                limits = [f"; {s.keys.name} {note.text}" for s in idle if (note := limited(s))]
                state.notes.append(
                    f"jobs wait, but none has started within {FIRST_START_S:.0f} s{''.join(limits)}"
                )
                return

    def report(self, outcome: str, error: QctlError | None) -> DrainReport:
        """What became of the jobs that were active when the drain began, and what is lost."""
        state, ledger = self._state, self._state.ledger
        now_ms = state.resumed_at_ms or state.paused_at_ms or 0
        unserved: tuple[str, ...] | None = None
        trouble: QctlError | None = None
        try:
            verdict = prove(state)
            active = read_active(state.client, state.queues)
            held = state.held
            state.active = [j for j in active if held is None or j.lock_token in held]
            now_ms = state.redis_now_ms()
            paused = are_paused(state.client, state.queues)
            pairs = zip(state.queues, paused, strict=True)
            state.paused_at_end = frozenset(keys for keys, is_paused in pairs if is_paused)
            unserved = self._unserved(state.paused_at_end)
        except QctlError as failure:
            trouble = failure
            what = f"what became of the jobs could not be read: {failure.what}"
            state.notes.append(what)
            verdict = unproved(state, what)
            for job in ledger.unsettled:
                ledger.settle(job, "unknown")
        is_roll = state.plan.strategy == "roll"
        for pid in state.old_pids[len(state.new_pids) :]:
            told = "was to be replaced" if is_roll else "was told to stop"
            state.notes.append(f"pid {pid} {told}; the new process has not been confirmed up")
        state.notes += holding.notes(state)
        if state.client.away_s >= 1:
            state.notes.append(f"Redis was away for {state.client.away_s:.0f} s in all")
        if state.plan.not_restarted:
            state.notes.append(not_restarted(state.plan.not_restarted))
        if state.new_pids and state.left:
            left = ", ".join(f"{process.target} id {process.key}" for process in state.left)
            state.notes.append(f"not restarted: {left}")
        self._note_proof(verdict)
        if state.plan.ignored and state.old_pids:
            state.notes.append(_ignored(state))
        jobs = ledger.outcomes()
        results = [job.result for job in jobs]
        until_ms = state.resumed_at_ms or now_ms
        # What could not be put back must not pass for a success.
        error = error or self._trouble
        if error is None and trouble is not None and is_outage(trouble):
            # A drain whose outcome nobody could look at is no success.
            error = trouble
        return DrainReport(
            outcome=outcome,
            queues=state.plan.names,
            target=state.plan.target.label if state.plan.target else None,
            strategy=state.plan.strategy,
            active_at_start=ledger.active_at_start,
            completed=results.count("completed"),
            failed=results.count("failed"),
            retried=results.count("retried"),
            interrupted=None if self._is_blind(trouble) else ledger.interrupted,
            recovered=ledger.recovered,
            lost=verdict.lost,
            proof=verdict.proof,
            jobs=tuple(jobs),
            paused_s=max(until_ms - (state.paused_at_ms or until_ms), 0) / 1000,
            idle_s=None if trouble else ledger.idle_s(now_ms),
            old_pids=tuple(state.old_pids),
            new_pids=tuple(state.new_pids),
            resumed=_is_resumed(state),
            still_paused=None
            if state.paused_at_end is None
            else tuple(keys.name for keys in state.queues if keys in state.paused_at_end),
            unserved=unserved,
            still_active=state.shown(orphans=False) if outcome == "timeout" else (),
            paused_again=state.times_paused_again.total(),
            notes=(*_paused_before(state), *state.notes),
            error=_text(error),
            exit_status=_exit_status(outcome, error, verdict),
        )

    def _is_blind(self, trouble: QctlError | None) -> bool:
        """Whether jobs may have been interrupted of which the ledger does not know."""
        state = self._state
        # A roll learns from events alone of jobs that a stalled check has put back.
        is_deaf = bool(state.missed) and state.plan.strategy == "roll"
        return trouble is not None or is_deaf or bool(state.plan.ignored and state.old_pids)

    def _unserved(self, paused: Container[QueueKeys]) -> tuple[str, ...] | None:
        """Queues that run although no worker is connected to them; None when that is unknown."""
        state = self._state
        try:
            workers = list_workers(
                state.client, state.queues[0].prefix, state.plan.names, state.address.db
            )
        except ReplyError:
            return None
        if workers is None:
            return None
        served = {worker.queue for worker in workers}
        running = [keys.name for keys in state.queues if keys not in paused]
        return tuple(name for name in running if name not in served)

    def _note_proof(self, verdict: Verdict) -> None:
        """Say what an operator should do about lost jobs, and what was deleted."""
        state, proof = self._state, verdict.proof
        lost = [job for job in state.ledger.outcomes() if job.result == "lost"]
        if lost or (verdict.lost is None and proof.checked != "nothing"):
            names = sorted({job.queue for job in lost} or {keys.name for keys in state.queues})
            prefix = state.queues[0].prefix
            note = "jobs that are in no state, and how to put them back, are found by " + command(
                prefix, "doctor", *names, "--full"
            )
            if lost:
                queue = lost[0].queue
                ids = [job.id for job in lost if job.queue == queue]
                is_all = len(ids) <= MAX_NAMED and len(names) == 1
                note += (
                    f", and shown by {command(prefix, 'jobs show', queue, ids[0])}; "
                    f"{command(prefix, 'jobs retry', queue, *ids[:MAX_NAMED])} puts "
                    f"{'back what is left of them' if is_all else 'the first ones back'}"
                )
            state.notes.append(note)
        if proof.deleted:
            what = counted(proof.deleted, "job was", "jobs were")
            state.notes.append(
                f"{what} deleted meanwhile without an event, as BullMQ's queue.drain() does"
            )


def _ignored(state: DrainState) -> str:
    """What may have become of the jobs of other queues of the process."""
    running, names = state.ignored_running, ", ".join(state.plan.ignored)
    if running is None:
        what = f"jobs of {names} that were running"
    else:
        were = counted(running, "job")
        what = f"{were} of {names} that ran before the restart"
    return (
        f"{what} may have been interrupted, which is not in the figures; they come back when their "
        "locks have run out and a worker looks for stalled jobs"
    )


def _paused_before(state: DrainState) -> Iterator[str]:
    """What became of queues that were paused when the drain began."""
    ended = holding.pauses_ended(state)
    for snapshot in state.plan.snapshots:
        keys, note = snapshot.keys, snapshot.pause_note
        if keys in state.plan.left_behind and keys in {*state.paused_here, *state.resumed_here}:
            yield f"{keys.name} had been left paused by {note}; this drain has taken that over"
        elif snapshot.paused and keys not in ended:
            yield stays_paused(snapshot)


def _is_resumed(state: DrainState) -> bool | None:
    if state.paused_here:
        return False
    if not (state.paused_any or state.resumed_here):
        # All of them were paused before; an app that resumes them has ended that.
        ended = holding.pauses_ended(state)
        return state.plan.strategy != "roll" and ended == set(state.queues)
    # Somebody else's resume is theirs to confirm.
    return True if state.is_confirmed or not state.resumed_here else None


def _text(error: QctlError | None) -> str | None:
    if error is None:
        return None
    # A queue's name may hold line ends, which must not pass for lines of ours.
    what = error.what.replace("\n", "\\n")
    return "\n".join(part for part in (what, error.why, error.hint) if part)


def _exit_status(outcome: str, error: QctlError | None, verdict: Verdict) -> int:
    if error is not None:
        return int(error.exit_status)
    if outcome == "timeout":
        return int(ExitStatus.TIMED_OUT)
    # A resume by somebody else may have lost jobs (wire format 10.2).
    is_feared = verdict.lost is None and bool(verdict.proof.resumed_by_others)
    return int(ExitStatus.FAILED if verdict.lost or is_feared else ExitStatus.OK)
