"""Restart several targets, one after another: a complete drain for each, with its own proof.

All plans are made and checked before the first drain begins. Each plan is made again when its turn
comes, because a drain takes long enough for workers and queues to change. The first failure ends
the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

from qctl.config.settings import Settings
from qctl.errors import (
    InterruptedByUserError,
    NotFoundError,
    QctlError,
    RefusedError,
    UsageError,
)
from qctl.manage.protocol import Identity
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.steps import DrainReport, Step, error_text
from qctl.wire.keys import QueueKeys, common_prefix

Make = Callable[[str], DrainPlan]
CarryOut = Callable[[DrainPlan], Generator[Step, None, None]]


@dataclass(frozen=True, slots=True)
class TurnBegins:
    """The drain for one of several targets begins; the next steps belong to it.

    Args:
        target: the target as the operator named it.
        number: 1 for the first target.
    """

    step: ClassVar[str] = "target"
    target: str
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class SequenceReport:
    """The end of a sequence (see docs/cli.md).

    Args:
        outcome: the outcome of the last target that was reached.
        targets: the report of each target that was reached, in order.
        resume_from: the target with which to continue; None if all were restarted.
    """

    step: ClassVar[str] = "summary"
    outcome: str
    targets: tuple[DrainReport, ...]
    resume_from: str | None

    @property
    def exit_status(self) -> int:
        """The exit code of the first failure; 0 without one."""
        return next((each.exit_status for each in self.targets if each.exit_status), 0)


@dataclass(frozen=True, slots=True)
class Turn:
    """One target of a sequence, and a plan that has passed all checks.

    Args:
        target: as the operator named it.
    """

    target: str
    plan: DrainPlan


def expand(settings: Settings, names: Sequence[str]) -> tuple[str, ...]:
    """The targets in ``names``, in order, each once; the name of a group stands for its targets.

    Raises:
        UsageError: a named group is not valid.
    """
    return tuple(dict.fromkeys(t for name in names for t in settings.group(name) or (name,)))


def starting_at(targets: Sequence[str], first: str | None) -> Sequence[str]:
    """The targets from ``first`` on; all targets if ``first`` is None.

    Raises:
        UsageError: ``first`` is not one of the targets.
    """
    if first is None:
        return targets
    if first not in targets:
        raise UsageError(
            f"--resume-from {first!r} is not one of the targets",
            why=f"the targets are: {', '.join(targets)}",
            hint="name one of them",
        )
    return targets[targets.index(first) :]


def plan_turns(
    make: Make, targets: Sequence[str], queues: Sequence[QueueKeys] = ()
) -> tuple[Turn, ...]:
    """Make and check the plan of each target. Writes nothing.

    Args:
        make: makes the plan of one target.
        queues: the queues that the operator named; each must belong to one of the plans.

    Raises:
        RefusedError: two targets have a process in common, or no target serves a named queue.
        QctlError: as ``make``.
    """
    turns = [Turn(target, make(target)) for target in targets]
    owners: dict[Identity, str] = {}
    for turn in turns:
        found = turn.plan.target
        for process in found.processes if found else ():
            owner = owners.setdefault(process.identity, turn.target)
            if owner != turn.target:
                raise RefusedError(
                    f"{owner} and {turn.target} have a process in common",
                    why=f"the process with the id {process.key} would be restarted twice",
                    hint=f"leave out {turn.target}",
                )
    planned = {keys for turn in turns for keys in turn.plan.queues}
    prefix = common_prefix(queues)
    if unserved := [keys.label(prefix) for keys in queues if keys not in planned]:
        raise RefusedError(
            f"none of these targets serves {', '.join(unserved)}",
            why=f"the targets are: {', '.join(targets)}",
            hint="leave the queue out, or add its target with --target",
        )
    return tuple(turns)


def run_turns(
    turns: Sequence[Turn], make: Make, carry_out: CarryOut, stop: Callable[[], bool]
) -> Generator[TurnBegins | Step | SequenceReport, None, None]:
    """Carry out the turns up to the first failure.

    Args:
        make: makes the plan of one target again.
        carry_out: carries out a plan; its last step is a ``DrainReport``.
        stop: returns whether the operator wants to stop.

    Yields:
        for each target, a ``TurnBegins`` and the steps of its drain; at the end a
        ``SequenceReport``.
    """
    reports: list[DrainReport] = []
    for number, turn in enumerate(turns, 1):
        yield TurnBegins(turn.target, number, len(turns))
        try:
            if stop():
                raise InterruptedByUserError("interrupted")
            with closing(carry_out(make(turn.target))) as steps:
                for step in steps:
                    yield step
                    if isinstance(step, DrainReport):
                        reports.append(step)
        except QctlError as error:
            # Only a drain that has not begun raises. A drain that has begun reports its errors.
            reports.append(not_begun(turn.target, turn.plan.labels, turn.plan.strategy, error))
            yield reports[-1]
        if reports[-1].exit_status:
            break
    failed = next((n for n, report in enumerate(reports) if report.exit_status), None)
    yield SequenceReport(
        outcome=reports[-1].outcome,
        targets=tuple(reports),
        resume_from=None if failed is None else turns[failed].target,
    )


def not_begun(
    target: str | None, queues: Sequence[str], strategy: str, error: QctlError
) -> DrainReport:
    """The report of a drain that did not begin.

    Args:
        target: the drain's target; None if a whole sequence did not begin.
    """
    is_refused = isinstance(error, RefusedError | UsageError | NotFoundError)
    return DrainReport(
        outcome="refused" if is_refused else "aborted",
        queues=tuple(queues),
        target=target,
        strategy=strategy,
        error=error_text(error),
        exit_status=int(error.exit_status),
        hint=error.hint,
        begun=False,
    )
