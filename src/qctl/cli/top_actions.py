"""The actions of ``qctl top``: the same operations and texts as those of the commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from qctl.cli.environment import Environment
from qctl.cli.guard import required_confirmation
from qctl.connection.address import Client
from qctl.ops.drain.context import DrainOptions
from qctl.ops.drain.plan import DrainPlan, describe, make_plan
from qctl.ops.drain.run import drain
from qctl.ops.drain.steps import DrainReport, Planned, Step, Waiting
from qctl.ops.jobs.retry_stalled import RetryPlan, carry_out
from qctl.ops.live.retry import plan_stalled, retry_one_failed
from qctl.ops.queues.advice import LATER_PAUSE
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.queues.pause import PauseResult, pause_queues, resume_queues
from qctl.output.changes import pause_line, retry_lines, retry_risk_lines
from qctl.output.drain import plan_lines, report_lines, step_line, waiting_lines
from qctl.output.text import visible
from qctl.output.top.actions import ActionOutput, Proposal, Stop


class CommandActions:
    """See ``Actions``."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    @property
    def _prefix(self) -> str:
        return self._env.settings.prefix

    def _proposal(
        self,
        question: str,
        lines: tuple[str, ...],
        carry_out: Callable[[Stop], Iterator[ActionOutput]],
    ) -> Proposal:
        return Proposal(question, lines, carry_out, required_confirmation(self._env.settings))

    def _client(self) -> Client:
        """The connection for commands that write.

        Raises:
            RefusedError: see ``required_confirmation``.
        """
        required_confirmation(self._env.settings)
        return self._env.redis()[1]

    def pause(self, queue: str) -> Proposal:
        client = self._client()
        settings, db = self._env.settings, self._env.redis()[0].db

        def carry(_: Stop) -> Iterator[ActionOutput]:
            yield from _done(pause_queues(client, settings, [queue], db=db))

        planned = pause_queues(client, settings, [queue], db=db, dry_run=True)
        return self._proposal(f"Pause {queue}?", _lines(planned, planned=True), carry)

    def resume(self, queue: str) -> Proposal:
        client = self._client()
        prefix = self._prefix

        def carry(_: Stop) -> Iterator[ActionOutput]:
            yield from _done(resume_queues(client, prefix, [queue]))

        planned = resume_queues(client, prefix, [queue], dry_run=True)
        (snapshot,) = find_queues(client, prefix, [queue])
        lines = _lines(planned, planned=True)
        if snapshot.paused:
            by = f"by {snapshot.pause_note}" if snapshot.pause_note else "not by qctl"
            if snapshot.uncertain_note:
                by = f"by {snapshot.uncertain_note}, or {LATER_PAUSE}"
            lines = (f"it was paused {visible(by)}", *lines)
        return self._proposal(f"Resume {queue}?", lines, carry)

    def retry_stalled(self, queue: str, job_id: str) -> Proposal:
        client = self._client()
        address, _ = self._env.redis()
        plan = plan_stalled(client, self._prefix, queue, job_id, db=address.db)

        def carry(_: Stop) -> Iterator[ActionOutput]:
            report = carry_out(client, plan)
            yield ActionOutput(tuple(retry_lines(report, plan)))

        return self._proposal(f"Put job {job_id} of {queue} back?", _risk(plan), carry)

    def retry_failed(self, queue: str, job_id: str) -> Proposal:
        client = self._client()
        prefix = self._prefix
        require_bullmq(find_queues(client, prefix, [queue]))

        def carry(_: Stop) -> Iterator[ActionOutput]:
            retry_one_failed(client, prefix, queue, job_id)
            yield ActionOutput((f"{visible(queue)}: job {visible(job_id)} retried",))

        line = "it failed for good; it will run once more, in its turn"
        return self._proposal(f"Retry job {job_id} of {queue}?", (line,), carry)

    def drain(self, queue: str, target: str | None) -> Proposal:
        client = self._client()
        address, _ = self._env.redis()
        restarts = target is not None
        plan = make_plan(
            client,
            address,
            self._env.settings,
            [queue],
            target=target,
            then_restart=restarts,
        )
        planned = describe(plan, client)
        question = f"Drain {queue}, then restart {target}?" if restarts else f"Drain {queue}?"
        return self._proposal(
            question, tuple(plan_lines(planned)), lambda stop: self._drain(plan, stop)
        )

    def _drain(self, plan: DrainPlan, stop: Stop) -> Iterator[ActionOutput]:
        address, client = self._env.redis()
        steps = drain(client, address, self._env.settings, plan, DrainOptions(), stop)
        with contextlib.closing(steps):
            for step in steps:
                yield _step(step, self._env.settings.prefix)


def _step(step: Step, prefix: str) -> ActionOutput:
    if isinstance(step, Waiting):
        return ActionOutput(tuple(waiting_lines(step)), temporary=True)
    if isinstance(step, DrainReport):
        error = (f"error: {visible(step.error)}",) if step.error else ()
        return ActionOutput((*report_lines(step, prefix), *error))
    if isinstance(step, Planned):
        return ActionOutput(tuple(plan_lines(step)))
    line = step_line(step)
    return ActionOutput(() if line is None else (line,))


def _lines(results: list[PauseResult], *, planned: bool) -> tuple[str, ...]:
    return tuple(
        line
        for result in results
        for line in (
            pause_line(result, planned=planned),
            *(f"note: {visible(warning)}" for warning in result.warnings),
        )
    )


def _done(results: list[PauseResult]) -> Iterator[ActionOutput]:
    yield ActionOutput(_lines(results, planned=False))


def _risk(plan: RetryPlan) -> tuple[str, ...]:
    if plan.risky:
        return tuple(retry_risk_lines(plan))
    return ("no worker holds its lock and none is connected; earlier stalls are forgotten",)
