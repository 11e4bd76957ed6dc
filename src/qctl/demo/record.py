"""Records every run of the demo's handlers in a file, and makes the proof from this record.

The record does not depend on Redis, so the proof reveals wrong counts in Redis.
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
# The id of the demo's scheduler, and the name of the jobs that it adds.
SCHEDULER = "report"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job.

    Args:
        attempt: how many attempts the job had before; an interrupted run is not an attempt.
        pid: the process that ran the job.
        at_s: when the run started, epoch seconds.
        outcome: ``end``, ``fail``, or None if the run still goes on or was interrupted.
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
        ended: added jobs that ran to their end exactly once, after the planned failure if any.
        retried: jobs in ``ended`` that first failed once, as planned.
        scheduled: jobs of the scheduler that ran to their end exactly once.
        killed: runs that the kill interrupted and whose jobs started again.
        interrupted: all other interrupted runs; their jobs started again, or are ``lost``.
        lost: ids of jobs that never ran to their end.
        wrong: ids of jobs that ran to their end, but not as planned: for example, twice.
        completed: completed jobs according to Redis; must equal ``ended + scheduled``.
        left: jobs in any other state according to Redis.
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
        """Whether jobs were added, all ran as planned, qctl interrupted none, and Redis agrees."""
        bad = self.interrupted or self.lost or self.wrong or self.left
        total = self.ended + self.scheduled
        return not bad and self.added == self.ended > 0 and self.completed == total


def write(file: Path, event: str, job_id: str, name: str, attempt: int) -> None:
    """Append a row for ``event``: ``start``, ``end`` or ``fail``. Without the file, do nothing."""
    row = [event, job_id, name, attempt, os.getpid(), time.time()]
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        # The demo has made its proof and removed the file.
        return
    try:
        # One write per row, so that a kill leaves no partial row and processes do not mix rows.
        os.write(descriptor, json.dumps(row).encode() + b"\n")
    finally:
        os.close(descriptor)


def read(file: Path) -> list[Run]:
    """All recorded runs, in the order of their starts."""
    runs: list[Run] = []
    open_runs: dict[tuple[str, int, int], int] = {}
    # A row without a line end is still being written.
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
    """Runs without an outcome, by the pid of their process."""
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
    """Compare the recorded runs with the jobs that were added.

    Args:
        added: job id → the number of runs that the job needs: all but the last one must fail.
    """
    by_job: dict[str, list[Run]] = {job_id: [] for job_id in added}
    for run in runs:
        by_job.setdefault(run.job_id, []).append(run)
    # How many runs the kill interrupted (True), and how many something else interrupted (False).
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
        # A job of the scheduler needs one run.
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
