"""``qctl worker``: the bundled runtime, in the foreground (``run``) or in the background.

In both cases, a master process starts and supervises the worker processes.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import WorkerName, parse_endpoint
from qctl.durations import parse_duration_s
from qctl.errors import UsageError
from qctl.plurals import counted

if TYPE_CHECKING:
    from qctl.runtime.processes.messages import MasterOptions

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(i?)b?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}

app = App()

Apps = Annotated[
    list[str],
    typer.Argument(
        metavar="APP...",
        help="MODULE:ATTRIBUTE of a Worker or of a list of Workers, or a MODULE with exactly one "
        "Worker",
    ),
]


@dataclass(frozen=True, slots=True)
class MasterFlags:
    """The options of a master."""

    processes: Annotated[
        int,
        typer.Option("--processes", metavar="N", min=1, max=1000, help="How many processes to run"),
    ] = 1
    grace: Annotated[
        str,
        typer.Option("--grace", metavar="D", help="How long a stop waits for jobs; 0: no limit"),
    ] = "30s"
    max_jobs: Annotated[
        int | None,
        typer.Option("--max-jobs", metavar="N", min=1, help="Replace a process after N jobs"),
    ] = None
    max_rss: Annotated[
        str | None,
        typer.Option("--max-rss", metavar="SIZE", help="Replace a process above SIZE, e.g. 500MB"),
    ] = None
    reload: Annotated[
        bool,
        typer.Option("--reload", help="For development: replace processes when app files change"),
    ] = False
    health_port: Annotated[
        str | None,
        typer.Option(
            "--health-port",
            metavar="[HOST:]PORT",
            help="Serve /livez and /readyz, on 127.0.0.1 unless HOST is given",
        ),
    ] = None
    log_format: Annotated[
        Literal["text", "json"], typer.Option("--log-format", help="Log format")
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option("--log-level", help="Lowest level to log; debug shows every job"),
    ] = "info"
    protect: Annotated[
        Literal["ecs", "kubernetes"] | None,
        typer.Option(
            "--protect", help="While jobs run, ask ECS or Kubernetes to end other workers first"
        ),
    ] = None


@app.command("run", takes_yes=True)
def run(env: Environment, apps: Apps, flags: MasterFlags) -> None:
    """Run workers until SIGTERM or Ctrl-C.

    The first signal lets active jobs finish; a second signal puts them back at once. SIGHUP
    replaces the processes one after another, while the workers keep taking jobs.
    """
    import asyncio  # noqa: PLC0415 - 30 ms that other commands need not pay

    from qctl.runtime import logs  # noqa: PLC0415
    from qctl.runtime.processes.master import Master  # noqa: PLC0415

    options = _make_options(apps, flags)
    logs.configure(flags.log_format, flags.log_level)
    asyncio.run(Master(options, _worker_environ(env)).run())


@app.command("start", takes_yes=True)
def start(
    env: Environment,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Any name; other commands use qctl:NAME")
    ],
    apps: Apps,
    flags: MasterFlags,
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="D", help="How long to wait until the workers take jobs"),
    ] = "2m",
) -> None:
    """Run workers in the background, as the target qctl:NAME.

    Waits until the workers take jobs. If they do not, the end of their log is shown.
    """
    from qctl.ops.masters.control import start as start_master  # noqa: PLC0415
    from qctl.runtime.processes.background import launch  # noqa: PLC0415

    options = _make_options(apps, flags, name)
    timeout_s = parse_duration_s(timeout, "--timeout")
    if env.settings.redis_url == "embedded:":
        raise UsageError(
            "an embedded: Redis ends with this command, but background workers go on",
            hint="name a folder for Redis: --redis embedded:PATH",
        )
    environ = _worker_environ(env)
    started = start_master(
        env.settings.state_home,
        name,
        lambda folder, lock: launch(folder, options, environ, lock),
        timeout_s,
    )
    count = counted(len(started.pids), "process", "processes")
    pids = ", ".join(map(str, started.pids))
    env.show(started, [f"started qctl:{name} (pid {started.pid}): {count}, {pids}"])


@app.command("stop", takes_yes=True)
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
    from qctl.ops.masters.control import stop as stop_master  # noqa: PLC0415

    timeout_s = parse_duration_s(timeout, "--timeout") if timeout else None
    pid = stop_master(env.settings.state_home, name, timeout_s=timeout_s, now=now)
    text = f"stopped qctl:{name} (pid {pid})" if pid else f"qctl:{name} was not running"
    env.show({"name": name, "stopped": pid is not None}, [text])


@app.command("restart", takes_yes=True)
def restart(
    env: Environment,
    name: WorkerName,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="D", help="How long to wait for the new processes")
    ] = "10m",
) -> None:
    """Replace the processes, for example after a deploy; the workers keep taking jobs.

    Each old process keeps taking jobs until its new process takes jobs; then the old process
    finishes its jobs and exits. If the new code does not start, the old processes keep running.
    """
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

        env.draw(masters_text, masters, time.time())
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
            env.print(visible(line))
        env.streams.stdout.flush()


def _make_options(apps: list[str], flags: MasterFlags, name: str = "") -> MasterOptions:
    """The options of a master, parsed."""
    from qctl.runtime.processes.messages import MasterOptions, check_app  # noqa: PLC0415

    for spec in apps:
        check_app(spec)
    return MasterOptions(
        apps=tuple(apps),
        processes=flags.processes,
        grace_s=parse_duration_s(flags.grace, "--grace"),
        max_jobs=flags.max_jobs,
        max_rss_bytes=None if flags.max_rss is None else parse_size(flags.max_rss),
        reload=flags.reload,
        health=None if flags.health_port is None else parse_endpoint(flags.health_port),
        log_format=flags.log_format,
        log_level=flags.log_level,
        protect=flags.protect or "",
        name=name,
    )


def parse_size(text: str) -> int:
    """The number of bytes in ``500MB``, ``1.5 GiB`` or ``500000000``, or a UsageError."""
    match = _SIZE.fullmatch(text.strip())
    size = 0
    if match:
        base = 1024 if match[3] else 1000
        size = round(float(match[1]) * base ** _POWERS[match[2].lower()])
    if not size:
        raise UsageError(f"--max-rss {text!r} is not a size", hint="--max-rss 500MB")
    return size


def _worker_environ(env: Environment) -> dict[str, str]:
    """The environment variables of a master and its processes.

    The URL of Redis is a variable, not an argument: other users can read command lines, and the
    URL may contain a password.
    QCTL_CONTEXT is left out, because it could choose another Redis.
    """
    address, _ = env.redis()
    rest = {k: v for k, v in env.streams.environ.items() if k != "QCTL_CONTEXT"}
    return {**rest, "QCTL_REDIS_URL": address.url, "QCTL_PREFIX": str(env.settings.prefixes)}
