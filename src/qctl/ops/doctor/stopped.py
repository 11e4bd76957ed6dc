"""Apps that are stopped while jobs wait that may be theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qctl.grouping import grouped
from qctl.ops.doctor.examination import Examination
from qctl.ops.doctor.findings import EXAMPLES, Finding, NothingToCheckError, Subject, some
from qctl.ops.doctor.workers import unserved_note
from qctl.plurals import counted
from qctl.wire.read.snapshot import QueueSnapshot

# A manager's words for a process that is about to run again.
_RESTARTING = frozenset({"launching", "stopping", "waiting restart"})


@dataclass(frozen=True, slots=True)
class _App:
    """An app with processes that do not run.

    Args:
        down: how many of ``total`` do not run.
        status: the manager's word for it.
        commands: show why, and start it.
    """

    target: str
    status: str
    down: int
    total: int
    commands: tuple[str, ...]


def stopped_apps(exam: Examination) -> Iterator[Finding]:
    """Apps that are stopped, or that PM2 has given up, while jobs wait without a worker."""
    apps = _down(exam)
    unserved = [snapshot for snapshot in exam.snapshots if unserved_note(exam, snapshot)]
    for app in apps:
        named = {q for t in exam.settings.targets if t.process == app.target for q in t.queues}
        waiting = [s for s in unserved if s.keys.name in named] if named else unserved
        gave_up = app.status == "errored"
        if app.down < app.total:
            waiting = []
        if not waiting and not gave_up:
            continue
        yield Finding(
            severity="warning" if named or gave_up else "info",
            subject=Subject("process", app.target),
            what=_what(app, waiting, is_known=bool(named)),
            evidence={
                "status": app.status,
                "processes": app.total,
                "down": app.down,
                "queues": [s.keys.name for s in waiting][:EXAMPLES],
                "waiting": sum(s.backlog for s in waiting),
                "serves_them": True if named else None,
            },
            remedy=""
            if named or not waiting
            else "name the queues that it serves in [targets] of qctl.toml",
            commands=app.commands,
        )


def _what(app: _App, waiting: Sequence[QueueSnapshot], *, is_known: bool) -> str:
    state = "PM2 has given it up (errored)" if app.status == "errored" else f"it is {app.status}"
    if app.down < app.total:
        state = f"{app.down} of its {app.total} processes: {state}"
    if not waiting:
        return state
    names = some([s.keys.name for s in waiting])
    backlog = sum(s.backlog for s in waiting)
    text = f"{state}, and {counted(backlog, 'job waits', 'jobs wait')} in {names} without a worker"
    if is_known:
        return f"{text}, which it serves by [targets] of the config"
    return f"{text}; whether it is the one that served {names} is not known"


def _down(exam: Examination) -> list[_App]:
    """Apps of this host of which at least one process does not run."""
    from qctl.manage.qctl.manager import Qctl  # noqa: PLC0415 - only a manager that is asked is loaded

    try:
        processes = exam.all_processes if exam.chosen is None else exam.chosen
    except NothingToCheckError:
        processes = ()
    found = []
    for target, own in grouped(processes, lambda each: each.target).items():
        down = [each for each in own if each.pid is None and each.status not in _RESTARTING]
        if not down:
            continue
        # "errored" (PM2 has given it up) matters more than "stopped".
        status = min(each.status for each in down)
        keys = [each.key for each in down if each.status == status]
        verb = "restart" if status == "errored" else "start"
        commands = [f"pm2 logs {keys[0]}"] * (status == "errored")
        commands += [f"pm2 {verb} {key}" for key in keys[:EXAMPLES]]
        found.append(_App(target, status, len(down), len(own), tuple(commands)))
    if exam.chosen is None:
        masters = Qctl(exam.settings.state_home).stopped()
        found += [_App(f"qctl:{name}", "stopped", 1, 1, (start,)) for name, start in masters]
    if not processes and not found:
        raise NothingToCheckError("no process manager of this host runs, or ran, anything")
    return found
