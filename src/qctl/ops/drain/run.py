"""Drain queues, restart their process, and prove what became of every job.

Pause → wait until nothing but orphans is active → restart → resume → recover the orphans → prove.
It needs nothing from the worker's code. Or, as a roll, see there: one process after another, while
the queues go on. ``drain`` yields a step for everything it does; the last
one is the report. Whatever happens on the way, what it paused is resumed: by this process where it
can, else by its watchdog.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import ExitStatus, QctlError, is_outage
from qctl.ops.drain.finish import DrainEnd
from qctl.ops.drain.holding import follow_active, hold_pauses, look_after_start, record_starts
from qctl.ops.drain.inventory import JobKey
from qctl.ops.drain.lease import Guard
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.proof import take_inventory
from qctl.ops.drain.roll.run import Roll
from qctl.ops.drain.state import DrainOptions, DrainState, TimedOut
from qctl.ops.drain.steps import Drained, DrainReport, Paused, Restarting, Step, TimeUp, Waiting
from qctl.ops.patience import AWAY_S, PatientClient
from qctl.ops.processes.gone import GoneError, as_it_is_now
from qctl.ops.processes.restart import Interrupted, NotReplacedError, Restart
from qctl.wire.drain_record import DrainResult, add_drain
from qctl.wire.events import Event
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import this_process
from qctl.wire.read.active import read_active

# Events wake the wait at once; this is the net for what they do not tell, such as a lock that runs
# out.
POLL_S = 1.0


def drain(
    client: Client,
    address: Address,
    settings: Settings,
    plan: DrainPlan,
    options: DrainOptions,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Step, None, None]:
    """Carry out a plan.

    Args:
        stop: asked several times a second; when it says True, everything is put back and the
            report's outcome is ``aborted``.

    Yields:
        steps, the last of which is a ``DrainReport``.

    Raises:
        RefusedError: another drain took a queue since the plan was made; nothing was changed.
        QctlError: the leases could not be taken; nothing was changed.
    """
    kept = options.keep_paused or plan.target is None
    # The verb tells `qctl status` whether a pause without a lease was left behind or meant to stay.
    stays = " --keep-paused" if options.keep_paused else " (stays paused)" if kept else ""
    holder = this_process(f"{options.verb}{stays}")
    was_paused = {s.keys: s.paused and s.keys not in plan.left_behind for s in plan.snapshots}
    # From the leases on, a Redis that goes away is sat out.
    patient = PatientClient(client, stop)
    guard = Guard(patient, address.url, holder, was_paused)
    guard.acquire()
    patient.patience_s = AWAY_S
    state = DrainState(patient, address, settings, plan, options, holder, stop, guard)
    end = DrainEnd(state)
    try:
        outcome, error = "aborted", None
        try:
            if plan.strategy == "roll":
                yield from Roll(state, end).run()
            else:
                yield from _pause(state)
                yield from _wait_and_restart(state)
                if kept:
                    _confirm(state)
            outcome = "restarted" if plan.target else "drained"
        except TimedOut:
            outcome = "timeout"
        except Interrupted:
            error = _interrupted()
        except QctlError as failure:
            error = failure
            if is_outage(failure):
                # It was sat out for long enough, unless the operator did not want to.
                error = _interrupted() if stop() else failure
                patient.patience_s = 0.0
        succeeded = outcome in {"restarted", "drained"}
        yield from end.put_back(keep_paused=kept and succeeded)
        if succeeded and not kept and plan.strategy != "roll":
            try:
                _confirm(state)
            except Interrupted:
                state.notes.append("that the new processes stay up was not waited for")
            except QctlError as failure:
                outcome, error = "aborted", failure
        report = end.report(outcome, error)
        # Do not record a drain that changed nothing.
        if succeeded or outcome == "timeout" or state.paused_any or state.old_pids:
            _record(client, state.queues[0].prefix, report, error)
            record_starts(state, complete=outcome == "restarted")
        yield report
    finally:
        # Also when the reader of the steps went away in the middle.
        end.close()


def _confirm(state: DrainState) -> None:
    """Make sure that the new processes have stayed up; see ``Restart.confirm``."""
    for number, run in enumerate(state.proved):
        state.new_pids[number] = run.confirm()


def _interrupted() -> QctlError:
    error = QctlError("interrupted")
    error.exit_status = ExitStatus.INTERRUPTED
    return error


def _record(client: Client, prefix: str, report: DrainReport, error: QctlError | None) -> None:
    """Add a drain to the record that metrics show, unless Redis went away."""
    if error is not None and is_outage(error):
        return
    # An extra: a Redis that just went away, or a user without qctl's keys, must not fail a drain.
    with suppress(QctlError):
        add_drain(
            client,
            prefix,
            DrainResult(
                at_ms=int(time.time() * 1000),
                outcome=report.outcome,
                completed=report.completed,
                failed=report.failed,
                retried=report.retried,
                interrupted=report.interrupted,
                recovered=report.recovered,
                lost=report.lost,
                paused_ms=round(report.paused_s * 1000),
                idle_ms=None if report.idle_s is None else round(report.idle_s * 1000),
            ),
        )


def _pause(state: DrainState) -> Iterator[Step]:
    for keys in state.queues:
        changed = state.pause(keys)
        take_inventory(state, keys)
        follow_active(state, keys, state.cursors[keys])
        yield Paused(keys.name, changed)


def _wait_and_restart(state: DrainState) -> Iterator[Step]:
    yield from _wait_for_jobs(state)
    yield from _restart(state)


def _wait_for_jobs(state: DrainState) -> Iterator[Step]:
    """Wait; where the operator wants it, go on when the time is up."""
    try:
        yield from _wait(state)
    except TimedOut:
        if state.plan.target is None or not state.options.restart_on_timeout:
            raise
        jobs = [job for job in state.active if not job.is_orphan]
        if state.new_pids:
            known = {job.key for job in state.in_the_way}
            state.in_doubt += [job for job in jobs if job.key not in known]
        else:
            state.in_the_way = jobs
            _note_alive(state)
        yield TimeUp(state.options.timeout_s, state.shown(orphans=False))


def _note_alive(state: DrainState) -> None:
    """Jobs in the way run until their process is killed, if it is still the one of the plan."""
    target = state.plan.target
    assert target is not None  # noqa: S101 - nothing else is restarted
    now_ms = state.redis_now_ms()
    found = [target.manager.process(planned.key) for planned in target.processes]
    pids = [process.pid for process in found if process is not None]
    if pids == [planned.pid for planned in target.processes]:
        state.ledger.alive((job.key for job in state.in_the_way), now_ms)


def _wait(state: DrainState) -> Iterator[Step]:
    began = time.monotonic()
    shown: tuple[JobKey, ...] | None = None
    shown_at = 0.0
    while True:
        if state.stop():
            raise Interrupted
        with state.client.at_most(POLL_S):
            again, trouble = _look(state)
        yield from _paused_again(again)
        is_away = trouble is not None
        waited_s = time.monotonic() - began
        blocking = tuple(job.key for job in state.active if not job.is_orphan)
        if not blocking and not is_away:
            yield Drained(round(waited_s, 3), state.shown(orphans=True))
            return
        if waited_s > state.options.timeout_s:
            # What still runs is not known then, and nothing can be put back.
            raise TimedOut if trouble is None else trouble
        if blocking != shown or time.monotonic() - shown_at >= POLL_S:
            shown, shown_at = blocking, time.monotonic()
            yield Waiting(
                active=state.shown(orphans=False),
                orphans=state.shown(orphans=True),
                waited_s=round(waited_s, 1),
                redis_away=is_away,
            )
        with state.client.at_most(0.0):
            _await_news(state, frozenset(blocking), is_away=is_away)


def _look(state: DrainState) -> tuple[list[QueueKeys], QctlError | None]:
    """See what is active now.

    Returns:
        queues that had to be paused again, and the trouble while Redis is away, which a drain sits
        out.
    """
    again: list[QueueKeys] = []
    try:
        again = hold_pauses(state)
        now_ms = state.redis_now_ms()
        state.active = read_active(state.client, state.queues)
        state.ledger.look(state.active, now_ms)
    except QctlError as error:
        if not is_outage(error):
            raise
        return again, error
    return again, None


def _paused_again(queues: Iterable[QueueKeys]) -> Iterator[Step]:
    for keys in queues:
        yield Paused(keys.name, changed=True, again=True)


def _await_news(state: DrainState, blocking: frozenset[JobKey], *, is_away: bool) -> None:
    """Return as soon as a job in the way moves or a pause changes, at the latest for the next poll.

    What producers add meanwhile is no news: on a busy queue it would make a look of every event.
    """
    deadline = time.monotonic() + POLL_S
    while time.monotonic() < deadline and not state.stop():
        if is_away:
            time.sleep(0.1)
            continue
        try:
            events = state.follow(wait=True)
        except QctlError as error:
            if not is_outage(error):
                raise
            return
        if any(_is_news(keys, event, blocking) for keys, event in events):
            return


def _is_news(keys: QueueKeys, event: Event, blocking: frozenset[JobKey]) -> bool:
    if event.name in {"paused", "resumed"}:
        return True
    return event.name != "progress" and (keys, event.job_id) in blocking


def _count_ignored(state: DrainState) -> None:
    """Take note of how many jobs of other queues the restart may interrupt."""
    if not state.plan.ignored:
        return
    prefix = state.settings.prefix
    queues = [QueueKeys(prefix, name) for name in state.plan.ignored]
    # For a note only, which also does without the number.
    with suppress(QctlError):
        jobs = read_active(state.client, queues)
        state.ignored_running = sum(not job.is_orphan for job in jobs)


def _restart(state: DrainState) -> Iterator[Step]:
    target = state.plan.target
    if target is None:
        return
    state.left = list(target.processes)
    for planned in target.processes:
        # The last look before the point of no return.
        while again := hold_pauses(state):
            yield from _paused_again(again)
            yield from _wait_for_jobs(state)
        # It may be another by now: a crash during the wait, or somebody's own restart.
        try:
            process = as_it_is_now(target.manager, planned)
        except GoneError:
            state.is_process_gone = True
            raise
        expected = state.expectation(process, state.plan.connections)
        run = Restart(state.client, target.manager, process, expected, state.stop, state.rest)
        if state.stop():
            raise Interrupted
        if run.old_started_at is not None:
            state.guard.announce_stop(process, run.old_started_at)
        if not state.old_pids:
            _count_ignored(state)
        state.left.remove(planned)
        yield Restarting(process.target, process.key, process.pid)
        if process.pid:
            state.old_pids.append(process.pid)
        else:
            state.is_process_gone = True
        try:
            ready = run.run()
        except NotReplacedError:
            if process.pid and not run.old_is_gone():
                state.old_pids.remove(process.pid)
            raise
        state.new_pids.append(ready.new_pid)
        state.proved.append(run)
        yield ready
        look_after_start(state, process)
    if state.options.keep_paused:
        yield from _paused_again(hold_pauses(state))
