"""Finds the queues with given names, or all queues of some prefixes, for every command.

A queue that does not exist must not look like an idle one. So a name without a queue is an error,
and a prefix without queues is an error, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qctl.config.prefixes import Prefixes, only
from qctl.connection.address import Client
from qctl.errors import PartialError, RefusedError, ReplyError
from qctl.ops.queues.missing import listed, no_queues, no_such_queue
from qctl.ops.queues.select import choose_queues
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.read.discovery import survey
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

if TYPE_CHECKING:
    from qctl.ops.queues.names import QueueNames


@dataclass(frozen=True, slots=True)
class Queues:
    """Queues that can be read, and queues that cannot be read, with the errors."""

    readable: tuple[QueueSnapshot, ...]
    broken: tuple[tuple[QueueKeys, ReplyError], ...] = ()

    @property
    def keys(self) -> list[QueueKeys]:
        """All these queues."""
        return [*(queue.keys for queue in self.readable), *(keys for keys, _ in self.broken)]

    @property
    def bullmq(self) -> tuple[QueueSnapshot, ...]:
        """The readable queues of BullMQ, which qctl may change."""
        return tuple(queue for queue in self.readable if queue.format == "bullmq")

    @property
    def bull(self) -> tuple[QueueKeys, ...]:
        """The queues of Bull 3/4."""
        return tuple(queue.keys for queue in self.readable if queue.format == "bull")

    def without_bull(self) -> Queues:
        """These queues without those of Bull 3/4."""
        return Queues(self.bullmq, self.broken)

    def by_prefix(self) -> dict[str, Queues]:
        """The queues of each prefix."""
        return {
            prefix: Queues(
                tuple(queue for queue in self.readable if queue.keys.prefix == prefix),
                tuple(pair for pair in self.broken if pair[0].prefix == prefix),
            )
            for prefix in dict.fromkeys(keys.prefix for keys in self.keys)
        }

    def raise_if_broken(self) -> None:
        """Fail if some queues cannot be read. Call it after the readable ones have been shown.

        Raises:
            PartialError: some queues cannot be read; the message lists them.
        """
        if not self.broken:
            return
        prefix = common_prefix(self.keys)
        lines = [f"{keys.label(prefix)!r}: {error.message}" for keys, error in self.broken]
        raise PartialError(
            f"{len(self.broken)} of {len(self.broken) + len(self.readable)} queues cannot be read",
            why=listed(lines, "\n"),
            hint=self.broken[0][1].hint,
        )


def find_queues(client: Client, prefix: str, names: Sequence[str]) -> list[QueueSnapshot]:
    """The queues with these names, in this order, without duplicates; read without a scan.

    Raises:
        NotFoundError: a queue does not exist; the message suggests similar names.
        ReplyError: a queue cannot be read.
    """
    return read_existing(client, [QueueKeys(prefix, name) for name in dict.fromkeys(names)])


def read_existing(client: Client, wanted: Sequence[QueueKeys]) -> list[QueueSnapshot]:
    """These queues, in this order; they may have several prefixes.

    Raises:
        NotFoundError, ReplyError: see ``find_queues``.
    """
    queues, missing = read_queues(client, wanted)
    if queues.broken:
        raise queues.broken[0][1]
    if missing:
        prefix = missing[0].prefix
        names = [keys.name for keys in missing if keys.prefix == prefix]
        raise no_such_queue(client, only(prefix), names)
    return list(queues.readable)


def read_queues(client: Client, queues: Sequence[QueueKeys]) -> tuple[Queues, list[QueueKeys]]:
    """Those of ``queues`` that exist, and those that do not exist."""
    readable, broken, missing = [], [], []
    snapshots = read_snapshots(client, queues) if queues else []
    for keys, snapshot in zip(queues, snapshots, strict=True):
        if snapshot is None:
            missing.append(keys)
        elif isinstance(snapshot, ReplyError):
            broken.append((keys, snapshot))
        else:
            readable.append(snapshot)
    return Queues(tuple(readable), tuple(broken)), missing


def all_queues(client: Client, prefixes: Prefixes, known: QueueNames | None = None) -> Queues:
    """Every queue under these prefixes, sorted by prefix and name.

    Args:
        known: queues to use instead of a scan of all keys; deleted queues are ignored.

    Raises:
        NotFoundError: there are no queues; the message names the prefixes that have queues.
    """
    found = survey(client, prefixes).queues if known is None else known.queues
    queues, _ = read_queues(client, found)
    if not queues.readable and not queues.broken:
        if known is not None and known.is_cached:
            # The cached queues have been deleted, but there may be new queues.
            return all_queues(client, prefixes)
        raise no_queues(client, prefixes)
    return queues


def queues_named_or_all(
    client: Client, prefixes: Prefixes, words: Sequence[str], known: QueueNames | None = None
) -> Queues:
    """The queues that these words name (see ``select``); without words, every queue.

    Raises:
        NotFoundError, ReplyError: see ``find_queues`` and ``all_queues``.
    """
    if not words:
        return all_queues(client, prefixes, known)
    snapshots: dict[QueueKeys, QueueSnapshot] = {}
    find = None if known is None else lambda: known.queues
    for chosen in choose_queues(client, prefixes, words, find).values():
        for keys, snapshot in chosen.items():
            if isinstance(snapshot, ReplyError):
                raise snapshot
            snapshots[keys] = snapshot
    return Queues(tuple(snapshots.values()))


def require_bullmq(snapshots: Iterable[QueueSnapshot], *, hint: str = "") -> None:
    """Make sure that qctl may write to these queues.

    Raises:
        RefusedError: a queue belongs to Bull 3 or 4; ``hint`` says what to do instead.
    """
    for snapshot in snapshots:
        if snapshot.format == "bull":
            raise RefusedError(
                f"{snapshot.keys.name} is a queue of Bull 3 or 4",
                why="qctl reads such queues but never writes to them",
                hint=hint,
            )
