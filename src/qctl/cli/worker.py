"""``qctl worker``: the bundled runtime, in the foreground (``run``) or in the background.

A master process runs the worker processes of one NAME.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import WorkerName
from qctl.cli.worker_options import Apps, MasterFlags, make_options, worker_environ
from qctl.errors import UsageError
from qctl.plurals import counted

app = App()


@app.command("run")
def run(env: Environment, apps: Apps, flags: MasterFlags) -> None:
    """Run workers until SIGTERM or Ctrl-C.

    The first signal lets active jobs finish; a second one puts them back at once. SIGHUP replaces
    the processes, one after another, without a gap.
    """
    import asyncio  # noqa: PLC0415 - 30 ms that other commands need not pay

    from qctl.runtime import logs  # noqa: PLC0415
    from qctl.runtime.processes.master import Master  # noqa: PLC0415

    options = make_options(apps, flags)
    logs.configure(flags.log_format)
    asyncio.run(Master(options, worker_environ(env)).run())


@app.command("start")
def start(
    env: Environment,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Other commands use qctl:NAME")],
    apps: Apps,
    flags: MasterFlags,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="D", help="How long to wait until they take jobs")
    ] = "2m",
) -> None:
    """Run workers in the background, as the target qctl:NAME.

    Waits until they take jobs. If they do not, it shows the end of their log.
    """
    from qctl.durations import parse_duration_s  # noqa: PLC0415
    from qctl.ops.masters.control import start as start_master  # noqa: PLC0415
    from qctl.runtime.processes.background import launch  # noqa: PLC0415

    options = make_options(apps, flags, name)
    timeout_s = parse_duration_s(timeout, "--timeout")
    if env.settings.redis_url == "embedded:":
        raise UsageError(
            "an embedded: Redis ends with this command, but background workers do not",
            hint="name a folder for it: --redis embedded:PATH",
        )
    environ = worker_environ(env)
    started = start_master(
        env.settings.state_home,
        name,
        lambda folder, lock: launch(folder, options, environ, lock),
        timeout_s,
    )
    count = counted(len(started.pids), "process", "processes")
    pids = ", ".join(map(str, started.pids))
    env.show(started, [f"started qctl:{name} (pid {started.pid}): {count}, {pids}"])


@app.command("stop")
def stop(
    env: Environment,
    name: WorkerName,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="D", help="How long to wait. Default: --grace plus 20 s"),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Put active jobs back instead of letting them finish")
    ] = False,
) -> None:
    """Let active jobs finish, then stop the workers."""
    from qctl.durations import parse_duration_s  # noqa: PLC0415
    from qctl.ops.masters.control import stop as stop_master  # noqa: PLC0415

    timeout_s = parse_duration_s(timeout, "--timeout") if timeout else None
    pid = stop_master(env.settings.state_home, name, timeout_s=timeout_s, now=now)
    text = f"stopped qctl:{name} (pid {pid})" if pid else f"qctl:{name} was not running"
    env.show({"name": name, "stopped": pid is not None}, [text])


@app.command("restart")
def restart(
    env: Environment,
    name: WorkerName,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="D", help="How long to wait for the new processes")
    ] = "10m",
) -> None:
    """Replace the processes without a gap, for example after a deploy.

    Each new process takes jobs before the old one finishes its jobs and exits. If the new code does
    not start, the old processes stay.
    """
    from qctl.durations import parse_duration_s  # noqa: PLC0415
    from qctl.ops.masters.control import restart as restart_master  # noqa: PLC0415

    timeout_s = parse_duration_s(timeout, "--timeout")
    rows = restart_master(env.settings.state_home, name, timeout_s)
    lines = [f"qctl:{name}/{r.slot}: {r.old_pid or '-'} → {r.new_pid}" for r in rows]
    env.show({"name": name, "replaced": rows}, lines)


@app.command("list")
def list_command(env: Environment) -> None:
    """Workers in the background, running and stopped."""
    from qctl.ops.masters.listing import list_masters  # noqa: PLC0415

    masters = list_masters(env.settings.state_home)
    if env.output != "table":
        env.emit_json({"workers": masters})
    elif masters:
        from qctl.output.status import masters_text  # noqa: PLC0415

        text = masters_text(masters, time.time(), width=env.width, colour=env.colour())
        env.streams.stdout.write(text)
    else:
        env.note("no worker was started in the background: qctl worker start NAME APP")


@app.command("logs")
def logs(
    env: Environment,
    name: WorkerName,
    lines: Annotated[
        int, typer.Option("--lines", metavar="N", min=0, help="Show the last N lines")
    ] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with new lines until Ctrl-C")
    ] = False,
) -> None:
    """The log of a worker in the background."""
    from qctl.ops.masters.listing import read_logs  # noqa: PLC0415
    from qctl.output.text import visible  # noqa: PLC0415

    for chunk in read_logs(env.settings.state_home, name, lines, follow=follow):
        for line in chunk:
            env.line(visible(line))
        env.streams.stdout.flush()
