"""Sets a queue's global concurrency and global rate limit (wire format 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qctl.connection.address import Arg, Client
from qctl.wire import scripts
from qctl.wire.keys import QueueKeys


@dataclass(frozen=True, slots=True)
class GlobalRateLimit:
    """At most ``max`` jobs start within ``duration_ms``, over all workers of a queue."""

    max: int
    duration_ms: int


# A value to set, ``none`` to remove the limit, or None to leave it as it is.
NewConcurrency = int | Literal["none"] | None
NewRateLimit = GlobalRateLimit | Literal["none"] | None


@dataclass(frozen=True, slots=True)
class StoredLimits:
    """The fields of ``meta`` as texts; "" for a missing field."""

    concurrency: str
    max: str
    duration: str


def set_limits(
    client: Client,
    keys: QueueKeys,
    concurrency: NewConcurrency,
    rate_limit: NewRateLimit,
    *,
    dry_run: bool = False,
) -> StoredLimits | None:
    """Set or remove limits. Return the previous limits, or None if the queue does not exist."""
    args: list[Arg] = ["" if concurrency is None else str(concurrency)]
    match rate_limit:
        case GlobalRateLimit():
            args += [str(rate_limit.max), str(rate_limit.duration_ms)]
        case _:
            args += [rate_limit or "", ""]
    args.append("dry" if dry_run else "")
    before = scripts.run(client, "set_limits", keys.whole, args)
    return StoredLimits(*before) if before else None
