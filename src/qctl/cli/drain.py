"""``qctl drain`` and ``qctl restart``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

# Typer's own copy of click; a later version of typer might move it, so typer is pinned.
from typer._click.globals import get_current_context

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.help import Command
from qctl.cli.options import DryRun, QueuesOrThoseOfTarget, Targets, target_option
from qctl.cli.pause import MixedVersions
from qctl.durations import parse_duration_s
from qctl.errors import ExitStatus, RefusedError, UsageError

if TYPE_CHECKING:
    from qctl.ops.processes.run_command import OperatorCommand

app = App()
# The words of COMMAND, which are typed after ``--``, are stored in ``ctx.meta`` under this key.
_COMMAND = "qctl.command"


class _CommandAfterDashes(Command):
    """A command whose last arguments may be ``-- COMMAND ARG…``.

    Directly after the ``--``, words that begin with a dash are names of queues, because no program
    has a name that begins with a dash. A second ``--`` ends these names.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        rest = args[end + 1 :]
        count = next(
            (n for n, word in enumerate(rest) if word[:1] != "-" or word == "--"), len(rest)
        )
        names, words = rest[:count], rest[count:]
        if end < len(args) and not rest and not ctx.resilient_parsing:
            # Probably an unset shell variable. Without COMMAND, the queues would stay paused.
            raise UsageError("there is no COMMAND after --", hint="add one, or leave out the --")
        ctx.meta[_COMMAND] = tuple(words[1:] if words[:1] == ["--"] else words)
        return super().parse_args(ctx, [*args[:end], *(["--", *names] if names else [])])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND [ARG]...]"]


@dataclass(frozen=True, slots=True)
class DrainFlags:
    """The options of ``qctl drain`` and ``qctl restart``."""

    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="D", help="How long to wait for active jobs: 30s, 10m"),
    ] = "10m"
    on_timeout: Annotated[
        Literal["abort", "restart"],
        typer.Option(
            "--on-timeout",
            help="After --timeout: abort and put everything back, or restart anyway and recover "
            "the interrupted jobs",
        ),
    ] = "abort"
    strategy: Annotated[
        Literal["pause", "roll"] | None,
        typer.Option(
            "--strategy",
            help="pause: pause the queues until the restart is done. roll: replace one process "
            "after another, without a pause. Default: roll for targets that qctl runs "
            "(qctl:NAME), else pause",
            show_default=False,
        ),
    ] = None
    max_unavailable: Annotated[
        str | None,
        typer.Option(
            "--max-unavailable",
            metavar="N",
            help="How many processes of a target to replace at the same time: a number, or a "
            "percentage such as 25%. Default: 1",
            show_default=False,
        ),
    ] = None
    include_others: Annotated[
        bool | None,
        typer.Option(
            "--include-others/--ignore-others",
            help="For queues that the process serves and you did not name: drain them too, or let "
            "their jobs be interrupted. Default: refuse",
            show_default=False,
        ),
    ] = None
    keep_paused: Annotated[
        bool,
        typer.Option(
            "--keep-paused",
            help="Leave the queues paused after a successful restart; after a timeout, Ctrl-C or a "
            "failure, the queues are resumed",
        ),
    ] = False
    mixed_versions: MixedVersions = False
    resume_from: Annotated[
        str | None,
        typer.Option(
            "--resume-from",
            metavar="TARGET",
            help="Of several targets: begin with this one, after an earlier run that stopped there",
            show_default=False,
        ),
    ] = None
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Do not ask if qctl chose the target or the queues"),
    ] = False
    dry_run: DryRun = False


@dataclass(frozen=True, slots=True)
class CommandFlags:
    """The options for ``-- COMMAND``."""

    command_timeout: Annotated[
        str, typer.Option("--command-timeout", metavar="D", help="How long COMMAND may run")
    ] = "10m"
    ready_timeout: Annotated[
        str,
        typer.Option(
            "--ready-timeout",
            metavar="D",
            help="How long after COMMAND to wait for new workers, and for old workers to end",
        ),
    ] = "1m"
    expect_workers: Annotated[
        int | None,
        typer.Option(
            "--expect-workers",
            metavar="N",
            min=0,
            help="How many new workers each queue must get. Default: as many as before",
        ),
    ] = None
    no_expect: Annotated[
        bool,
        typer.Option(
            "--no-expect",
            help="Do not wait for new workers: only COMMAND's exit code counts. For a Redis that "
            "cannot list workers",
        ),
    ] = False

    def command(self, words: tuple[str, ...]) -> OperatorCommand | None:
        """COMMAND with its options; None if ``words`` is empty.

        Raises:
            UsageError: the program does not exist, an option is malformed, two options contradict
                each other, or an option is set although ``words`` is empty.
        """
        from qctl.ops.processes.run_command import OperatorCommand, require_command  # noqa: PLC0415

        timeout_s = parse_duration_s(self.command_timeout, "--command-timeout", min_s=1)
        ready_s = parse_duration_s(self.ready_timeout, "--ready-timeout")
        if not words:
            if self != CommandFlags():
                raise UsageError(
                    "options for COMMAND are given, but no COMMAND",
                    hint="qctl drain QUEUE… -- COMMAND ARG…",
                )
            return None
        if self.no_expect and self.expect_workers is not None:
            raise UsageError("--no-expect and --expect-workers exclude each other")
        require_command(words)
        return OperatorCommand(words, timeout_s, ready_s, self.expect_workers, not self.no_expect)


@app.command("drain", cls=_CommandAfterDashes)
def drain(
    env: Environment,
    queues: QueuesOrThoseOfTarget = None,
    then_restart: Annotated[
        bool, typer.Option("--then-restart", help="Restart the process once no job is active")
    ] = False,
    target: Annotated[
        str | None,
        target_option(
            "The process to restart, for example pm2:worker. Without --then-restart, the target "
            "only chooses the queues to drain, if you name none"
        ),
    ] = None,
    *,
    flags: DrainFlags,
    command_flags: CommandFlags,
) -> None:
    """Let active jobs finish, then restart the workers if wanted.

    The queues are paused, so that no new job starts. With --then-restart, qctl restarts the target.
    With `-- COMMAND`, that command restarts the workers; qctl waits until the old workers are gone
    and new workers are connected. Without a restart, the queues stay paused until `qctl resume`. If
    anything goes wrong, the drain undoes its changes, even after a kill -9.
    """
    command = command_flags.command(get_current_context().meta[_COMMAND])
    if command is not None:
        _check_command_options(queues, target, flags, then_restart=then_restart)
    elif not then_restart:
        chosen = {
            "--on-timeout restart": flags.on_timeout == "restart",
            "--strategy roll": flags.strategy == "roll",
            "--max-unavailable": flags.max_unavailable is not None,
            "--resume-from": flags.resume_from is not None,
        }
        _refuse(chosen, "needs --then-restart", hint="add --then-restart")
    targets = [] if target is None else [target]
    _run(
        env, flags, queues or [], targets, then_restart=then_restart, verb="drain", command=command
    )


@app.command("restart")
def restart(env: Environment, targets: Targets, flags: DrainFlags) -> None:
    """Restart a process without interrupting its jobs.

    The same as `qctl drain --then-restart --target TARGET`, for all queues that TARGET serves.
    Several targets are restarted one after another, each with a drain of its own; the first failure
    ends the command.
    """
    _run(env, flags, [], targets, then_restart=True, verb="restart")


def _run(
    env: Environment,
    flags: DrainFlags,
    queues: list[str],
    targets: list[str],
    *,
    then_restart: bool,
    verb: str,
    command: OperatorCommand | None = None,
) -> None:
    from qctl.cli.progress import DrainView  # noqa: PLC0415 - not for --help
    from qctl.cli.signals import stop_on_signals  # noqa: PLC0415
    from qctl.ops.drain.choose import SeveralTargetsError  # noqa: PLC0415
    from qctl.ops.drain.context import DrainOptions  # noqa: PLC0415
    from qctl.ops.drain.plan import DrainPlan, describe, make_plan  # noqa: PLC0415
    from qctl.ops.drain.run import drain as carry_out  # noqa: PLC0415
    from qctl.ops.drain.sequence import expand, not_begun, starting_at  # noqa: PLC0415

    options = DrainOptions(
        timeout_s=parse_duration_s(flags.timeout, "--timeout"),
        restart_on_timeout=flags.on_timeout == "restart",
        keep_paused=flags.keep_paused,
        verb=verb,
    )
    address, client = env.redis()

    def make(target: str | None, *, only_served: bool = False) -> DrainPlan:
        plan = make_plan(
            client,
            address,
            env.settings,
            queues,
            target=target,
            then_restart=then_restart,
            include_others=flags.include_others,
            strategy=flags.strategy,
            mixed_versions=flags.mixed_versions,
            operator_command=command,
            only_served=only_served,
            max_unavailable=flags.max_unavailable,
        )
        if plan.strategy == "roll":
            _check_roll_options(flags)
        return plan

    def run_several(targets: Sequence[str], *, is_guessed: bool = False) -> None:
        from qctl.cli.sequence import run_sequence  # noqa: PLC0415

        _exit(
            run_sequence(
                env,
                client,
                targets,
                queues,
                lambda target: make(target, only_served=True),
                lambda plan, stop, pulse: carry_out(
                    client, address, env.settings, plan, options, stop, pulse
                ),
                resume_from=flags.resume_from,
                dry_run=flags.dry_run,
                keep_paused=flags.keep_paused,
                is_guessed=is_guessed and not flags.yes,
            )
        )

    named = expand(env.settings, targets)
    if len(named) > 1:
        if not then_restart:
            raise UsageError(
                "without --then-restart, a drain takes one target", hint="add --then-restart"
            )
        run_several(named)
        return
    target = next(iter(named), None)
    found: Sequence[str] = ()
    try:
        plan = make(target)
        starting_at([target or plan.target.label] if plan.target else [], flags.resume_from)
        with contextlib.closing(
            DrainView(env, dry_run=flags.dry_run, keep_paused=flags.keep_paused)
        ) as view:
            view.show(describe(plan, client))
            if flags.dry_run:
                return
            if plan.guessed and not flags.yes:
                does = "Drain and restart" if then_restart else "Drain the queues of"
                env.confirm(f"{does} {plan.guessed}?", "name the queues and the --target")
            view.begin()
            with stop_on_signals(view.note) as stop:
                steps = carry_out(client, address, env.settings, plan, options, stop, view.pulse)
                with contextlib.closing(steps):
                    for step in steps:
                        view.show(step)
    except SeveralTargetsError as several:
        found = several.labels
    except RefusedError as error:
        if env.output != "table":
            refusal = not_begun(target, queues, flags.strategy or "pause", error)
            argv = command.argv if command else ()
            env.emit_json(replace(refusal, error=error.what, command=argv))
        raise
    if found:
        run_several(found, is_guessed=True)
    elif view.report is not None:
        _exit(view.report.exit_status)


def _exit(status: int) -> None:
    if status != ExitStatus.OK:
        raise typer.Exit(status)


def _check_roll_options(flags: DrainFlags) -> None:
    chosen = {
        "--on-timeout restart": flags.on_timeout == "restart",
        "--keep-paused": flags.keep_paused,
    }
    _refuse(
        chosen,
        "cannot be combined with a roll",
        why="a roll pauses no queue and kills no process",
        hint="leave it out, or add --strategy pause",
    )


def _check_command_options(
    queues: list[str] | None, target: str | None, flags: DrainFlags, *, then_restart: bool
) -> None:
    """Refuse options that do not fit a COMMAND, and a COMMAND without named queues."""
    chosen = {
        "--then-restart": then_restart,
        "--target": target is not None,
        "--strategy roll": flags.strategy == "roll",
        "--max-unavailable": flags.max_unavailable is not None,
        "--resume-from": flags.resume_from is not None,
    }
    _refuse(
        chosen,
        "cannot be combined with -- COMMAND",
        why="either qctl restarts the workers or the command does",
        hint="leave out the option or the command",
    )
    if not queues:
        raise UsageError(
            "it is not clear which queues to drain",
            why="with -- COMMAND, qctl does not know what will be restarted",
            hint="name each queue before the dashes: qctl drain QUEUE… -- COMMAND ARG…",
        )


def _refuse(options: dict[str, bool], what: str, *, why: str = "", hint: str) -> None:
    """Raise a UsageError for the first option that is given, if any."""
    for option, is_given in options.items():
        if is_given:
            raise UsageError(f"{option} {what}", why=why, hint=hint)
