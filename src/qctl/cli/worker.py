"""``qctl worker``: the bundled runtime, in front (``run``) or in the background."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qctl.cli.frame import Environment, new_app, with_environment
from qctl.cli.worker_options import (
    Apps,
    Grace,
    HealthPort,
    LogFormat,
    MaxJobs,
    MaxRss,
    Processes,
    Reload,
    make_options,
    worker_environ,
)
from qctl.errors import FailedError, QctlError, TimedOutError, UsageError
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.manage.state import Folder, MasterState

app = new_app("Run workers in Python, in front or in the background.")

_POLL_S = 0.05
_FOLLOW_S = 0.2
# After the grace of a stop, for a master to see its processes off.
_STOP_MARGIN_S = 20.0

Name = Annotated[str, typer.Argument(metavar="NAME", help="As it was started by")]


@app.command("run")
@with_environment
def run(
    env: Environment,
    apps: Apps,
    processes: Processes = 1,
    grace: Grace = "30s",
    max_jobs: MaxJobs = None,
    max_rss: MaxRss = None,
    reload: Reload = False,
    health_port: HealthPort = None,
    log_format: LogFormat = "text",
) -> None:
    """Run workers until SIGTERM or Ctrl-C.

    The first signal lets running jobs finish, a second one gives them back at once. SIGHUP
    replaces the processes, one after another, without a gap.
    """
    import asyncio  # noqa: PLC0415 - 30 ms that other commands need not pay

    from qctl.runtime import logs  # noqa: PLC0415
    from qctl.runtime.processes.master import Master  # noqa: PLC0415

    options = make_options(
        apps, processes, grace, max_jobs, max_rss, reload, health_port, log_format
    )
    logs.configure(log_format)
    asyncio.run(Master(options, worker_environ(env)).run())


@app.command("start")
@with_environment
def start(
    env: Environment,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Becomes the target qctl:NAME")],
    apps: Apps,
    processes: Processes = 1,
    grace: Grace = "30s",
    max_jobs: MaxJobs = None,
    max_rss: MaxRss = None,
    reload: Reload = False,
    health_port: HealthPort = None,
    log_format: LogFormat = "text",
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="D", help="Longest wait until it is ready")
    ] = "2m",
) -> None:
    """Run workers in the background, as the target qctl:NAME.

    It waits until they take jobs; when they cannot, it shows their last words.
    """
    from qctl.durations import parse_duration_s  # noqa: PLC0415
    from qctl.manage.state import Folder  # noqa: PLC0415
    from qctl.runtime.processes.background import run_in_background  # noqa: PLC0415

    options = make_options(
        apps, processes, grace, max_jobs, max_rss, reload, health_port, log_format, name
    )
    timeout_s = parse_duration_s(timeout, "--timeout")
    folder = Folder(env.settings.state_home, name)
    if env.settings.redis_url == "embedded:":
        raise UsageError(
            "embedded: ends with this command, and workers in the background do not",
            hint="name a folder for it: --redis embedded:PATH",
        )
    environ = worker_environ(env)
    folder.make()
    lock = folder.try_lock()
    if lock is None:
        is_stopping = _answer_of(folder).get("stopping")
        raise FailedError(
            f"qctl:{name} is still stopping" if is_stopping else f"qctl:{name} runs already",
            hint="qctl worker list" if is_stopping else f"qctl worker restart {name}",
        )
    pid, pids = run_in_background(folder, options, environ, lock, timeout_s)
    if env.output == "table":
        env.line(f"started qctl:{name} (pid {pid}): {_processes_text(pids)}")
    else:
        env.emit_json({"name": name, "pid": pid, "pids": pids})


@app.command("stop")
@with_environment
def stop(
    env: Environment,
    name: Name,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="D", help="Longest wait; default: its grace and 20 s"),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Give running jobs back instead of letting them finish")
    ] = False,
) -> None:
    """Let running jobs finish, then end the workers."""
    from qctl.durations import parse_duration_s  # noqa: PLC0415
    from qctl.manage.qctl import Qctl  # noqa: PLC0415
    from qctl.manage.sockets import is_running  # noqa: PLC0415
    from qctl.manage.state import Folder  # noqa: PLC0415

    folder = Folder(env.settings.state_home, name)
    state = folder.running()
    if state is None:
        if folder.read() is None:
            raise Qctl(env.settings.state_home).not_running(name)
        _say(env, {"name": name, "stopped": False}, f"qctl:{name} was not running")
        return
    limit_s = parse_duration_s(timeout, "--timeout") if timeout else None
    if limit_s is None and (state.grace_s or now):
        limit_s = (0 if now else state.grace_s) + _STOP_MARGIN_S
    if not folder.ask({"do": "state"})["stopping"]:
        folder.ask({"do": "stop"})
    if now:
        folder.ask({"do": "stop"})
    deadline = None if limit_s is None else time.monotonic() + limit_s
    while is_running(state.pid, state.birth_s):
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOutError(
                f"qctl:{name} is still stopping after {limit_s:g} s",
                why="its jobs have not finished; it takes no new ones and goes on. --now gives "
                "its jobs back",
                hint=f"qctl worker stop {name} --now",
            )
        time.sleep(_POLL_S)
    _say(env, {"name": name, "stopped": True}, f"stopped qctl:{name} (pid {state.pid})")


@app.command("restart")
@with_environment
def restart(
    env: Environment,
    name: Name,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="D", help="Longest wait for the new processes")
    ] = "10m",
) -> None:
    """Replace its processes without a gap: with new code, for example.

    A new process takes jobs before the old one is told to finish those it has and leave. With
    new code that does not start, the old processes stay.
    """
    from qctl.durations import parse_duration_s  # noqa: PLC0415
    from qctl.manage.qctl import Qctl, refusal  # noqa: PLC0415
    from qctl.manage.state import Folder, Request  # noqa: PLC0415

    timeout_s = parse_duration_s(timeout, "--timeout")
    folder = Folder(env.settings.state_home, name)
    if folder.running() is None:
        raise Qctl(env.settings.state_home).not_running(name)
    request = Request(folder, {"do": "replace", "slot": None})
    answer = request.poll(timeout_s)
    request.close()
    if answer is None:
        raise TimedOutError(
            f"the processes of qctl:{name} were not all replaced within {timeout}",
            why="the master goes on with it",
            hint="qctl worker list",
        )
    if (error := refusal(answer)) is not None:
        what, _, words = error.partition("\n")
        raise FailedError(
            f"qctl:{name}: {what}",
            why=f"those not yet replaced stay; it said:\n{words}" if words else "",
            hint=f"fix the app, then qctl worker restart {name}" if words else "qctl worker list",
        )
    rows = answer["replaced"]
    if env.output == "table":
        for row in rows:
            env.line(f"qctl:{name}/{row['slot']}: {row['old_pid'] or '-'} → {row['new_pid']}")
    else:
        env.emit_json({"name": name, "replaced": rows})


@app.command("list")
@with_environment
def list_command(env: Environment) -> None:
    """Workers in the background, running and stopped."""
    from qctl.manage.state import Folder, names  # noqa: PLC0415

    home = env.settings.state_home
    masters = [_describe(Folder(home, name)) for name in names(home)]
    if env.output != "table":
        env.emit_json({"workers": masters})
    elif masters:
        from qctl.output.masters import masters_table  # noqa: PLC0415

        env.table(*masters_table(masters, time.time()))
    else:
        env.note("no worker was started in the background: qctl worker start NAME APP")


@app.command("logs")
@with_environment
def logs(
    env: Environment,
    name: Name,
    lines: Annotated[
        int, typer.Option("--lines", metavar="N", min=0, help="How many of the last ones")
    ] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C")
    ] = False,
) -> None:
    """What a worker in the background and its processes have printed."""
    from qctl.manage.qctl import Qctl, more, tail  # noqa: PLC0415
    from qctl.manage.state import Folder  # noqa: PLC0415

    folder = Folder(env.settings.state_home, name)
    if not folder.log.exists():
        raise Qctl(env.settings.state_home).not_running(name)
    rows, end = tail(folder.log, lines)
    _print_lines(env, rows)
    while follow:
        rows, end = more(folder.log, end)
        _print_lines(env, rows)
        if not rows:
            time.sleep(_FOLLOW_S)


def _print_lines(env: Environment, rows: list[str]) -> None:
    from qctl.output.text import visible  # noqa: PLC0415

    for row in rows:
        env.line(visible(row))
    env.streams.stdout.flush()


def _say(env: Environment, record: dict[str, Any], text: str) -> None:
    if env.output == "table":
        env.line(text)
    else:
        env.emit_json(record)


def _processes_text(pids: list[int]) -> str:
    return f"{counted(len(pids), 'process', 'processes')}, {', '.join(map(str, pids))}"


def _describe(folder: Folder) -> dict[str, Any]:
    """One master for ``list``; what does not answer is shown as what is known of it."""
    state, running = folder.read(), folder.running()
    answer = _answer_of(folder) if running is not None else {}
    return _row(folder.name, state, answer, is_running=running is not None)


def _answer_of(folder: Folder) -> dict[str, Any]:
    try:
        return folder.ask({"do": "state"})
    except QctlError:
        return {"stuck": True}


def _row(
    name: str, state: MasterState | None, answer: dict[str, Any], *, is_running: bool
) -> dict[str, Any]:
    from datetime import UTC, datetime  # noqa: PLC0415

    # One that cannot be read is no reason to hide the others.
    status = "unknown" if state is None else "stopped"
    if is_running:
        status = "online" if answer.get("ready") else "launching"
        status = "stopping" if answer.get("stopping") else status
        status = "stuck" if answer.get("stuck") else status
    started_at = datetime.fromtimestamp(state.started_at_s, UTC) if state and is_running else None
    return {
        "name": name,
        "target": f"qctl:{name}",
        "status": status,
        "pid": state.pid if state and is_running else None,
        "started_at": started_at,
        "apps": state.apps if state else [],
        "cwd": state.cwd if state else None,
        "processes": answer.get("slots", []),
        "leaving": answer.get("leaving", []),
    }
