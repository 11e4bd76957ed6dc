"""Checks of processes that are stopped while jobs wait, or that interrupt jobs when restarted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from qctl.durations import duration
from qctl.grouping import grouped
from qctl.manage.kinds import words_of
from qctl.ops.doctor.examination import Examination, read_once
from qctl.ops.doctor.findings import (
    MAX_EXAMPLES,
    CannotCheckError,
    Finding,
    NothingToCheckError,
    Subject,
    abbreviated,
)
from qctl.ops.doctor.workers import unserved_note
from qctl.ops.jobs.estimate import quantile
from qctl.ops.processes.attribution import configured
from qctl.ops.processes.past_restarts import PastRestart, past_restarts
from qctl.ops.processes.stopped import remedy
from qctl.ops.times import utc_datetime
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys
from qctl.wire.read.finished import RECENT_SAMPLE, RecentRuns, read_recent_runs
from qctl.wire.read.snapshot import QueueSnapshot

if TYPE_CHECKING:
    from qctl.manage.protocol import ManagedProcess

# The most completed jobs that are read from all queues together. With more than 1,000 queues, more
# are read, because 20 are read from each queue.
_SAMPLE = 20_000
# A p95 is computed only from at least this many completed jobs of one name.
MIN_RUNS = 5
_QUANTILE = 0.95
# The kill_timeout to recommend, in multiples of the p95.
_HEADROOM = 1.5
# A process may be in a loop of crashes if it came back less than _LOOP_S ago and has been restarted
# at least _LOOP_RESTARTS times.
_LOOP_S = 60
_LOOP_RESTARTS = 10
# A manager's words for a process that may be about to run again.
_RESTARTING = frozenset({"launching", "stopping", "waiting restart"})


def kill_timeout(exam: Examination) -> Iterator[Finding | str]:
    """Apps whose kill timeout is shorter than the p95 of their slowest jobs."""
    unknown, no_limit = [], []
    for target, processes in grouped(exam.served, lambda each: each.target).items():
        slowest = _slowest(exam, processes)
        if slowest is None:
            unknown.append(target)
            continue
        limits = [(p.kill_timeout_ms, p) for p in processes if p.kill_timeout_ms is not None]
        kill_ms, shortest = min(limits, key=lambda limit: limit[0], default=(None, None))
        if kill_ms is None or shortest is None or slowest.p95_s * 1000 <= kill_ms:
            if len(limits) < len(processes):
                no_limit.append(target)
            continue
        needed_ms = ceil(slowest.p95_s * _HEADROOM) * 1000
        yield Finding(
            severity="warning",
            subject=Subject("process", target),
            what=f"it is killed {kill_ms / 1000:g} s after {_signal(shortest)}, "
            f"and one in twenty {slowest.name!r} jobs of {slowest.queue} runs "
            f"{slowest.p95_s:.1f} s or longer",
            evidence={
                "kill_timeout_ms": kill_ms,
                "stop_signal": shortest.stop_signal or None,
                "queue": slowest.queue,
                "job_name": slowest.name,
                "p95_s": round(slowest.p95_s, 3),
                "jobs_looked_at": slowest.runs,
            },
            remedy=f"{_longer_grace(shortest, needed_ms)}, and "
            "let it close its workers on that signal; until then restart it through qctl",
            commands=(exam.restart(target),),
        )
    if unknown:
        yield f"it is unknown how long the jobs of {abbreviated(unknown)} take: too few are kept"
    if no_limit:
        yield f"it is unknown how soon after the stop signal {abbreviated(no_limit)} is killed"


def signal_path(exam: Examination) -> Iterator[Finding]:
    """Apps whose stop signal may not reach the workers, judging by what their manager shows."""
    for target, processes in grouped(exam.served, lambda each: each.target).items():
        troubles = grouped([p for p in processes if p.signal_trouble], lambda p: p.signal_trouble)
        for trouble, own in troubles.items():
            fix = (
                "make the worker the process that the manager starts, and close it on the signal; "
                "until then restart it through qctl"
            )
            commands: tuple[str, ...] = (exam.restart(target),)
            if not all(p.tree_kill for p in own):
                # Do not recommend a restart: the old workers would survive it.
                fix, commands = words_of(own[0].kind).tree_kill, ()
            yield Finding(
                severity="warning",
                subject=Subject("process", target),
                what=f"{trouble}: a plain restart may interrupt its jobs",
                evidence={
                    "stop_signal": own[0].stop_signal,
                    "kill_timeout_ms": own[0].kill_timeout_ms,
                    "processes": [p.key for p in own][:MAX_EXAMPLES],
                },
                remedy=fix,
                commands=commands,
            )


def stop_signal(exam: Examination) -> Iterator[Finding | str]:
    """Apps that seem to ignore their manager's stop signal, judging by their last restart."""
    forgotten = 0
    for target, processes in grouped(exam.served, lambda each: each.target).items():
        if target.startswith("qctl:"):
            # qctl's own workers obey the signal. A worker that interrupted jobs had crashed.
            continue
        past = [each for each in _past_restarts(exam) if each.process in processes]
        forgotten += sum(not each.remembered for each in past)
        hit = [each for each in past if each.interrupted]
        shared = sorted({e.queue for e in hit if _is_shared(exam, e.queue, target)})
        if own := [each for each in hit if each.queue not in shared]:
            yield _likely_interruption(exam, target, own, _slowest(exam, processes))
        elif hit:
            yield _possible_interruption(exam, target, hit, shared)
    if forgotten:
        yield (
            f"the queues' events no longer reach back to {counted(forgotten, 'restart')}: of the "
            "jobs interrupted then, only those that are still in Redis are known"
        )


def _likely_interruption(
    exam: Examination, target: str, hit: Sequence[PastRestart], slowest: _Slowest | None
) -> Finding:
    one, evidence = hit[0].process, _restart_evidence(exam, hit)
    kill_ms = one.kill_timeout_ms
    ends_in_time = slowest is not None and kill_ms is not None and slowest.p95_s * 1000 < kill_ms
    kills = (
        "kills the process later"
        if kill_ms is None
        else (f"kills the process {kill_ms / 1000:g} s later")
    )
    return Finding(
        severity="warning",
        subject=Subject("process", target),
        what=f"{counted(evidence['interrupted'], 'job')} stalled soon after its last start, "
        f"probably interrupted by that restart; the manager sends {_signal(one)} and {kills}: "
        + (
            "its jobs usually end sooner, so the app ignores the signal, or it crashed"
            if ends_in_time
            else "the app ignores the signal, or its jobs take longer, or it crashed"
        ),
        evidence=evidence,
        remedy=f"close the workers on {_signal(one)} (await worker.close()) before exiting; "
        "until then restart it through qctl, which needs no handler",
        commands=(exam.restart(target),),
    )


def _possible_interruption(
    exam: Examination, target: str, hit: Sequence[PastRestart], shared: Sequence[QueueKeys]
) -> Finding:
    """The finding for stalled jobs that may have run in another app."""
    evidence, names = _restart_evidence(exam, hit), [*map(exam.label, shared)]
    return Finding(
        severity="info",
        subject=Subject("process", target),
        what=f"{counted(evidence['interrupted'], 'job')} stalled soon after its last start; other "
        f"apps also have workers on {abbreviated(names)}: it is unknown which app ran these jobs",
        evidence=evidence | {"shared_queues": names[:MAX_EXAMPLES]},
        commands=tuple(exam.command("workers", keys.name) for keys in shared[:1]),
    )


def _restart_evidence(exam: Examination, hit: Sequence[PastRestart]) -> dict[str, Any]:
    # Count each job once: two instances that started together list the same jobs.
    jobs = dict.fromkeys(
        (exam.label(each.queue), job_id) for each in hit for job_id in each.interrupted
    )
    return {
        "interrupted": len(jobs),
        "jobs": [{"queue": name, "id": job_id} for name, job_id in jobs][:MAX_EXAMPLES],
        "restarted_at": utc_datetime(hit[0].at_ms),
        "stop_signal": hit[0].process.stop_signal or None,
        "kill_timeout_ms": hit[0].process.kill_timeout_ms,
    }


def _is_shared(exam: Examination, keys: QueueKeys, target: str) -> bool:
    """Whether another target has, or may have, workers on the queue."""
    held = (exam.holders.get(worker.id) for worker in exam.workers_of(keys))
    if any(holder is None or holder.target != target for holder in held):
        return True
    running = {each.target for each in exam.all_processes if each.runs} - {target}
    return any(configured(exam.settings, other, [keys]) for other in running)


def treekill(exam: Examination) -> Iterator[Finding]:
    """Apps whose child processes survive when the manager kills the app.

    The job of a sandboxed processor then goes on, although another worker runs it again.
    """
    for target, processes in grouped(exam.served, lambda each: each.target).items():
        loose = [p for p in processes if not p.tree_kill]
        if not loose:
            continue
        children, words = _children(loose), words_of(loose[0].kind)
        if not children and loose[0].kind == "supervisord":
            # Do not report the default of supervisord for an app without children.
            continue
        yield Finding(
            severity="warning" if children else "info",
            subject=Subject("process", target),
            what=f"{words.spares_children}: if its processors are sandboxed (a file in place of a "
            "function), a killed worker leaves them running, and their jobs run twice"
            + (f"; it has {len(children)} child processes now" if children else ""),
            evidence={"children": len(children), "pids": children[:MAX_EXAMPLES]},
            remedy=words.tree_kill,
        )


def process_names(exam: Examination) -> Iterator[Finding]:
    """Names that several PM2 apps share, or that are also the namespace or id of another app."""
    processes = [p for p in exam.all_processes if p.target.startswith("pm2:")]
    if not processes:
        raise NothingToCheckError("PM2 runs nothing on this host")
    chosen = None if exam.chosen is None else {p.name for p in exam.chosen}
    for name, own in grouped(processes, lambda each: each.name).items():
        if chosen is not None and name not in chosen:
            continue
        kinds = {(p.namespace, p.script, p.cwd) for p in own}
        inside = [p for p in processes if p.namespace == name and p.name != name]
        by_id = [p for p in processes if p.key == name and p.name != name]
        others = sorted({p.target for p in (*inside, *by_id)})
        if len(kinds) < 2 and not others:
            continue
        reasons = [f"{len(kinds)} different apps have this name"] * (len(kinds) > 1)
        reasons += ["it is also a namespace"] * bool(inside)
        reasons += ["it is also a pm_id"] * bool(by_id)
        also = f", also {', '.join(others[:MAX_EXAMPLES])}" if others else ""
        yield Finding(
            severity="warning",
            subject=Subject("process", f"pm2:{name}"),
            what=f"`pm2 restart {name}` restarts more than one app{also}: {'; '.join(reasons)}",
            evidence={
                "pm_ids": [p.key for p in own][:MAX_EXAMPLES],
                "namespaces": sorted({p.namespace for p in own}),
                "others": others[:MAX_EXAMPLES],
            },
            remedy="rename one of them; qctl never takes a name for a namespace",
            commands=(exam.restart(f"pm2:{own[0].key}"),),
        )


@dataclass(frozen=True, slots=True)
class _Slowest:
    """The job name with the longest runs; ``runs`` is how many runs of this name were read."""

    queue: str
    name: str
    runs: int
    p95_s: float


def _slowest(exam: Examination, processes: Sequence[ManagedProcess]) -> _Slowest | None:
    queues = {name for p in processes for name in exam.served[p]}
    found = [
        _Slowest(exam.label(keys), name, len(runs), quantile(sorted(runs), _QUANTILE) or 0.0)
        for keys, by_name in _durations(exam).items()
        if keys.name in queues
        for name, runs in by_name.items()
        if len(runs) >= MIN_RUNS
    ]
    return max(found, key=lambda each: each.p95_s, default=None)


@read_once
def _durations(exam: Examination) -> RecentRuns:
    names = {name for served in exam.served.values() for name in served}
    queues = [keys for keys in exam.keys if keys.name in names]
    sample = max(min(_SAMPLE // max(len(exam.keys), 1), RECENT_SAMPLE), 20)
    return read_recent_runs(exam.client, queues, sample)


@read_once
def _past_restarts(exam: Examination) -> list[PastRestart]:
    by_name = {keys.name: keys for keys in exam.keys}
    served = {p: [by_name[name] for name in sorted(names)] for p, names in exam.served.items()}
    return past_restarts(exam.client, served, clock_ahead_ms=exam.servers[0].clock_ahead_ms)


def _children(processes: Sequence[ManagedProcess]) -> list[int]:
    from qctl.manage.host import process_tree  # noqa: PLC0415 - psutil, 30 ms

    try:
        return [child for p in processes if p.pid for child in process_tree(p.pid)[1:]]
    except Exception as error:
        raise CannotCheckError(f"its child processes are unknown: {error}") from error


def _longer_grace(process: ManagedProcess, needed_ms: int) -> str:
    """How to make the manager wait for ``needed_ms`` before it kills the process."""
    return words_of(process.kind).grace.format(ms=needed_ms, s=needed_ms // 1000)


def _signal(each: ManagedProcess) -> str:
    if each.stop_signal == "message":
        return "the message 'shutdown'"
    return each.stop_signal or "its stop signal"


# Stopped apps


@dataclass(frozen=True, slots=True)
class _App:
    """An app with ``total`` processes, of which ``down`` do not run.

    Args:
        status: the manager's word for the processes that do not run; ``errored`` if the manager
            gave one of them up.
        commands: what to type to start the app; before that, if the manager gave the app up, the
            command that shows the app's log.
    """

    target: str
    status: str
    down: int
    total: int
    commands: tuple[str, ...]


def stopped_apps(exam: Examination) -> Iterator[Finding]:
    """Apps that their manager gave up, and apps that are stopped although jobs need a worker."""
    apps = _down(exam)
    unserved = [snapshot for snapshot in exam.snapshots if unserved_note(exam, snapshot)]
    for app in apps:
        named = {q for t in exam.settings.targets if t.process == app.target for q in t.queues}
        # An app without queues in [targets] may serve any queue.
        waiting = unserved
        if named:
            its_own = configured(exam.settings, app.target, [s.keys for s in unserved])
            waiting = [s for s in unserved if s.keys in its_own]
        gave_up = app.status == "errored"
        if app.down < app.total:
            waiting = []  # The app still runs, so the jobs do not wait for it.
        if not waiting and not gave_up:
            continue
        yield Finding(
            severity="warning" if named or gave_up else "info",
            subject=Subject("process", app.target),
            what=_what(exam, app, waiting, is_known=bool(named)),
            evidence={
                "status": app.status,
                "processes": app.total,
                "down": app.down,
                "queues": [exam.label(s.keys) for s in waiting][:MAX_EXAMPLES],
                "waiting": sum(s.backlog for s in waiting),
                "serves_them": True if named else None,
            },
            remedy=""
            if named or not waiting
            else "name the queues that it serves in [targets] of qctl.toml",
            commands=app.commands,
        )


def _what(exam: Examination, app: _App, waiting: Sequence[QueueSnapshot], *, is_known: bool) -> str:
    kind = words_of(app.target.partition(":")[0])
    state = kind.errored if app.status == "errored" else f"it is {app.status}"
    if app.down < app.total:
        does = "does" if app.down == 1 else "do"
        state = f"{app.down} of its {app.total} processes {does} not run: {state}"
    if not waiting:
        return state
    names = abbreviated([exam.label(s.keys) for s in waiting])
    backlog = sum(s.backlog for s in waiting)
    text = f"{state}, and {counted(backlog, 'job waits', 'jobs wait')} in {names} without a worker"
    if is_known:
        return f"{text}; by [targets] of the config, it serves {names}"
    return f"{text}; it is unknown whether it served {names}"


def crash_loops(exam: Examination) -> Iterator[Finding]:
    """Apps that may crash again and again, but too slowly for PM2 to give them up."""
    processes = exam.all_processes if exam.chosen is None else exam.chosen
    now_ms = time.time() * 1000
    for target, own in grouped(processes, lambda each: each.target).items():
        looping = [each for each in own if _may_loop(each, now_ms)]
        if not looping:
            continue
        latest = max(looping, key=lambda each: each.last_start_ms or 0)
        ago = duration(max(now_ms - (latest.last_start_ms or 0), 0) / 1000)
        yield Finding(
            severity="warning",
            subject=Subject("process", target),
            what=f"it ended by itself, came back {ago} ago, and has been restarted "
            f"{latest.restarts} times: it may crash again and again",
            evidence={
                "processes": [each.key for each in looping][:MAX_EXAMPLES],
                "restarts": latest.restarts,
                "started_at": utc_datetime(latest.last_start_ms),
            },
            commands=(remedy(latest, "log"),),
        )


def _may_loop(process: ManagedProcess, now_ms: float) -> bool:
    return (
        process.came_back
        and process.last_start_ms is not None
        and now_ms - process.last_start_ms < _LOOP_S * 1000
        and (process.restarts or 0) >= _LOOP_RESTARTS
        and (process.runs or process.status in _RESTARTING)
    )


def _down(exam: Examination) -> list[_App]:
    """Apps of this host with at least one process that does not run."""
    from qctl.manage.qctl.manager import Qctl  # noqa: PLC0415 - a manager is loaded only if it is asked

    try:
        processes = exam.all_processes if exam.chosen is None else exam.chosen
    except NothingToCheckError:
        processes = ()
    found = []
    for target, own in grouped(processes, lambda each: each.target).items():
        down = [each for each in own if not each.runs and each.status not in _RESTARTING]
        if not down:
            continue
        # "errored" (the manager gave it up) matters more than "stopped", and sorts before it.
        status = min(each.status for each in down)
        same = [each for each in down if each.status == status]
        verb = "restart" if status == "errored" else "start"
        commands = [remedy(same[0], "log")] * (status == "errored")
        commands += [remedy(each, verb) for each in same[:MAX_EXAMPLES]]
        # Processes that are replaced together have one command.
        commands = list(dict.fromkeys(commands))
        found.append(_App(target, status, len(down), len(own), tuple(commands)))
    if exam.chosen is None:
        masters = Qctl(exam.settings.state_home).stopped()
        found += [_App(f"qctl:{name}", "stopped", 1, 1, (start,)) for name, start in masters]
    if not processes and not found:
        raise NothingToCheckError("no process manager of this host runs, or ran, anything")
    return found
