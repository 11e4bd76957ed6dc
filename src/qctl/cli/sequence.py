"""Shows and carries out a sequence of drains, one for each of several targets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from qctl.cli.environment import Environment
from qctl.cli.progress import DrainView
from qctl.cli.signals import stop_on_signals
from qctl.errors import RefusedError
from qctl.ops.drain.plan import DrainPlan, describe
from qctl.ops.drain.sequence import (
    CarryOut,
    Make,
    SequenceReport,
    Turn,
    TurnBegins,
    not_begun,
    plan_turns,
    run_turns,
    starting_at,
)
from qctl.ops.drain.steps import DrainReport, Planned, Step
from qctl.ops.patience import Pulse
from qctl.ops.queues.select import select_queues
from qctl.output.console import styled
from qctl.output.json import with_step
from qctl.output.sequence import heading, sequence_block, summary_lines

if TYPE_CHECKING:
    from qctl.connection.address import Client


def run_sequence(
    env: Environment,
    client: Client,
    targets: Sequence[str],
    queues: Sequence[str],
    make: Make,
    carry_out: Callable[[DrainPlan, Callable[[], bool], Pulse], Generator[Step, None, None]],
    *,
    resume_from: str | None,
    dry_run: bool,
    keep_paused: bool,
    is_guessed: bool,
) -> int:
    """Restart the targets one after another, and show the steps.

    Args:
        targets: as the operator named them.
        queues: the queues that the operator named.
        is_guessed: whether qctl itself found the targets. If so, the operator must confirm them.

    Returns:
        the exit code.
    """
    chosen = starting_at(targets, resume_from)
    view = _View(env, chosen, dry_run=dry_run, keep_paused=keep_paused)
    try:
        # With --resume-from, some named queues may belong to targets that are not in ``chosen``.
        words = queues if resume_from is None else ()
        named = select_queues(client, env.settings.prefixes, words) if words else ()
        turns = plan_turns(make, chosen, named)
        if dry_run:
            view.show_plans(turns, client)
            return 0
        if is_guessed:
            found = ", ".join(f"{t.target} ({', '.join(t.plan.labels)})" for t in turns)
            env.confirm(f"Drain and restart, one after another: {found}?", "name one --target")
    except RefusedError as error:
        if env.output != "table":
            refusal = not_begun(None, queues, "pause", error)
            env.emit_json(SequenceReport("refused", (refusal,), None))
        raise

    with stop_on_signals(view.note) as stop, contextlib.closing(view):

        def begin(plan: DrainPlan) -> Generator[Step, None, None]:
            yield describe(plan, client)
            yield from carry_out(plan, stop, view.pulse)

        drain: CarryOut = begin
        with contextlib.closing(run_turns(turns, make, drain, stop)) as steps:
            for step in steps:
                view.show(step)
    return view.exit_status


class _View:
    """Shows the steps of all drains. A ``DrainView`` shows the steps of each drain.

    In NDJSON, each step has the target as an additional field. JSON is one object at the end.

    Attributes:
        exit_status: the exit code of the sequence, once the last step has been shown.
    """

    def __init__(
        self, env: Environment, targets: Sequence[str], *, dry_run: bool, keep_paused: bool
    ) -> None:
        self._env = env
        self._targets = targets
        self._dry_run = dry_run
        self._turn = ""
        self._drain = DrainView(env, dry_run=dry_run, keep_paused=keep_paused)
        self.note = self._drain.note
        self.pulse = self._drain.pulse
        self.exit_status = 0

    def show_plans(self, turns: Sequence[Turn], client: Client) -> None:
        """Show the plans of a dry run."""
        plans = [describe(turn.plan, client) for turn in turns]
        if self._env.output == "json":
            self._env.emit_json({"targets": plans})
            return
        for number, plan in enumerate(plans, 1):
            self.show(TurnBegins(turns[number - 1].target, number, len(plans)))
            self.show(plan)

    def show(self, step: TurnBegins | Step | SequenceReport) -> None:
        """Show one step."""
        if isinstance(step, TurnBegins):
            self._turn = step.target
        if isinstance(step, SequenceReport):
            self.exit_status = step.exit_status
        if self._env.output == "ndjson":
            self._env.emit_json({**with_step(step), **self._target_of(step)})
        elif self._env.output == "json":
            self._show_json(step)
        elif isinstance(step, TurnBegins):
            self.close()
            self._show_heading(step)
        elif isinstance(step, SequenceReport):
            if self._env.shows_blocks:
                self._env.print("")
                self._env.print_block(sequence_block, step, self._targets)
            else:
                self._env.print(*summary_lines(step, self._targets))
        else:
            self._drain.show(step)
            if isinstance(step, Planned) and not self._dry_run:
                self._drain.begin()

    def _show_heading(self, turn: TurnBegins) -> None:
        streams = self._env.streams
        stream = streams.stdout if self._dry_run else streams.stderr
        mark = "  (dry run)" if self._dry_run else ""
        gap = "\n" if turn.number > 1 and streams.is_terminal(stream) else ""
        text = styled(heading(turn) + mark, "bold", colour=self._env.may_colour(stream))
        stream.write(f"{gap}{text}\n")
        stream.flush()

    def _target_of(self, step: TurnBegins | Step | SequenceReport) -> dict[str, str]:
        # These steps name the target themselves. The other steps have no ``target``, or have a
        # ``target`` in another form, which the field from this method replaces.
        is_named = isinstance(step, TurnBegins | SequenceReport | DrainReport | Planned)
        return {} if is_named else {"target": self._turn}

    def _show_json(self, step: TurnBegins | Step | SequenceReport) -> None:
        if isinstance(step, DrainReport) and step.error:
            self._env.note(f"error: {step.error}")
        elif isinstance(step, SequenceReport):
            self._env.emit_json(step)

    def close(self) -> None:
        """Remove the lines that are redrawn in place."""
        self._drain.close()
