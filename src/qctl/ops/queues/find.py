"""Finds the queues with given names, or all queues of a prefix, for every command.

A queue that does not exist must not look like an idle one. So a name without a queue is an error,
and a prefix without queues is an error, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qctl.config.prefixes import EVERY_PREFIX, Prefixes, only
from qctl.connection.address import Client
from qctl.errors import NotFoundError, PartialError, RefusedError, ReplyError
from qctl.grouping import grouped
from qctl.ops.processes.suggest import command
from qctl.similar import similar_names
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import discover, discover_queues, prefixes_in_use
from qctl.wire.read.info import read_upstream
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

if TYPE_CHECKING:
    from qctl.ops.queues.names import QueueNames

_MAX_NAMED = 10
# How long an error message may search for similar names.
_MAX_SEARCH_S = 1.0


@dataclass(frozen=True, slots=True)
class Queues:
    """Queues that can be read, and the names of queues that cannot be read, with the errors."""

    readable: tuple[QueueSnapshot, ...]
    broken: tuple[tuple[str, ReplyError], ...] = ()

    @property
    def bullmq(self) -> tuple[QueueSnapshot, ...]:
        """The readable queues of BullMQ, which qctl may change."""
        return tuple(queue for queue in self.readable if queue.format == "bullmq")

    @property
    def bull(self) -> tuple[str, ...]:
        """Names of the queues of Bull 3/4."""
        return tuple(queue.keys.name for queue in self.readable if queue.format == "bull")

    def raise_if_broken(self) -> None:
        """Fail if some queues cannot be read. Call it after the readable ones have been shown.

        Raises:
            PartialError: some queues cannot be read; the message lists them.
        """
        if not self.broken:
            return
        lines = [f"{name!r}: {error.message}" for name, error in self.broken]
        raise PartialError(
            f"{len(self.broken)} of {len(self.broken) + len(self.readable)} queues cannot be read",
            why=_listed(lines, "\n"),
            hint=self.broken[0][1].hint,
        )


def find_queues(client: Client, prefix: str, names: Sequence[str]) -> list[QueueSnapshot]:
    """The queues with these names, in this order, without duplicates; read without a scan.

    Raises:
        NotFoundError: a queue does not exist; the message suggests similar names.
        ReplyError: a queue cannot be read.
    """
    queues, missing = read_queues(client, prefix, list(dict.fromkeys(names)))
    if queues.broken:
        raise queues.broken[0][1]
    if missing:
        raise no_such_queue(client, only(prefix), missing)
    return list(queues.readable)


def read_queues(client: Client, prefix: str, names: Sequence[str]) -> tuple[Queues, list[str]]:
    """The queues with these names, and the names of those that do not exist."""
    readable, broken, missing = [], [], []
    snapshots = read_snapshots(client, [QueueKeys(prefix, name) for name in names]) if names else []
    for name, snapshot in zip(names, snapshots, strict=True):
        if snapshot is None:
            missing.append(name)
        elif isinstance(snapshot, ReplyError):
            broken.append((name, snapshot))
        else:
            readable.append(snapshot)
    return Queues(tuple(readable), tuple(broken)), missing


def all_queues(client: Client, prefix: str, known: QueueNames | None = None) -> Queues:
    """Every queue under ``prefix``, sorted by name.

    Args:
        known: names to use instead of a scan of all keys; names of deleted queues are ignored.

    Raises:
        NotFoundError: there are no queues; the message names the prefixes that have queues.
    """
    names = discover(client, prefix) if known is None else known.names
    queues, _ = read_queues(client, prefix, names)
    if not queues.readable and not queues.broken:
        if known is not None and known.is_cached:
            # The queues with the cached names have been deleted, but there may be new queues.
            return all_queues(client, prefix)
        raise no_queues(client, only(prefix))
    return queues


def queues_named_or_all(
    client: Client, prefix: str, names: Sequence[str], known: QueueNames | None = None
) -> Queues:
    """The queues with these names; without names, every queue.

    Raises:
        NotFoundError, ReplyError: see ``find_queues`` and ``all_queues``.
    """
    if names:
        return Queues(tuple(find_queues(client, prefix, names)))
    return all_queues(client, prefix, known)


def require_bullmq(snapshots: Iterable[QueueSnapshot], *, hint: str = "") -> None:
    """Make sure that qctl may write to these queues.

    Raises:
        RefusedError: a queue is Bull 3/4's; ``hint`` says what to do instead.
    """
    for snapshot in snapshots:
        if snapshot.format == "bull":
            raise RefusedError(
                f"{snapshot.keys.name} is a queue of Bull 3 or 4",
                why="qctl reads such queues but never writes to them",
                hint=hint,
            )


def no_such_queue(client: Client, prefixes: Prefixes, missing: Sequence[str]) -> NotFoundError:
    """The error for names without a queue.

    The message says under which other prefixes there are queues with these names, else it suggests
    similar names.
    """
    names = ", ".join(repr(name) for name in missing[:_MAX_NAMED])
    what = f"no queue is called {names}" if len(missing) == 1 else f"no queues are called {names}"
    where = _described(prefixes)
    everywhere = Prefixes((*prefixes.patterns, *EVERY_PREFIX.patterns))
    try:
        found, is_complete = discover_queues(client, everywhere, _MAX_SEARCH_S)
    except ReplyError:
        # This Redis user may not call SCAN.
        return NotFoundError(what, why=f"under {where}")
    elsewhere = grouped((q for q in found if q.name in missing), lambda queue: queue.name)
    for name in missing:
        if others := [queue.prefix for queue in elsewhere.get(name, ())]:
            word = "prefix" if len(others) == 1 else "prefixes"
            listed = _listed([repr(prefix) for prefix in others])
            (nearest,) = similar_names(str(prefixes), others, cutoff=0.0)
            return NotFoundError(
                f"{what} under {where}",
                why=f"{name!r} exists under the {word} {listed}",
                hint=command(nearest, "status", name),
            )
    existing = [queue for queue in found if prefixes.include(queue.prefix, queue.name)]
    if not existing and is_complete:
        return no_queues(client, prefixes, f"{what}: ")
    held = list(dict.fromkeys(queue.name for queue in existing))
    near = list(
        dict.fromkeys(
            match
            for name in missing[:_MAX_NAMED]
            for match in similar_names(name, held, max_names=3, cutoff=0.5)
        )
    )
    if near:
        prefix = next(queue.prefix for queue in existing if queue.name == near[0])
        why = f"the nearest under {where}: {_listed([repr(name) for name in near])}"
        return NotFoundError(what, why=why, hint=command(prefix, "status", near[0]))
    why = f"{where} holds: {_listed([repr(name) for name in held])}"
    if not is_complete:
        why = f"under {where}"
    return NotFoundError(what, why=why, hint=command(None, "queues"))


def no_queues(client: Client, prefixes: Prefixes, before: str = "") -> NotFoundError:
    """The error for prefixes without a queue; ``before`` is put before the message."""
    what = f"{before}no queue exists under {_described(prefixes)}"
    try:
        in_use, is_complete = prefixes_in_use(client, _MAX_SEARCH_S)
    except ReplyError:
        in_use, is_complete = [], False
    if in_use:
        listed = _listed([repr(name) for name in in_use])
        near = in_use if len(in_use) == 1 else similar_names(str(prefixes), in_use)
        return NotFoundError(
            what,
            why=f"prefixes that hold queues: {listed}",
            hint=command(near[0], "queues") if near else "name one of them with --prefix",
        )
    if (above := read_upstream(client)) is not None:
        return NotFoundError(what, why=f"this Redis is {above}", hint="ask its master: --redis URL")
    return NotFoundError(
        what,
        why="this Redis database holds no BullMQ queue at all" if is_complete else "",
        hint="check --redis URL: the host, and the database number at its end",
    )


def _described(prefixes: Prefixes) -> str:
    single = prefixes.single
    return f"the prefixes {str(prefixes)!r}" if single is None else f"the prefix {single!r}"


def _listed(items: Sequence[str], separator: str = ", ") -> str:
    shown = [*items[:_MAX_NAMED]]
    if len(items) > _MAX_NAMED:
        shown.append(f"… and {len(items) - _MAX_NAMED:,} more")
    return separator.join(shown)
