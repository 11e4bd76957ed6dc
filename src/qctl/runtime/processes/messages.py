"""The messages between a master and its children: JSON lines over a socket pair.

A child sends ``workers`` (before it fetches a job), ``ready``, ``state`` (every second),
``changed`` (with ``--reload``: files of the app have changed), ``leaving`` (it has begun to stop)
and ``failed`` (it ends with an error). The master sends ``stop`` and ``hurry`` (give the jobs back
now). When the master dies, the child reads the end of the stream, and stops. After an upgrade of
qctl, new children have newer code than their master, until the master is restarted. So each side
ignores messages and fields unknown to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from qctl.errors import UsageError

T = TypeVar("T")
# The environment variable with a child's orders. It is removed before the app is loaded.
ORDERS_VARIABLE = "QCTL_WORKER_ORDERS"
STATE_EVERY_S = 1.0
# A child that has sent no message for longer than this is stuck.
SILENT_AFTER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterOptions:
    """What a master runs. The URL and prefix of Redis are in the master's environment, not here.

    Args:
        apps: ``module`` or ``module:attribute`` each.
        grace_s: how long running jobs may take at a stop, in seconds; 0 for no limit.
        max_jobs: a process is replaced after completing or failing this many jobs; None: no limit.
        max_rss_bytes: a process that uses more memory than this is replaced; None for no limit.
        health: host and port for /livez and /readyz; None for no server.
        log_format, log_level: see ``logs.LogSetup``.
        protect: one of ``protection.KINDS``; "" for no protection.
        name: the name of a background master; "" for a master in the foreground.
    """

    apps: Sequence[str]
    processes: int = 1
    grace_s: float = 30.0
    max_jobs: int | None = None
    max_rss_bytes: int | None = None
    reload: bool = False
    health: tuple[str, int] | None = None
    log_format: str = "text"
    log_level: str = "info"
    protect: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders(MasterOptions):
    """The master's options, and what differs from child to child.

    Args:
        slot: the number of the child's slot, from 0.
        channel: descriptor of the child's end of the socket pair.
        stderr: descriptor that becomes the child's stderr when the child is ready. Until then, the
            master reads the child's stderr.
    """

    slot: int
    channel: int
    stderr: int


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """What a master must know to put back the jobs of a worker that died.

    Args:
        owner: the worker's id; each of its lock tokens is ``OWNER:NUMBER``.
        redis_url: may contain a password.
    """

    owner: str
    prefix: str
    queue: str
    redis_url: str = field(repr=False)
    max_stalled_count: int


@dataclass(frozen=True, slots=True)
class ChildState:
    """The state of a child, as of its last message.

    Args:
        busy: the number of jobs that the child's workers have in hand.
        done: the number of jobs that the child's workers have completed or failed.
        late: a queue whose last successful fetch was too long ago; "" for none.
    """

    busy: int = 0
    done: int = 0
    rss_bytes: int = 0
    late: str = ""


def check_app(spec: str) -> None:
    """Check the form of an app's name, ``module`` or ``module:attribute``. Nothing is imported.

    Raises:
        UsageError: the name is malformed, is that of a file, or begins with a module of Python's
            standard library, which Python would import instead of the app.
    """
    module, separator, attribute = spec.partition(":")
    if module.endswith(".py") or "/" in module:
        dotted = module.removesuffix(".py").removeprefix("./").strip("/").replace("/", ".")
        raise UsageError(
            f"{spec!r} names a file; an app is named by its module",
            hint=f"type {dotted}{separator}{attribute}",
        )
    parts = [*module.split("."), *(attribute.split(".") if separator else ())]
    if not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"{spec!r} does not name an app",
            why="an app is MODULE or MODULE:ATTRIBUTE; the attribute is a Worker or a list of them",
            hint="for `worker = Worker(…)` in app.py, type app:worker",
        )
    if parts[0] in sys.stdlib_module_names:
        raise UsageError(
            f"{parts[0]!r} is a module of Python's standard library, so it cannot name an app",
            hint=f"rename {parts[0]}.py, for example to {parts[0]}_app.py",
        )


def encode(kind: str, **fields: Any) -> bytes:
    """Encode a message."""
    return json.dumps({"kind": kind, **fields}).encode() + b"\n"


def decode(data: bytes) -> Mapping[str, Any]:
    """Decode a message. A malformed message becomes an empty one."""
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def from_row(kind: type[T], row: Mapping[str, Any]) -> T:
    """Make an instance of the dataclass ``kind`` from ``row``; ignore keys that are not fields."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in row.items() if name in names})
