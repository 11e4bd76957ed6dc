"""The story of ``qctl demo``: a kill and a restart of the same worker under the same load."""

from __future__ import annotations

import contextlib
import os
import signal
import textwrap
import time
from collections.abc import Sequence

from qctl.config.prefixes import escaped
from qctl.demo import record
from qctl.demo.app import CONCURRENCY, QUEUE
from qctl.demo.producer import DELAY_S, INTERVAL_S, RETRY_S, Producer
from qctl.demo.record import SCHEDULER, Proof, Run
from qctl.demo.stage import Stage
from qctl.errors import FailedError
from qctl.ops.processes.suggest import quoted
from qctl.private import open_file
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

NAME = "demo"
PROCESSES = 2
_START = f"worker start {NAME} qctl.demo.app:worker --processes {PROCESSES}"
_DRAIN = f"drain --then-restart --target qctl:{NAME} --yes"
# `qctl status` runs after this many jobs were added, so that it has jobs to show.
_JOBS_BEFORE_STATUS = 24
# The process to kill runs at least this many jobs.
_MIN_INTERRUPTED = 3
_WIDTH = 80


def tell_story(stage: Stage, *, keep: bool) -> Proof:
    """Run the whole demo, and return the proof; ``proof.holds`` may be false.

    With ``keep``, schedulers add further jobs afterwards.

    Raises:
        FailedError: a command failed, or an expected state was not reached in time.
        InterruptedByUserError: the operator wants to stop.
        QctlError: Redis could not be read, or the producer failed.
    """
    with contextlib.closing(Producer(stage.server.url, stage.prefix)) as producer:
        proof = _Story(stage, producer).run()
        if keep:
            producer.hand_over()
            for line in farewell(stage):
                stage.say(line)
    return proof


class _Story:
    def __init__(self, stage: Stage, producer: Producer) -> None:
        self._stage = stage
        self._producer = producer
        self._keys = QueueKeys(stage.prefix, QUEUE)
        self._file = stage.folder / record.RECORD_FILE
        os.close(open_file(self._file, os.O_WRONLY))
        self._killed_pid = 0

    def run(self) -> Proof:
        stage = self._stage
        self._say(f"Redis: {stage.server.description}, for this demo alone")
        self._heading(
            f"1. A worker: {PROCESSES} processes, {CONCURRENCY} jobs at a time in each. "
            f"A producer adds {1 / INTERVAL_S:g} jobs a second. Each runs for 0.3 to 1 s; some "
            f"fail once and are retried after {RETRY_S:g} s, some have a low priority, some are "
            f"delayed by {DELAY_S:g} s. A scheduler adds one more job each second."
        )
        stage.qctl(_START)
        self._producer.start()
        stage.wait(
            lambda: len(self._producer.added) >= _JOBS_BEFORE_STATUS and self._is_busy(),
            "jobs to run in both processes",
        )
        self._say("")
        stage.qctl("status")
        self._kill()
        self._heading("3. What a restart by qctl costs, under the same load.")
        stage.wait(self._is_busy, "the worker to be busy again")
        stage.qctl(_DRAIN)
        stage.wait(self._is_busy, "the new processes to be busy")
        self._heading(
            "4. The proof: the runs that the handlers recorded in a file, compared with the jobs "
            "that the producer added. The producer stops, and the last jobs end …"
        )
        proof = self._prove()
        for line in proof_lines(proof):
            self._say(line)
        return proof

    def _kill(self) -> None:
        stage = self._stage
        self._heading("2. What a plain kill costs.")
        runs = stage.wait(self._runs_to_interrupt, f"a process that runs {_MIN_INTERRUPTED} jobs")
        self._killed_pid = pid = runs[0].pid
        self._say(f"$ kill -9 {pid}")
        os.kill(pid, signal.SIGKILL)
        killed_at_s = time.time()
        stage.wait(
            lambda: all(self._interrupted().values()), "the jobs of the killed process to run again"
        )
        interrupted = self._interrupted()
        back_s = max((run.at_s - killed_at_s for run in interrupted.values() if run), default=0.0)
        wasted_s = sum(killed_at_s - run.at_s for run in interrupted)
        # A job of the scheduler is shown by its name, because its id is long.
        named = ", ".join(r.name if r.name == SCHEDULER else r.job_id for r in interrupted)
        # 30 to 90 s, because by default a lock lasts 30 s, and stalled checks are 30 s apart.
        self._say(
            f"{len(interrupted)} jobs interrupted ({named}), {wasted_s:.1f} s of work lost: each "
            "job begins again. The worker's master put the jobs back at once, and all of them ran "
            f"again {back_s:.2f} s after the kill. Without the master, the jobs would have stayed "
            "`active` for 30 to 90 s; without another worker, for ever."
        )

    def _prove(self) -> Proof:
        self._producer.finish()
        with contextlib.suppress(FailedError):
            # If the jobs take too long, the proof shows which are missing.
            self._stage.wait(self._is_idle, "the last jobs to end")
        snapshot = self._snapshot()
        proof = record.judge(
            record.read(self._file),
            self._producer.added,
            killed_pid=self._killed_pid,
            completed=snapshot.counts.completed,
            left=snapshot.backlog + snapshot.counts.active + snapshot.counts.failed,
        )
        # Without the file, the handlers record no further runs.
        self._file.unlink()
        return proof

    # Observing

    def _snapshot(self) -> QueueSnapshot:
        (snapshot,) = read_snapshots(self._stage.client, [self._keys])
        if not isinstance(snapshot, QueueSnapshot):
            raise FailedError(f"the queue {QUEUE} cannot be read", why=str(snapshot))
        return snapshot

    def _is_idle(self) -> bool:
        snapshot = self._snapshot()
        return snapshot.backlog + snapshot.counts.active == 0

    def _is_busy(self) -> bool:
        """Whether at least ``PROCESSES`` processes run several jobs each."""
        return sum(len(runs) > 1 for runs in self._current_runs().values()) >= PROCESSES

    def _current_runs(self) -> dict[int, list[Run]]:
        """Unfinished runs by pid, without the killed process. Raises like ``Producer.check``."""
        self._producer.check()
        found = record.unfinished(record.read(self._file))
        found.pop(self._killed_pid, None)
        return found

    def _runs_to_interrupt(self) -> list[Run]:
        """The runs of the busiest process; empty if they are fewer than ``_MIN_INTERRUPTED``."""
        runs = max(self._current_runs().values(), key=len, default=[])
        return runs if len(runs) >= _MIN_INTERRUPTED else []

    def _interrupted(self) -> dict[Run, Run | None]:
        """Each run that the kill interrupted, with its job's next run (None until that starts)."""
        runs = record.read(self._file)
        return {
            cut: next((r for r in runs if r.job_id == cut.job_id and r.at_s > cut.at_s), None)
            for cut in record.unfinished(runs).get(self._killed_pid, ())
        }

    # Showing

    def _heading(self, text: str) -> None:
        self._say("")
        self._say(text)
        self._say("")

    def _say(self, text: str) -> None:
        for line in textwrap.wrap(text, _WIDTH, break_long_words=False) or [""]:
            self._stage.say(line)


def proof_lines(proof: Proof) -> Sequence[str]:
    """The proof as a table with a verdict below."""
    rows = [
        ("jobs added", proof.added, ""),
        ("ran to their end", proof.ended, "each once"),
        ("  failed once and retried", proof.retried, "as planned"),
        ("by the scheduler", proof.scheduled, "each once"),
        ("interrupted by the kill", proof.killed, "began again"),
        ("interrupted by the restart", proof.interrupted, ""),
        ("lost", len(proof.lost), _some(proof.lost)),
        ("did not run as planned", len(proof.wrong), _some(proof.wrong)),
        ("completed according to Redis", proof.completed, f"{proof.left} in any other state"),
    ]
    lines = [f"{what:<31} {count:>4}  {remark}".rstrip() for what, count, remark in rows]
    verdict = "PROVED" if proof.holds else "NOT PROVED"
    end = "the restart interrupted no job and lost no job" if proof.holds else "see above"
    return [*lines, "", f"{verdict}: {end}"]


def farewell(stage: Stage) -> Sequence[str]:
    """What --keep leaves running, how to explore it, and how to end it."""
    return [
        "",
        "The worker, its Redis and schedulers that add jobs keep running. To look around:",
        "",
        f"  export QCTL_REDIS_URL=embedded:{stage.server.folder}",
        f"  export XDG_STATE_HOME={stage.folder} QCTL_PREFIX={quoted(escaped(stage.prefix))}",
        "  qctl status --watch",
        "  qctl workers",
        f"  qctl jobs list {QUEUE} --state completed",
        f"  qctl worker logs {NAME} --follow",
        f"  qctl restart qctl:{NAME}",
        "",
        "To end the demo:",
        "",
        f"  qctl worker stop {NAME}",
        f"  rm -r {stage.folder}",
    ]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (" …" if len(ids) > 5 else "")
