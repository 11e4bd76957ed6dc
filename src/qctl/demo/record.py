"""The runs as the handlers record them in a file, and what they prove.

Redis is not involved, so a queue that counts wrongly is noticed.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

RECORD_FILE = "runs.jsonl"
# The demo's scheduler, and the name of its jobs.
SCHEDULER = "report"


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a job.

    Args:
        attempt: the number of earlier attempts.
        pid: of the process that ran it.
        at_s: when it started, epoch seconds.
        outcome: ``end``, ``fail``, or None while it runs or if it was interrupted.
    """

    job_id: str
    name: str
    attempt: int
    pid: int
    at_s: float
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of the jobs.

    Args:
        added: jobs that the producer added.
        ended: those that ran to their end, once.
        retried: those of ``ended`` that failed once, as planned, before.
        scheduled: jobs of the scheduler that ran to their end, once.
        killed: runs that the kill interrupted and that started again.
        interrupted: runs that anything else interrupted.
        lost: ids of jobs that never ended.
        wrong: ids of jobs that did not run as planned, e.g. ran twice.
        completed: completed jobs according to Redis; must equal ``ended + scheduled``.
        left: jobs in any other state, according to Redis.
    """

    added: int
    ended: int
    retried: int
    scheduled: int
    killed: int
    interrupted: int
    lost: tuple[str, ...]
    wrong: tuple[str, ...]
    completed: int
    left: int

    @property
    def holds(self) -> bool:
        """Whether every job ended, and nothing but the kill cost anything."""
        bad = self.interrupted or self.lost or self.wrong or self.left
        total = self.ended + self.scheduled
        return not bad and self.added == self.ended > 0 and self.completed == total


def write(file: Path, event: str, job_id: str, name: str, attempt: int) -> None:
    """Append a row: ``start``, ``end`` or ``fail``; does nothing if the file is gone."""
    row = [event, job_id, name, attempt, os.getpid(), time.time()]
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        # The demo has read its proof and removed the file.
        return
    try:
        # In one write: so a kill leaves whole rows, and two processes do not mix theirs.
        os.write(descriptor, json.dumps(row).encode() + b"\n")
    finally:
        os.close(descriptor)


def read(file: Path) -> list[Run]:
    """All runs so far, in the order of their starts."""
    runs: list[Run] = []
    open_runs: dict[tuple[str, int, int], int] = {}
    # The last row may be incomplete.
    for line in file.read_text().rpartition("\n")[0].splitlines():
        event, job_id, name, attempt, pid, at_s = json.loads(line)
        key = (job_id, attempt, pid)
        if event == "start":
            open_runs[key] = len(runs)
            runs.append(Run(job_id, name, attempt, pid, at_s))
        else:
            index = open_runs.pop(key, None)
            if index is not None:
                runs[index] = replace(runs[index], outcome=event)
    return runs


def unfinished(runs: Iterable[Run]) -> dict[int, list[Run]]:
    """Runs that have not ended, by pid."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        if run.outcome is None:
            found.setdefault(run.pid, []).append(run)
    return found


def judge(
    runs: Sequence[Run],
    added: Mapping[str, int],
    *,
    killed_pid: int,
    completed: int,
    left: int,
) -> Proof:
    """Compare the runs with the jobs that were added.

    Args:
        added: job id → the runs that it should take, of which all but the last fail.
        killed_pid: the process that was killed.
        completed, left: see ``Proof``.
    """
    by_job: dict[str, list[Run]] = {job_id: [] for job_id in added}
    for run in runs:
        by_job.setdefault(run.job_id, []).append(run)
    interrupted: Counter[bool] = Counter()
    tally: Counter[str] = Counter()
    lost: list[str] = []
    wrong: list[str] = []
    for job_id, mine in by_job.items():
        # If one attempt started several times, all starts but the last were interrupted.
        last = {run.attempt: index for index, run in enumerate(mine)}
        counted = [run for index, run in enumerate(mine) if last[run.attempt] == index]
        repeated = [run for index, run in enumerate(mine) if last[run.attempt] != index]
        interrupted.update(run.pid == killed_pid for run in repeated)
        outcomes = [(run.attempt, run.outcome) for run in counted]
        # The scheduler's jobs take one run.
        is_scheduled = job_id not in added and mine[0].name == SCHEDULER
        needs = 1 if is_scheduled else added.get(job_id, 0)
        if outcomes == [(n, "fail" if n < needs - 1 else "end") for n in range(needs)]:
            tally["scheduled" if is_scheduled else "ended"] += 1
            tally["retried"] += needs > 1
        elif not any(run.outcome == "end" for run in mine):
            lost.append(job_id)
            interrupted[False] += any(run.outcome is None for run in counted)
        else:
            wrong.append(job_id)
    return Proof(
        added=len(added),
        ended=tally["ended"],
        retried=tally["retried"],
        scheduled=tally["scheduled"],
        killed=interrupted[True],
        interrupted=interrupted[False],
        lost=tuple(lost),
        wrong=tuple(wrong),
        completed=completed,
        left=left,
    )
