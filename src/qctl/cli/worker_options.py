"""The options that ``qctl worker run`` and ``qctl worker start`` share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qctl.cli.environment import Environment
from qctl.errors import UsageError

if TYPE_CHECKING:
    from qctl.runtime.processes.messages import MasterOptions

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(i?)b?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}

Apps = Annotated[
    list[str],
    typer.Argument(metavar="APP...", help="MODULE:ATTRIBUTE of a Worker or a list of Workers"),
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
        typer.Option(
            "--grace",
            metavar="D",
            help="How long active jobs may take after a stop signal; 0: no limit",
        ),
    ] = "30s"
    max_jobs: Annotated[
        int | None,
        typer.Option("--max-jobs", metavar="N", min=1, help="Replace a process after N jobs"),
    ] = None
    max_rss: Annotated[
        str | None,
        typer.Option(
            "--max-rss", metavar="SIZE", help="Replace a process that uses more memory: 500MB"
        ),
    ] = None
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Replace when the app's files change (for development)"),
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


def make_options(apps: list[str], flags: MasterFlags, name: str = "") -> MasterOptions:
    """What the command line says about a master.

    Raises:
        UsageError: a value is malformed.
    """
    from qctl.durations import parse_duration_s  # noqa: PLC0415
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
        name=name,
    )


def parse_size(text: str) -> int:
    """``500MB``, ``1.5 GiB`` or plain bytes, in bytes.

    Raises:
        UsageError: it is malformed.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0
    if match:
        base = 1024 if match[3] else 1000
        size = round(float(match[1]) * base ** _POWERS[match[2].lower()])
    if not size:
        raise UsageError(f"--max-rss {text!r} is not a size", hint="--max-rss 500MB")
    return size


def parse_endpoint(text: str, option: str = "--health-port") -> tuple[str, int]:
    """``[HOST:]PORT``; without a host, 127.0.0.1.

    Raises:
        UsageError: it is malformed.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(
            f"{option} {text!r} is not [HOST:]PORT",
            hint=f"{option} 8080, or 0.0.0.0:8080 where others must reach it",
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def worker_environ(env: Environment) -> dict[str, str]:
    """The environment of a master and its processes, with the address of Redis.

    A command line would show its password to other users.
    """
    address, _ = env.redis()
    rest = {k: v for k, v in env.streams.environ.items() if k != "QCTL_CONTEXT"}
    return {**rest, "QCTL_REDIS_URL": address.url, "QCTL_PREFIX": env.settings.prefix}
