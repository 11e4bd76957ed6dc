"""qctl's keys about a queue: the pause note says who paused it, the lease says who drains it."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from qctl.wire.replies import read_object

# A drain's lease expires after this time. The drain's watchdog renews it every 5 s, so the lease
# survives one failed renewal.
LEASE_TTL_MS = 15_000
# Whether the pause in a pause note still holds; see read/pause_notes.py.
HOLDS, OVER, UNKNOWN = "holds", "over", "unknown"
_EVENT_ID = re.compile(r"\d+-\d+")
# Values for missing or malformed fields of a holder.
_DEFAULTS: dict[str, str | int] = {"verb": "?", "user": "?", "host": "?", "pid": 0, "at_ms": 0}


@dataclass(frozen=True, slots=True)
class Holder:
    """The command that paused a queue or holds its lease.

    Args:
        owner: a random id for one run of a command, stored in all notes and leases of that run.
        verb: ``pause``, ``drain`` or ``restart``; with more words if the pause is to stay after a
            drain or restart, for example ``drain --keep-paused``.
        user, host, pid: who runs that command, and where.
        at_ms: when the command began, epoch milliseconds.
        was_paused: whether the queue was paused before the command began (leases only).
    """

    owner: str
    verb: str
    user: str
    host: str
    pid: int
    at_ms: int
    was_paused: bool = False

    @property
    def is_temporary(self) -> bool:
        """Whether the command resumes the queue when the command ends, as a drain does."""
        return self.verb in {"drain", "restart"}

    def __str__(self) -> str:
        verb, user, host = map(_one_line, (self.verb, self.user, self.host))
        return f"qctl {verb} of {user}@{host} (pid {self.pid})"

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


def this_process(verb: str) -> Holder:
    """The holder for this run of qctl."""
    # Imported late: every status reads notes, but only a new holder needs these modules.
    import getpass  # noqa: PLC0415
    import socket  # noqa: PLC0415
    import uuid  # noqa: PLC0415

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Holder(
        owner=uuid.uuid4().hex,
        verb=verb,
        user=user,
        host=socket.gethostname(),
        pid=os.getpid(),
        at_ms=int(time.time() * 1000),
    )


def parse_holder(text: Any) -> Holder | None:
    """The holder in a note or lease; None if the text is missing or is not qctl's.

    Another version of qctl may have written the text. So unknown fields are ignored, and missing
    ones get default values.
    """
    found = read_object(text) if isinstance(text, str) else {}
    if not isinstance(found.get("owner"), str):
        return None
    values: dict[str, Any] = {
        name: value if isinstance(value := found.get(name), type(default)) else default
        for name, default in _DEFAULTS.items()
    }
    return Holder(found["owner"], **values, was_paused=found.get("was_paused") is True)


def noted_event(text: Any) -> str:
    """The id of the ``paused`` event in a pause note; "" if the note has none."""
    event = read_object(text).get("event") if isinstance(text, str) else None
    return event if isinstance(event, str) and _EVENT_ID.fullmatch(event) else ""


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)
