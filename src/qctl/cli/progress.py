"""Shows the steps of a drain. On a terminal, the list of awaited jobs is redrawn in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qctl.cli.environment import Environment
from qctl.ops.drain.steps import DrainReport, Planned, Step, Waiting
from qctl.output.drain.lines import step_lines

if TYPE_CHECKING:
    from rich.live import Live

# Without a terminal, the list of awaited jobs is printed again after this time.
REPEAT_S = 10.0


class DrainView:
    """Shows the steps of a drain in the chosen output format."""

    def __init__(self, env: Environment, *, dry_run: bool) -> None:
        self._env = env
        self._dry_run = dry_run
        self._live: Live | None = None
        # The last printed number of awaited jobs (-1: none), and when the last list was printed.
        self._printed: tuple[int, float] = (-1, 0.0)
        # The last step of the drain; None until it is shown.
        self.report: DrainReport | None = None

    def show(self, step: Step) -> None:
        """Show one step."""
        if isinstance(step, DrainReport):
            self.report = step
        if self._env.output == "ndjson":
            self._env.emit_json(step)
        elif self._env.output == "json":
            self._show_json(step)
        elif isinstance(step, Waiting):
            self._show_waiting(step)
        else:
            self.close()
            self._show_lines(step)

    def _show_json(self, step: Step) -> None:
        # One object at the end: the report, or in a dry run the plan.
        if isinstance(step, DrainReport) or (self._dry_run and isinstance(step, Planned)):
            self._env.emit_json(step)
            if isinstance(step, DrainReport) and step.error:
                self._env.note(f"error: {step.error}")

    def _show_lines(self, step: Step) -> None:
        env = self._env
        for line in step_lines(step):
            if isinstance(step, DrainReport):
                env.print(line)
            elif isinstance(step, Planned) and self._dry_run:
                env.print(f"{line}  (dry run)")
            else:
                env.note(line)
        if isinstance(step, DrainReport) and step.error:
            env.streams.stdout.flush()
            env.note(f"error: {step.error}")

    def _show_waiting(self, step: Waiting) -> None:
        lines = [*step_lines(step)]
        if self._env.animated:
            from rich.live import Live  # noqa: PLC0415 - only for a terminal
            from rich.text import Text  # noqa: PLC0415

            if self._live is None:
                self._live = Live(
                    console=self._env.console(self._env.streams.stderr),
                    transient=True,
                    auto_refresh=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
            text = Text("\n".join(lines), overflow="ellipsis", no_wrap=True)
            self._live.update(text, refresh=True)
            return
        count, at_s = self._printed
        is_due = count < 0 or step.waited_s - at_s >= REPEAT_S
        if is_due or len(step.active) != count:
            self._printed = (len(step.active), step.waited_s if is_due else at_s)
            # Between two lists, only the first line, with the number of jobs, is printed.
            for line in lines if is_due else lines[:1]:
                self._env.note(line)

    def close(self) -> None:
        """Remove the lines that are redrawn in place."""
        if self._live is not None:
            self._live.stop()
            self._live = None
