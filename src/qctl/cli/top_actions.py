"""The actions of ``qctl top``. Each action does and shows the same as the command of that name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from qctl.cli.environment import Environment
from qctl.cli.guard import required_confirmation
from qctl.cli.top_drain import DrainChoice
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import QctlError, RefusedError
from qctl.ops.bulk.actions import Confirmation, Selection, retrying
from qctl.ops.bulk.actions import required_confirmation as required_confirmation_of
from qctl.ops.bulk.queues import BulkQueue, BulkRuns
from qctl.ops.drain.plan import describe, make_plan
from qctl.ops.drain.run import drain
from qctl.ops.drain.steps import DrainReport, Planned
from qctl.ops.jobs.failures import FailureGroup
from qctl.ops.jobs.retry_stalled import carry_out, plan_stalled, retry_one_failed
from qctl.ops.jobs.where import Filter, parse_where
from qctl.ops.patience import Pulse
from qctl.ops.queues.advice import LATER_PAUSE
from qctl.ops.queues.find import find_queues, require_bullmq
from qctl.ops.queues.pause import PauseResult, pause_queues, resume_queues
from qctl.output.bulk import bulk_block, progress_lines
from qctl.output.changes import pause_line, retry_lines, retry_risk_lines
from qctl.output.drain.checklist import Checklist
from qctl.output.drain.plan import plan_block
from qctl.output.drain.verdict import verdict_block
from qctl.output.text import visible
from qctl.output.top.actions import Proposal, Stop, Variant
from qctl.plurals import counted
from qctl.wire.keys import QueueKeys

# How many lines a running drain may fill, so that it fits a terminal of 80 by 24 cells.
_LIVE_ROWS = 18


class CommandActions:
    """Implements ``qctl.output.top.actions.Actions``.

    Args:
        keys_of: returns the queue that has the given name on the screen.
    """

    def __init__(self, env: Environment, keys_of: Callable[[str], QueueKeys]) -> None:
        self._env = env
        self._keys_of = keys_of

    def _proposal(
        self,
        title: str,
        lines: Iterable[str],
        perform: Callable[[Stop], Iterator[Sequence[str]]],
        *,
        live: Callable[[], Iterable[str]] = lambda: (),
        name: str | None = None,
        variants: tuple[Variant, ...] = (),
    ) -> Proposal:
        """A proposal. To confirm it, the operator types a name, or y if no name is needed.

        That name is the context's name if the config requires this, else ``name``.
        """
        context = required_confirmation(self._env.settings)
        remark = f"This writes to context {context}." if context else ""
        return Proposal(title, tuple(lines), perform, live, context or name, remark, variants)

    def _for_writing(self, queue: str) -> tuple[Address, Client, Settings, str]:
        """Redis's address, a connection, the settings for the queue's prefix, the queue's name.

        Raises RefusedError if qctl must not write.
        """
        required_confirmation(self._env.settings)
        keys = self._keys_of(queue)
        return *self._env.redis(), self._env.settings.under(keys.prefix), keys.name

    def pause(self, queue: str) -> Proposal:
        mixed = Variant("m", "--mixed-versions", lambda: self._pause(queue, mixed=True))
        return _or_refusal(lambda: self._pause(queue), (mixed,))

    def _pause(self, queue: str, *, mixed: bool = False) -> Proposal:
        address, client, settings, name = self._for_writing(queue)

        def run(*, dry_run: bool) -> list[PauseResult]:
            return pause_queues(
                client, settings, [name], db=address.db, mixed_versions=mixed, dry_run=dry_run
            )

        def perform(_: Stop) -> Iterator[Sequence[str]]:
            yield _pause_lines(run(dry_run=False))

        lines = _pause_lines(run(dry_run=True), planned=True)
        title = f"Pause {queue}" + " --mixed-versions" * mixed
        return self._proposal(title, lines, perform)

    def resume(self, queue: str) -> Proposal:
        force = Variant("f", "--force", lambda: self._resume(queue, force=True))
        return _or_refusal(lambda: self._resume(queue), (force,))

    def _resume(self, queue: str, *, force: bool = False) -> Proposal:
        _, client, settings, name = self._for_writing(queue)

        def run(*, dry_run: bool) -> list[PauseResult]:
            return resume_queues(client, settings.prefixes, [name], force=force, dry_run=dry_run)

        def perform(_: Stop) -> Iterator[Sequence[str]]:
            yield _pause_lines(run(dry_run=False))

        planned = run(dry_run=True)
        (snapshot,) = find_queues(client, settings.prefix, [name])
        lines = _pause_lines(planned, planned=True)
        if snapshot.paused:
            by = f"by {snapshot.pause_note}" if snapshot.pause_note else "not by qctl"
            if snapshot.uncertain_note:
                by = f"by {snapshot.uncertain_note}, or {LATER_PAUSE}"
            lines = (f"{visible(queue)} was paused {visible(by)}", *lines)
        return self._proposal(f"Resume {queue}" + " --force" * force, lines, perform)

    def retry_stalled(self, queue: str, job_id: str) -> Proposal:
        address, client, settings, name = self._for_writing(queue)
        plan = plan_stalled(client, settings.prefix, name, job_id, db=address.db)

        def perform(_: Stop) -> Iterator[Sequence[str]]:
            yield [*retry_lines(carry_out(client, plan), plan)]

        lines: Iterable[str] = (
            "the job has no lock and no worker is connected; its count of stalls is reset to 0",
        )
        if plan.risky:
            lines = retry_risk_lines(plan)
        return self._proposal(f"Put job {job_id} of {queue} back", lines, perform)

    def retry_failed(self, queue: str, job_id: str) -> Proposal:
        _, client, settings, name = self._for_writing(queue)
        require_bullmq(find_queues(client, settings.prefix, [name]))

        def perform(_: Stop) -> Iterator[Sequence[str]]:
            retry_one_failed(client, settings.prefix, name, job_id)
            yield [f"{visible(queue)}: job {visible(job_id)} retried"]

        line = "BullMQ will not retry this failed job; qctl puts the job back for one more run"
        return self._proposal(f"Retry job {job_id} of {queue}", [line], perform)

    def retry_group(self, queue: str, group: FailureGroup, width: int, *, exact: bool) -> Proposal:
        _, client, settings, name = self._for_writing(queue)
        (snapshot,) = find_queues(client, settings.prefix, [name])
        require_bullmq([snapshot])
        action = retrying("failed")
        selection = Selection(state="failed", only=Filter(where=parse_where(group.where or "")))
        found = BulkQueue.of(snapshot, selection)
        colour = self._env.may_colour()
        running: list[tuple[BulkRuns, float]] = []

        def perform(stop: Stop) -> Iterator[Sequence[str]]:
            runs, began = BulkRuns(client, [found], action, selection, stop=stop), time.monotonic()
            running.append((runs, began))

            def block() -> list[str]:
                paused = [found.keys] if found.paused else []
                took_s = time.monotonic() - began
                return [
                    *bulk_block(runs.reports, took_s, paused=paused, width=width, colour=colour)
                ]

            try:
                for _ in runs:
                    pass
            except QctlError:
                # The operator must know which jobs were retried before the error or the stop.
                if any(report.done for report in runs.reports):
                    yield block()
                raise
            yield block()

        def live() -> Iterator[str]:
            for runs, began in running:
                took_s = time.monotonic() - began
                yield from progress_lines(
                    runs.progress(),
                    took_s,
                    doing="retrying",
                    limit=None,
                    width=width,
                    colour=colour,
                )

        least = "" if exact else "at least "
        most = group.count if exact else max(group.count, found.total)
        needs_name = required_confirmation_of(action, selection, most) is Confirmation.NAME
        lines = [
            visible(str(group.value or "(no reason)"), 300),
            "",
            group.command or "",
            "",
            "Jobs that have joined this group since it was counted are retried, too.",
        ]
        return self._proposal(
            f"Retry {least}{counted(group.count, 'failed job')} of {queue}",
            lines,
            perform,
            live=live,
            name=name if needs_name else None,
        )

    def drain(self, queue: str, target: str | None, width: int) -> Proposal:
        return self._drain_or_refusal(queue, DrainChoice(target), width)

    def _drain_or_refusal(self, queue: str, choice: DrainChoice, width: int) -> Proposal:
        return _or_refusal(
            lambda: self._drain(queue, choice, width),
            self._drain_variants(choice.overrides(), queue, width),
        )

    def _drain_variants(
        self, changes: Iterable[tuple[str, str, DrainChoice]], queue: str, width: int
    ) -> tuple[Variant, ...]:
        return tuple(
            Variant(key, flag, partial(self._drain_or_refusal, queue, choice, width))
            for key, flag, choice in changes
        )

    def _drain(self, queue: str, choice: DrainChoice, width: int) -> Proposal:
        address, client, settings, name = self._for_writing(queue)
        target = choice.target
        plan = make_plan(
            client,
            address,
            settings,
            [name],
            target=target,
            then_restart=target is not None,
            include_others=choice.include_others,
            strategy=choice.strategy,
            mixed_versions=choice.mixed_versions,
        )
        planned = describe(plan, client)
        colour = self._env.may_colour()
        checklist = Checklist(width=width, colour=colour, keep_paused=choice.keep_paused)
        pulse = Pulse()

        def perform(stop: Stop) -> Iterator[Sequence[str]]:
            began = time.monotonic()
            checklist.begin(planned)
            steps = drain(client, address, settings, plan, choice.options, stop, pulse)
            with contextlib.closing(steps):
                for step in steps:
                    if isinstance(step, DrainReport):
                        yield [*checklist.flush(), ""]
                        took_s = time.monotonic() - began
                        by = "s, Ctrl-C or another signal"
                        yield [
                            *verdict_block(step, took_s, width=width, colour=colour, stopped_by=by)
                        ]
                    elif not isinstance(step, Planned):
                        yield [*checklist.update(step)]

        then = "" if target is None else f", then restart {target}"
        return self._proposal(
            " ".join([f"Drain {queue}{then}", *choice.flags]),
            plan_block(planned, width=width, colour=colour, with_jobs=True),
            perform,
            live=lambda: checklist.live(pulse.silent(), _LIVE_ROWS),
            variants=self._drain_variants(choice.changes(plan.strategy), queue, width),
        )


def _or_refusal(prepare: Callable[[], Proposal], variants: Iterable[Variant]) -> Proposal:
    """The proposal that ``prepare`` returns.

    If ``prepare`` refuses, the result is a proposal that cannot be carried out. It shows the
    refusal, and offers the variants whose flags the refusal's hint names.

    Raises:
        QctlError: the action is refused or impossible, and no variant would help.
    """
    try:
        return prepare()
    except RefusedError as error:
        named = tuple(variant for variant in variants if variant.flag in error.hint)
        if not named:
            raise
        return Proposal("", tuple(map(visible, error.lines)), None, variants=named)


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
