"""The actions of ``qctl top``. Each action does and shows the same as the command of that name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from qctl.cli.environment import Environment
from qctl.cli.guard import required_confirmation
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.ops.drain.context import DrainOptions
from qctl.ops.drain.plan import describe, make_plan
from qctl.ops.drain.run import drain
from qctl.ops.drain.steps import DrainReport, Waiting
from qctl.ops.jobs.retry_stalled import carry_out, plan_stalled, retry_one_failed
from qctl.ops.queues.advice import LATER_PAUSE
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.queues.pause import PauseResult, pause_queues, resume_queues
from qctl.output.changes import pause_line, retry_lines, retry_risk_lines
from qctl.output.drain import step_lines
from qctl.output.text import visible
from qctl.output.top.actions import ActionOutput, Proposal, Stop


class CommandActions:
    """Implements ``qctl.output.top.actions.Actions``."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    def _proposal(
        self, question: str, lines: Iterable[str], perform: Callable[[Stop], Iterator[ActionOutput]]
    ) -> Proposal:
        return Proposal(question, tuple(lines), perform, required_confirmation(self._env.settings))

    def _for_writing(self) -> tuple[Address, Client, Settings]:
        """Redis's address, a connection and the settings; RefusedError if qctl must not write."""
        required_confirmation(self._env.settings)
        return *self._env.redis(), self._env.settings

    def pause(self, queue: str) -> Proposal:
        address, client, settings = self._for_writing()

        def perform(_: Stop) -> Iterator[ActionOutput]:
            yield ActionOutput(_pause_lines(pause_queues(client, settings, [queue], db=address.db)))

        planned = pause_queues(client, settings, [queue], db=address.db, dry_run=True)
        return self._proposal(f"Pause {queue}?", _pause_lines(planned, planned=True), perform)

    def resume(self, queue: str) -> Proposal:
        _, client, settings = self._for_writing()

        def perform(_: Stop) -> Iterator[ActionOutput]:
            yield ActionOutput(_pause_lines(resume_queues(client, settings.prefixes, [queue])))

        planned = resume_queues(client, settings.prefixes, [queue], dry_run=True)
        (snapshot,) = find_queues(client, settings.prefix, [queue])
        lines = _pause_lines(planned, planned=True)
        if snapshot.paused:
            by = f"by {snapshot.pause_note}" if snapshot.pause_note else "not by qctl"
            if snapshot.uncertain_note:
                by = f"by {snapshot.uncertain_note}, or {LATER_PAUSE}"
            lines = (f"{visible(queue)} was paused {visible(by)}", *lines)
        return self._proposal(f"Resume {queue}?", lines, perform)

    def retry_stalled(self, queue: str, job_id: str) -> Proposal:
        address, client, settings = self._for_writing()
        plan = plan_stalled(client, settings.prefix, queue, job_id, db=address.db)

        def perform(_: Stop) -> Iterator[ActionOutput]:
            yield ActionOutput(tuple(retry_lines(carry_out(client, plan), plan)))

        lines: Iterable[str] = (
            "the job has no lock and no worker is connected; its earlier stalls are forgotten",
        )
        if plan.risky:
            lines = retry_risk_lines(plan)
        return self._proposal(f"Put job {job_id} of {queue} back?", lines, perform)

    def retry_failed(self, queue: str, job_id: str) -> Proposal:
        _, client, settings = self._for_writing()
        require_bullmq(find_queues(client, settings.prefix, [queue]))

        def perform(_: Stop) -> Iterator[ActionOutput]:
            retry_one_failed(client, settings.prefix, queue, job_id)
            yield ActionOutput((f"{visible(queue)}: job {visible(job_id)} retried",))

        line = "BullMQ will not retry this failed job; qctl puts the job back for one more run"
        return self._proposal(f"Retry job {job_id} of {queue}?", [line], perform)

    def drain(self, queue: str, target: str | None) -> Proposal:
        address, client, settings = self._for_writing()
        restarts = target is not None
        plan = make_plan(client, address, settings, [queue], target=target, then_restart=restarts)

        def perform(stop: Stop) -> Iterator[ActionOutput]:
            steps = drain(client, address, settings, plan, DrainOptions(), stop)
            with contextlib.closing(steps):
                for step in steps:
                    lines = [*step_lines(step)]
                    if isinstance(step, DrainReport) and step.error:
                        lines.append(f"error: {visible(step.error)}")
                    yield ActionOutput(tuple(lines), temporary=isinstance(step, Waiting))

        planned = describe(plan, client)
        question = f"Drain {queue}, then restart {target}?" if restarts else f"Drain {queue}?"
        return self._proposal(question, step_lines(planned), perform)


def _pause_lines(results: list[PauseResult], *, planned: bool = False) -> tuple[str, ...]:
    """For each queue, a line that says what was or will be done, and the warnings."""
    return tuple(
        line
        for result in results
        for line in (
            pause_line(result, "will" if planned else "", prefix=result.prefix),
            *(f"note: {visible(warning)}" for warning in result.warnings),
        )
    )
