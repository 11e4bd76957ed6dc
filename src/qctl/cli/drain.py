"""``qctl drain`` and ``qctl restart``."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qctl.cli.frame import Environment, new_app, with_environment
from qctl.cli.pause import MixedVersions
from qctl.errors import ExitStatus, RefusedError, UsageError

if TYPE_CHECKING:
    from qctl.ops.drain.plan import DrainPlan
    from qctl.ops.drain.state import DrainOptions

app = new_app()

TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="Process to restart with --then-restart, for example pm2:worker. Without it nothing "
        "is restarted: the target names the queues to drain when none is named",
    ),
]
Timeout = Annotated[
    str,
    typer.Option(
        "--timeout", metavar="D", help="Longest wait for running jobs: 30s, 10m, 2h, or seconds"
    ),
]
OnTimeout = Annotated[
    Literal["abort", "restart"],
    typer.Option(
        "--on-timeout",
        help="Then: put everything back, or restart anyway and bring interrupted jobs back",
    ),
]
Others = Annotated[
    bool | None,
    typer.Option(
        "--include-others/--ignore-others",
        help="Queues the process serves that were not named: drain them too, or let their jobs be "
        "interrupted. Without either: refuse",
        show_default=False,
    ),
]
Strategy = Annotated[
    Literal["pause", "roll"] | None,
    typer.Option(
        "--strategy",
        help="How: pause the queues meanwhile, or roll: one process after another, no pause. "
        "Default: roll for qctl: targets, else pause",
        show_default=False,
    ),
]
KeepPaused = Annotated[
    bool,
    typer.Option(
        "--keep-paused",
        help="Leave the queues paused at the end, if all went well; after a timeout, Ctrl-C or a "
        "failure they are resumed",
    ),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Do not ask about a target or queues that were guessed"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing")]


@app.command("drain")
@with_environment
def drain(
    env: Environment,
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUEUE]...", help="Default: those the target serves"),
    ] = None,
    then_restart: Annotated[
        bool, typer.Option("--then-restart", help="Restart the process once nothing is running")
    ] = False,
    target: TargetOption = None,
    timeout: Timeout = "10m",
    on_timeout: OnTimeout = "abort",
    strategy: Strategy = None,
    include_others: Others = None,
    keep_paused: KeepPaused = False,
    mixed_versions: MixedVersions = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Let the running jobs finish, then restart the workers if wanted.

    Without --then-restart the queues stay paused, so that what is drained stays drained until
    `qctl resume`. Whatever goes wrong, a drain puts back what it changed; killed with kill -9, its
    watchdog does.
    """
    if on_timeout == "restart" and not then_restart:
        raise UsageError("--on-timeout restart needs --then-restart", hint="add --then-restart")
    if strategy == "roll" and not then_restart:
        raise UsageError("--strategy roll needs --then-restart", hint="add --then-restart")
    _run(
        env,
        queues or [],
        target=target,
        then_restart=then_restart,
        timeout=timeout,
        restart_on_timeout=on_timeout == "restart",
        strategy=strategy,
        include_others=include_others,
        keep_paused=keep_paused,
        mixed_versions=mixed_versions,
        yes=yes,
        dry_run=dry_run,
        verb="drain",
    )


@app.command("restart")
@with_environment
def restart(
    env: Environment,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="For example pm2:worker")],
    timeout: Timeout = "10m",
    on_timeout: OnTimeout = "abort",
    strategy: Strategy = None,
    include_others: Others = None,
    keep_paused: KeepPaused = False,
    mixed_versions: MixedVersions = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="No effect: a named target is not asked about")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Restart a process without interrupting its jobs.

    The same as `qctl drain --then-restart --target TARGET`: the queues are those it serves.
    """
    _run(
        env,
        [],
        target=target,
        then_restart=True,
        timeout=timeout,
        restart_on_timeout=on_timeout == "restart",
        strategy=strategy,
        include_others=include_others,
        keep_paused=keep_paused,
        mixed_versions=mixed_versions,
        yes=yes,
        dry_run=dry_run,
        verb="restart",
    )


def _run(
    env: Environment,
    queues: list[str],
    *,
    target: str | None,
    then_restart: bool,
    timeout: str,
    restart_on_timeout: bool,
    strategy: str | None,
    include_others: bool | None,
    keep_paused: bool,
    mixed_versions: bool,
    yes: bool,
    dry_run: bool,
    verb: str,
) -> None:
    # Late, so that `qctl --help` stays quick.
    from qctl.cli.progress import DrainView  # noqa: PLC0415
    from qctl.cli.signals import stop_on_signals  # noqa: PLC0415
    from qctl.durations import parse_duration_s  # noqa: PLC0415
    from qctl.ops.drain.plan import Others as OthersChoice  # noqa: PLC0415
    from qctl.ops.drain.plan import describe, make_plan  # noqa: PLC0415
    from qctl.ops.drain.run import drain as carry_out  # noqa: PLC0415
    from qctl.ops.drain.state import DrainOptions as Options  # noqa: PLC0415

    options = Options(
        timeout_s=parse_duration_s(timeout, "--timeout"),
        restart_on_timeout=restart_on_timeout,
        keep_paused=keep_paused,
        verb=verb,
    )
    others = {
        None: OthersChoice.REFUSE,
        True: OthersChoice.INCLUDE,
        False: OthersChoice.IGNORE,
    }[include_others]
    address, client = env.redis()
    try:
        plan = make_plan(
            client,
            address,
            env.settings,
            queues,
            target=target,
            then_restart=then_restart,
            others=others,
            strategy=strategy,
            mixed_versions=mixed_versions,
        )
        if plan.strategy == "roll":
            _require_roll_options(options)
        with DrainView(env, dry_run=dry_run) as view:
            view.show(describe(plan, client, int(time.time() * 1000)))
            if dry_run:
                return
            _confirm(env, plan, then_restart, yes=yes)
            with stop_on_signals(env.note) as stop:
                steps = carry_out(client, address, env.settings, plan, options, stop)
                with contextlib.closing(steps):
                    for step in steps:
                        view.show(step)
    except RefusedError as error:
        _emit_refusal(env, queues, target, strategy, error)
        raise
    if view.report is not None and view.report.exit_status != ExitStatus.OK:
        raise typer.Exit(view.report.exit_status)


def _require_roll_options(options: DrainOptions) -> None:
    """A roll neither pauses nor kills, so what is about either has no meaning."""
    for is_given, option in (
        (options.restart_on_timeout, "--on-timeout restart"),
        (options.keep_paused, "--keep-paused"),
    ):
        if is_given:
            raise UsageError(
                f"{option} does not go with a roll",
                why="a roll pauses no queue and kills no process",
                hint="leave it out, or add --strategy pause",
            )


def _confirm(env: Environment, plan: DrainPlan, then_restart: bool, *, yes: bool) -> None:
    """Ask about what was found rather than named."""
    if yes or not plan.guessed:
        return
    does = "Drain and restart" if then_restart else "Drain the queues of"
    if not env.confirm(f"{does} {plan.guessed}?"):
        raise RefusedError("nothing was done", hint="name the queues and the --target")


def _emit_refusal(
    env: Environment,
    queues: list[str],
    target: str | None,
    strategy: str | None,
    error: RefusedError,
) -> None:
    if env.output == "table":
        return
    from qctl.ops.drain.steps import DrainReport  # noqa: PLC0415
    from qctl.output.json import as_record  # noqa: PLC0415

    refusal = DrainReport(
        outcome="refused",
        queues=tuple(queues),
        target=target,
        strategy=strategy or "pause",
        error=error.what,
        exit_status=int(error.exit_status),
    )
    env.emit_json(as_record(refusal, with_step=env.output == "ndjson"))
