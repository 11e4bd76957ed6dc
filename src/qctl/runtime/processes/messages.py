"""The messages between a master and its children: JSON lines over a socket pair.

A child sends ``workers`` (before it fetches a job), ``ready``, ``state`` every second, ``changed``
(``--reload``), ``leaving`` and, if it cannot start, ``failed``. The master sends ``stop`` and
``hurry``; when the master is gone, the child sees the end of the stream, and stops. A child may
have newer code than its master.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qctl.errors import UsageError

# The environment variable with a child's orders; removed before the app is loaded.
ORDERS_VARIABLE = "QCTL_WORKER_ORDERS"
STATE_EVERY_S = 1.0
# A child whose last message is older is stuck.
SILENT_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a child runs, and how. The URL and prefix of Redis are in the environment.

    Args:
        apps: ``module:attribute`` each.
        grace_s: how long jobs may take at a stop, in seconds; 0 for ever.
        log_format: ``text`` or ``json``.
        channel: descriptor of the child's end of the socket pair.
        stderr: descriptor of its stderr once it is ready; before that, the master reads it.
        process: the target that it belongs to, e.g. ``qctl:emails``; "" for none.
        watch: whether to report changed files of the app.
    """

    apps: tuple[str, ...]
    grace_s: float
    log_format: str
    channel: int
    stderr: int
    process: str = ""
    watch: bool = False

    def to_json(self) -> str:
        """For the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Orders:
        """What ``to_json`` wrote."""
        row = json.loads(text)
        return cls(**{**row, "apps": tuple(row["apps"])})


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """What a master must know to give back the jobs of a worker that died.

    Args:
        owner: what all lock tokens of the worker begin with, up to a colon.
        redis_url: may hold a password.
    """

    owner: str
    prefix: str
    queue: str
    redis_url: str = field(repr=False)
    max_stalled_count: int


@dataclass(frozen=True, slots=True)
class ChildState:
    """A child at its last message.

    Args:
        busy: jobs in hand, of all its workers.
        done: jobs that have ended.
        late: a queue from which no fetch has succeeded lately although there was room; "" for none.
    """

    busy: int = 0
    done: int = 0
    rss_bytes: int = 0
    late: str = ""


def check_app(spec: str) -> None:
    """Check the form of an app's name. Nothing is imported.

    Raises:
        UsageError: it is not ``module:attribute``.
    """
    module, separator, attribute = spec.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not separator or not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"{spec!r} does not name an app",
            why="an app is MODULE:ATTRIBUTE, where the attribute is a Worker or a list of them",
            hint="app:worker for `worker = Worker(…)` in app.py",
        )


def encode(kind: str, **fields: Any) -> bytes:
    """A message to send."""
    return json.dumps({"kind": kind, **fields}).encode() + b"\n"


def decode(data: bytes) -> Mapping[str, Any]:
    """A message that was received; empty if it is malformed."""
    try:
        row = json.loads(data)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
