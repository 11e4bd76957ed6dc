"""Shows the steps of a drain: a checklist on a terminal, else a line for each step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TextIO

from qctl.cli.environment import Environment
from qctl.cli.live import LiveLines
from qctl.ops.drain.steps import DrainReport, Planned, RunningCommand, Step, Waiting
from qctl.ops.patience import Pulse
from qctl.output.drain.lines import step_lines

if TYPE_CHECKING:
    from qctl.output.drain.checklist import Checklist

# Without a terminal, the list of awaited jobs is printed again after this time.
REPEAT_S = 10.0


class DrainView:
    """Shows the steps of a drain in the chosen output format.

    Args:
        keep_paused: whether the queues stay paused after a success.

    Attributes:
        pulse: whether Redis and the process manager answer; updated by the drain.
        report: the last step of the drain; None until it is shown.
    """

    def __init__(self, env: Environment, *, dry_run: bool, keep_paused: bool = False) -> None:
        self._env = env
        self._dry_run = dry_run
        self._keep_paused = keep_paused
        self._live = LiveLines(env)
        self._checklist: Checklist | None = None
        self._began = 0.0
        # The last printed number of awaited jobs (-1: nothing is printed yet), and the time of the
        # last printed list.
        self._printed: tuple[int, float] = (-1, 0.0)
        self.pulse = Pulse()
        self.report: DrainReport | None = None

    def show(self, step: Step) -> None:
        """Show one step."""
        if isinstance(step, DrainReport):
            self.report = step
        if self._env.output == "ndjson":
            self._env.emit_json(step)
        elif self._env.output == "json":
            self._show_json(step)
        elif isinstance(step, Planned):
            self._show_plan(step)
        elif isinstance(step, DrainReport):
            self._show_report(step)
        elif self._env.animated:
            self._show_on_terminal(step)
        elif isinstance(step, Waiting):
            self._print_waiting(step)
        else:
            self._env.note(*step_lines(step))

    def begin(self) -> None:
        """Start the clock and the checklist of the drain whose plan was shown last.

        Call this after all questions to the operator.
        """
        self._began = time.monotonic()
        if self._checklist is not None:
            self._live.begin(self._draw)

    def note(self, text: str) -> None:
        """Print a remark on stderr, above the lines that are redrawn."""
        self._live.note(text)

    def close(self) -> None:
        """Remove the lines that are redrawn in place."""
        self._live.end()

    def _show_json(self, step: Step) -> None:
        # One object at the end: the report, or in a dry run the plan.
        if isinstance(step, DrainReport) or (self._dry_run and isinstance(step, Planned)):
            self._env.emit_json(step)
            if isinstance(step, DrainReport) and step.error:
                self._env.note(f"error: {step.error}")

    def _show_plan(self, plan: Planned) -> None:
        env = self._env
        stream = env.streams.stdout if self._dry_run else env.streams.stderr
        if not env.streams.is_terminal(stream):
            mark = "  (dry run)" if self._dry_run else ""
            self._write(stream, (line + mark for line in step_lines(plan)))
            return
        from qctl.output.drain.plan import plan_block  # noqa: PLC0415 - only for a terminal

        lines = plan_block(
            plan,
            width=env.terminal_width,
            colour=env.may_colour(stream),
            with_jobs=self._dry_run or not env.animated,
        )
        self._write(stream, [*lines, "dry run: nothing was changed"] if self._dry_run else lines)
        if env.animated and not self._dry_run:
            from qctl.output.drain.checklist import Checklist  # noqa: PLC0415

            self._checklist = Checklist(
                width=env.terminal_width,
                colour=env.may_colour(stream),
                keep_paused=self._keep_paused,
            )
            self._checklist.begin(plan)

    def _show_report(self, report: DrainReport) -> None:
        env = self._env
        lines = [*self._checklist.flush()] if self._checklist else []
        self.close()
        self._write(env.streams.stderr, lines)
        if not env.streams.stdout_is_terminal:
            self._write(env.streams.stdout, step_lines(report))
            if report.error:
                env.note(f"error: {report.error}")
            return
        from qctl.output.drain.verdict import verdict_block  # noqa: PLC0415 - only for a terminal

        took_s = time.monotonic() - self._began
        block = verdict_block(
            report, took_s, width=env.terminal_width, colour=env.may_colour(env.streams.stdout)
        )
        self._write(env.streams.stdout, ["", *block])

    def _show_on_terminal(self, step: Step) -> None:
        assert self._checklist is not None  # noqa: S101 - every drain begins with its plan
        lines = [*self._checklist.update(step)]
        if isinstance(step, RunningCommand):
            # The output of the command follows.
            self.close()
            self._write(self._env.streams.stderr, lines)
            return
        self._live.begin(self._draw)
        self._live.add(lines)

    def _draw(self) -> Iterator[str]:
        """The redrawn lines; called by another thread."""
        assert self._checklist is not None  # noqa: S101
        return self._checklist.live(self.pulse.silent(), self._env.terminal_height)

    def _write(self, stream: TextIO, lines: Iterable[str]) -> None:
        for line in lines:
            if stream is self._env.streams.stdout:
                self._env.print(line)
            else:
                self._env.streams.stderr.write(line + "\n")
        self._env.streams.stderr.flush()

    def _print_waiting(self, step: Waiting) -> None:
        lines = [*step_lines(step)]
        count, at_s = self._printed
        is_due = count < 0 or step.waited_s - at_s >= REPEAT_S
        if is_due or len(step.active) != count:
            self._printed = (len(step.active), step.waited_s if is_due else at_s)
            # Between two lists, only the first line, with the number of jobs, is printed.
            for line in lines if is_due else lines[:1]:
                self._env.note(line)
