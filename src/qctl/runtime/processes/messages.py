"""What a master and its children say to each other: JSON, one object a line, over a socket pair.

The child says ``workers`` (before it takes a job), ``ready``, ``state`` every second, ``changed``
(``--reload``), ``leaving`` and, when it cannot start, ``failed``. The master says ``stop`` and
``hurry``; when it is gone the child sees the end of the line, and stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qctl.errors import UsageError

# How the master hands a child its orders; taken out of the environment before the app is loaded.
ORDERS_VARIABLE = "QCTL_WORKER_ORDERS"
STATE_EVERY_S = 1.0
# A child that has said nothing for so long is stuck.
SILENT_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a child is started with; the URL and prefix of Redis are in the environment.

    Args:
        apps: ``module:attribute`` each.
        grace_s: of a stop; 0 for ever.
        log_format: ``text`` or ``json``.
        channel: descriptor of the child's end of the socket pair.
        stderr: descriptor of the stderr to use once it is ready; until then the master listens.
        process: the target that it belongs to, e.g. ``qctl:emails``; "" for none.
        watch: whether to look for changed files of the app.
    """

    apps: tuple[str, ...]
    grace_s: float
    log_format: str
    channel: int
    stderr: int
    process: str = ""
    watch: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Orders:
        row = json.loads(text)
        return cls(**{**row, "apps": tuple(row["apps"])})


@dataclass(frozen=True, slots=True)
class Held:
    """What a master must know to put the jobs of a worker back that has died.

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
    """A child as it was when it last spoke.

    Args:
        busy: jobs in hand, of all its workers.
        done: jobs that ended there.
        late: a queue from which no fetch has succeeded lately although there was room; "" if none.
    """

    busy: int = 0
    done: int = 0
    rss_bytes: int = 0
    late: str = ""


def check_app(spec: str) -> None:
    """See that an app is named in the right form; nothing is imported.

    Raises:
        UsageError: it is not.
    """
    module, separator, attribute = spec.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not separator or not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"{spec!r} does not name an app",
            why="an app is MODULE:ATTRIBUTE, where the attribute is a Worker or a list of them",
            hint="app:worker for `worker = Worker(…)` in app.py",
        )


def line(kind: str, **fields: Any) -> bytes:
    """A message as it is sent."""
    return json.dumps({"kind": kind, **fields}).encode() + b"\n"


def parse(data: bytes) -> Mapping[str, Any]:
    """A message that was received; empty for one that is not understood."""
    try:
        row = json.loads(data)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
