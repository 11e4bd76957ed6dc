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
from qctl.output.drain.lines import step_lines
from qctl.output.text import visible
from qctl.output.top.actions import ActionOutput, Proposal, Stop
from qctl.wire.keys import QueueKeys


class CommandActions:
    """Implements ``qctl.output.top.actions.Actions``.

    Args:
        keys_of: returns the queue for its name on the screen.
    """

    def __init__(self, env: Environment, keys_of: Callable[[str], QueueKeys]) -> None:
        self._env = env
        self._keys_of = keys_of

    def _proposal(
        self, question: str, lines: Iterable[str], perform: Callable[[Stop], Iterator[ActionOutput]]
    ) -> Proposal:
        return Proposal(question, tuple(lines), perform, required_confirmation(self._env.settings))

    def _for_writing(self, queue: str) -> tuple[Address, Client, Settings, str]:
        """Redis's address, a connection, the settings for the queue's prefix, the queue's name.

        Raises RefusedError if qctl must not write.
        """
        required_confirmation(self._env.settings)
        keys = self._keys_of(queue)
        return *self._env.redis(), self._env.settings.under(keys.prefix), keys.name

    def pause(self, queue: str) -> Proposal:
        address, client, settings, name = self._for_writing(queue)

        def perform(_: Stop) -> Iterator[ActionOutput]:
            yield ActionOutput(_pause_lines(pause_queues(client, settings, [name], db=address.db)))

        planned = pause_queues(client, settings, [name], db=address.db, dry_run=True)
        return self._proposal(f"Pause {queue}?", _pause_lines(planned, planned=True), perform)

    def resume(self, queue: str) -> Proposal:
        _, client, settings, name = self._for_writing(queue)

        def perform(_: Stop) -> Iterator[ActionOutput]:
            yield ActionOutput(_pause_lines(resume_queues(client, settings.prefixes, [name])))

        planned = resume_queues(client, settings.prefixes, [name], dry_run=True)
        (snapshot,) = find_queues(client, settings.prefix, [name])
        lines = _pause_lines(planned, planned=True)
        if snapshot.paused:
            by = f"by {snapshot.pause_note}" if snapshot.pause_note else "not by qctl"
            if snapshot.uncertain_note:
                by = f"by {snapshot.uncertain_note}, or {LATER_PAUSE}"
            lines = (f"{visible(queue)} was paused {visible(by)}", *lines)
        return self._proposal(f"Resume {queue}?", lines, perform)

    def retry_stalled(self, queue: str, job_id: str) -> Proposal:
        address, client, settings, name = self._for_writing(queue)
        plan = plan_stalled(client, settings.prefix, name, job_id, db=address.db)

        def perform(_: Stop) -> Iterator[ActionOutput]:
            yield ActionOutput(tuple(retry_lines(carry_out(client, plan), plan)))

        lines: Iterable[str] = (
            "the job has no lock and no worker is connected; its earlier stalls are forgotten",
        )
        if plan.risky:
            lines = retry_risk_lines(plan)
        return self._proposal(f"Put job {job_id} of {queue} back?", lines, perform)

    def retry_failed(self, queue: str, job_id: str) -> Proposal:
        _, client, settings, name = self._for_writing(queue)
        require_bullmq(find_queues(client, settings.prefix, [name]))

        def perform(_: Stop) -> Iterator[ActionOutput]:
            retry_one_failed(client, settings.prefix, name, job_id)
            yield ActionOutput((f"{visible(queue)}: job {visible(job_id)} retried",))

        line = "BullMQ will not retry this failed job; qctl puts the job back for one more run"
        return self._proposal(f"Retry job {job_id} of {queue}?", [line], perform)

    def drain(self, queue: str, target: str | None) -> Proposal:
        address, client, settings, name = self._for_writing(queue)
        restarts = target is not None
        plan = make_plan(client, address, settings, [name], target=target, then_restart=restarts)

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
