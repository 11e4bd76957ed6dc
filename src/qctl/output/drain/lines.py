"""A drain as text: its plan, a line for each step, the jobs it waits for, and its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qctl.ops.drain.steps import (
    CommandDone,
    Drained,
    DrainReport,
    Paused,
    Planned,
    Recovered,
    Restarting,
    Resumed,
    RunningCommand,
    RunningJob,
    Step,
    TimeUp,
    Waiting,
)
from qctl.ops.processes.restart import Ready
from qctl.ops.processes.suggest import command, quoted
from qctl.output.drain.facts import kill_text, order_of, replaced
from qctl.output.text import count, duration, listed, visible
from qctl.plurals import counted

_MAX_JOBS = 10
# How many harmed jobs the report lists: about a screenful.
_MAX_HARMED = 50


def _plan_lines(plan: Planned) -> Iterator[str]:
    """What the drain will do, with the current numbers of jobs."""
    names = ", ".join(visible(name) for name in plan.queues)
    yield f"queues     {names}"
    yield (
        f"running    {counted(len(plan.active), 'job')}"
        + (f" and {counted(len(plan.orphans), 'stalled job')} (no lock)" if plan.orphans else "")
        + f"; {plan.backlog:,} waiting"
    )
    yield from _job_lines(plan.active)
    if plan.active:
        wait = "unknown: too few recent runs"
        if plan.estimate_s is not None:
            wait = f"about {duration(plan.estimate_s)}, by recent runs"
        yield f"wait       {wait}"
    for label, order in order_of(plan):
        yield f"{label:<11}{order}"
    for process in plan.processes:
        serves = ", ".join(visible(q) for q in process.queues) or "unknown"
        name = f"{visible(process.target)} id {process.key}"
        if process.pid is None and process.status != "online":
            yield f"start      {name}, which is {process.status}; its queues: {serves}"
            continue
        # A process on another host has no pid here.
        pid = f"pid {process.pid}, " if process.pid is not None else ""
        stop_signal = process.stop_signal or "unknown stop signal"
        yield (
            f"restart    {name}, {pid}{process.status}: {stop_signal}, "
            f"{kill_text(process, plan.strategy)}; its queues: {serves}"
        )
    if plan.command:
        yield f"command    {visible(' '.join(map(quoted, plan.command)))}"
    for warning in plan.warnings:
        yield f"note       {visible(warning)}"


def _job_lines(jobs: Sequence[RunningJob]) -> Iterator[str]:
    """At most ten of the running jobs, the longest running first."""
    ordered = sorted(jobs, key=lambda job: -(job.runtime_s or 0))
    for job in ordered[:_MAX_JOBS]:
        yield f"    {_job(job)}"
    if len(jobs) > _MAX_JOBS:
        yield f"    … and {len(jobs) - _MAX_JOBS:,} more"


def _job(job: RunningJob) -> str:
    name = visible(job.name) if job.name is not None else "(no data)"
    ran = duration(job.runtime_s) if job.runtime_s is not None else "?"
    parts = [f"{visible(job.queue)} {visible(job.id)}  {name}", f"running {ran}"]
    if job.estimate_s is not None:
        parts.append(f"about {duration(job.estimate_s)} to go")
    if job.lock_ttl_ms is not None:
        parts.append(f"lock {duration(job.lock_ttl_ms / 1000)}")
    if job.worker:
        parts.append(f"worker {visible(job.worker)}")
    return ", ".join(parts)


def step_lines(step: Step) -> Iterator[str]:  # noqa: PLR0912 - one case per step
    """One line for a step, or several lines for the plan, a wait and the report."""
    match step:
        case Planned():
            yield from _plan_lines(step)
        case Waiting():
            yield from _waiting_lines(step)
        case DrainReport():
            yield from _report_lines(step)
        case Paused():
            done = "paused" if step.changed else "was paused already"
            if step.again:
                done = "was no longer paused; paused again"
            yield f"{visible(step.queue)} {done}"
        case Drained():
            none = "no job is running"
            if step.orphans:
                none = (
                    "no job with a lock is running; not waited for: "
                    f"{counted(len(step.orphans), 'stalled job')}, which a hung worker may still "
                    "be running"
                )
            yield f"drained after {duration(step.waited_s)}: {none}"
        case TimeUp():
            jobs = counted(len(step.active), "job")
            yield (
                f"timed out after {duration(step.waited_s)} with {jobs} still running; restarting "
                "anyway, then putting the interrupted jobs back"
            )
        case Restarting():
            name = f"{visible(step.target)} id {step.key}"
            yield f"restarting {name} (pid {step.pid}) …" if step.pid else f"starting {name} …"
        case Ready():
            workers = ", ".join(map(visible, step.workers))
            before = f"pid {step.old_pid} is gone" if step.old_pid else "it was not running"
            serves = f"serves {workers}" if workers else "stays up"
            yield (
                f"{visible(step.target)} id {step.key} is up: {before}, "
                f"pid {step.new_pid} {serves} ({duration(step.took_s)})"
            )
        case RunningCommand():
            yield f"running: {visible(' '.join(map(quoted, step.argv)))}"
        case CommandDone():
            yield f"the command has ended; {replaced(step)} ({duration(step.took_s)})"
        case Resumed():
            yield f"{visible(step.queue)} resumed"
        case Recovered():
            ids = listed(step.ids, _MAX_JOBS)
            yield f"{visible(step.queue)}: {counted(len(step.ids), 'job')} put back: {ids}"


def _waiting_lines(step: Waiting) -> Iterator[str]:
    """The jobs that the drain waits for."""
    if step.redis_away:
        yield "Redis does not answer; waiting for it …"
    elif not step.active:
        yield f"no job is left to wait for, {duration(step.waited_s)} so far"
    else:
        stalled = f" (not for {counted(len(step.orphans), 'stalled job')})" if step.orphans else ""
        jobs = counted(len(step.active), "job")
        yield f"waiting for {jobs}, {duration(step.waited_s)} so far{stalled}"
        yield from _job_lines(step.active)


_HEADLINES = {
    "drained": "drained: nothing is running",
    "restarted": "restarted",
    "timeout": "timed out: jobs were still running",
    "refused": "refused",
    "aborted": "aborted",
}


def _report_lines(report: DrainReport) -> Iterator[str]:
    """What happened to the jobs and queues; the headline comes last."""
    has_more = report.strategy == "roll" or report.paused_again
    more = f", {len(report.jobs)} watched in all" if has_more else ""
    running = sum(job.result == "running" for job in report.jobs)
    yield (
        f"jobs active at the start: {report.active_at_start}{more}: {report.completed} completed, "
        f"{report.failed} failed, {report.retried} retried, {report.recovered} recovered"
        + (f", {running} running" if running else "")
    )
    interrupted = "unknown" if report.interrupted is None else count(report.interrupted)
    lost = "unknown" if report.lost is None else count(report.lost)
    yield f"interrupted: {interrupted}   lost: {lost}{_checked(report)}"
    # During a roll the queues are not paused, so a job that still runs is not harmed.
    unharmed = {"completed", "retried"} | ({"running"} if report.strategy == "roll" else set())
    harmed = [job for job in report.jobs if job.result not in unharmed]
    for job in harmed[:_MAX_HARMED]:
        was = f", was {job.was}" if job.result == "lost" else ""
        yield f"    {visible(job.queue)} {visible(job.id)}: {job.result}{was}"
    if len(harmed) > _MAX_HARMED:
        yield f"    … and {len(harmed) - _MAX_HARMED:,} more; --json lists all"
    gap = "unknown" if report.idle_s is None else duration(report.idle_s)
    # The exact end of an interrupted run is unknown, so the gap may be shorter.
    at_most = "at most " if report.interrupted and report.idle_s is not None else ""
    idle = f"longest gap with jobs waiting: {at_most}{gap}"
    if report.strategy == "roll":
        yield f"not paused; {idle}"
    elif report.paused_s:
        yield f"paused for {duration(report.paused_s)}; {idle}"
    for note in report.notes:
        yield f"note: {visible(note)}"
    if report.still_active:
        yield "still running:"
        yield from _job_lines(report.still_active)
    yield _headline(report)


def _checked(report: DrainReport) -> str:
    """What the number of lost jobs is based on."""
    proof = report.proof
    if report.lost is None:
        return f" ({visible(proof.why)})" if proof.why else ""
    what = proof.checked
    if what == "all ids":
        what = ("all " if proof.ids > 1 else "") + counted(proof.ids, "job")
    return f"   ({what} checked)"


def _headline(report: DrainReport) -> str:
    text = _HEADLINES[report.outcome]
    if report.outcome == "drained" and any(job.result == "orphaned" for job in report.jobs):
        # A hung worker loses its locks, but may still be running its jobs.
        text = "drained: nothing with a lock is running"
    if report.outcome == "restarted":
        pids = ", ".join(map(str, report.new_pids))
        text = f"restarted {visible(report.target or '')} (now pid {pids})"
        if report.command:
            text = f"restarted by {visible(report.command[0])}: {replaced(report)}"
    done = counted(len(report.new_pids), "process", "processes")
    if report.strategy == "roll" and report.outcome == "timeout":
        asked = counted(len(report.old_pids), "process", "processes")
        text = (
            f"timed out: {asked} asked to exit, {len(report.new_pids)} replaced; nothing was killed"
        )
    elif report.outcome == "timeout" and report.new_pids:
        # The time ran out after some restarts, while the drain waited for the next process's jobs.
        text = f"{text} after {done} had been restarted"
    elif report.outcome == "timeout" and (report.target or report.command):
        text = f"{text}, so nothing was restarted"
    parts = [text]
    unserved = report.unserved or ()
    still = report.still_paused or ()
    has_succeeded = report.strategy != "roll" and report.outcome in {"drained", "restarted"}
    # It is unknown which queues are still paused, so all are named.
    if report.resumed is False and report.still_paused is None:
        still = report.queues
    if report.resumed is not False or has_succeeded:
        served = [queue for queue in report.queues if queue not in {*unserved, *still}]
        if served:
            # If a process was stopped and not replaced, its workers may be missing.
            is_sure = report.unserved is not None and len(report.new_pids) >= len(report.old_pids)
            runs = "running again" if is_sure else "resumed"
            parts.append(f"{', '.join(map(visible, served))} {runs}")
        if report.resumed is None:
            parts.append("a failover may still undo the resume")
    if still and has_succeeded:
        resume = visible(command(report.prefix, "resume", *still))
        which = "" if len(still) == len(report.queues) else f"{', '.join(map(visible, still))} "
        parts.append(f"{which}still paused; resume with: {resume}")
    if unserved:
        names = ", ".join(map(visible, unserved))
        resumed_but = "" if report.resumed is False else "resumed, but "
        parts.append(f"{names} {resumed_but}without a worker: none is connected")
    return "; ".join(parts)
