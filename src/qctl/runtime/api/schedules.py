"""Schedules in code: ``Worker.cron`` and ``Worker.every``.

At its start, a worker makes a job scheduler for each of its schedules, or changes the scheduler if
the code has changed. The scheduler's record is marked with the top-level package of the handler.
By the mark, a worker finds the schedulers of its package that are no longer in the code. If a Node
producer, ``Queue.upsert_scheduler`` or ``qctl schedules set`` changes a scheduler, the record loses
its mark.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from qctl.connection.address import Client
from qctl.errors import FailedError, RefusedError, ReplyError, UsageError, is_outage
from qctl.runtime.logs import Log
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys
from qctl.wire.options import JobOptions
from qctl.wire.schedulers import scheduling
from qctl.wire.schedulers.scheduling import Schedule, Scheduler
from qctl.wire.scripts import ScriptCall


@dataclass(frozen=True, slots=True)
class CodeSchedule:
    """A schedule of a handler.

    Args:
        package: the handler's top-level package.
        name, data, options: those of the scheduler's jobs.

    Raises:
        UsageError: something is wrong, for example the pattern or the time zone.
    """

    scheduler_id: str
    package: str
    schedule: Schedule
    name: str
    data: Any
    options: JobOptions

    def __post_init__(self) -> None:
        # The call is built only so that its checks run.
        self.upsert_call(QueueKeys("bull", "q"))

    def upsert_call(self, keys: QueueKeys) -> ScriptCall:
        return scheduling.upsert_call(
            keys,
            self.scheduler_id,
            self.schedule,
            self.name,
            self.data,
            self.options,
            time.time_ns() // 1_000_000,
            package=self.package,
            keeps_due=True,
        )


def package_of(handler: Callable[..., Any]) -> str:
    """The top-level package of a function: ``myapp`` for a function in ``myapp.jobs.mail``."""
    return getattr(handler, "__module__", "").partition(".")[0] or "__main__"


def apply(
    client: Client,
    keys: QueueKeys,
    schedules: Iterable[CodeSchedule],
    *,
    packages: set[str],
    prune: bool,
) -> None:
    """Make or change the schedulers of the code; report or remove those no longer in the code.

    Safe in several processes at the same time. If a scheduler cannot be stored, the error is only
    logged, so that the worker runs nevertheless.

    Args:
        packages: the packages of the worker's handlers. The schedulers of other packages stay.
        prune: remove schedulers that are no longer in the code. Else only log them.

    Raises:
        UnreachableError, ReplyError: Redis is away.
    """
    log, made = Log("worker", queue=keys.name), set()
    for each in schedules:
        made.add(each.scheduler_id)
        try:
            answer = scripts.run_call(client, each.upsert_call(keys))
            scheduling.upserted_id(each.scheduler_id, answer)
        except (ReplyError, RefusedError, FailedError, UsageError) as error:
            _raise_outage(error)
            log.error(
                "schedule not stored", scheduler=each.scheduler_id, why=error.why or str(error)
            )
    if made:
        log.info("schedules stored", schedulers=",".join(sorted(made)))
    try:
        for scheduler in _read_schedulers(client, keys):
            if scheduler.package in packages and scheduler.id not in made:
                _report_or_remove(client, keys, scheduler, prune=prune, log=log)
    except ReplyError as error:
        _raise_outage(error)
        log.error("schedulers not read", why=error.what)


def _report_or_remove(
    client: Client, keys: QueueKeys, scheduler: Scheduler, *, prune: bool, log: Log
) -> None:
    what = {"scheduler": scheduler.id, "name": scheduler.name}
    if prune:
        call = scheduling.remove_call(keys, scheduler.id, package=scheduler.package or "")
        if scripts.run_call(client, call) == 1:
            log.warning("scheduler removed: it is no longer in the code", **what)
        return
    command = ["qctl", "schedules", "remove", keys.label("bull"), "--", scheduler.id]
    if not scheduler.id.startswith("-"):
        command.remove("--")
    log.warning("scheduler is no longer in the code", **what, remove_with=shlex.join(command))


def _read_schedulers(client: Client, keys: QueueKeys) -> list[Scheduler]:
    listed = client.call(*scheduling.list_command(keys))
    records = client.pipeline(scheduling.record_commands(keys, listed)) if listed else []
    return scheduling.parse_schedulers(listed, records)


def _raise_outage(error: Exception) -> None:
    if is_outage(error):
        raise error
