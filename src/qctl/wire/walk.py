"""A walk through all jobs of a state, while others add and take jobs and the walker does, too.

Each job that is there from start to end is come by once or more often; what comes or goes meanwhile
may be seen or not. Memory and cost of a step do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from qctl.connect import Client
from qctl.wire.jobs import is_marker, pairs, raised
from qctl.wire.keys import QueueKeys
from qctl.wire.lists import Entry, active_ids, stalled_ids


class Walk:
    """Windows of a state: ``take`` one, then say what ``stays`` of it, until ``take`` is empty."""

    def take(self, size: int) -> list[Entry]:
        """The next entries, at most ``size``; empty at the end."""
        raise NotImplementedError

    def stays(self, entries: Sequence[Entry]) -> None:
        """Which of the taken entries are still there, in their order; the walk goes on behind."""


def walk(client: Client, keys: QueueKeys, state: str, *, since: float | None = None) -> Walk:
    """A walk through a state: sorted sets from the lowest score on, lists from the newest entry on.

    Args:
        state: one of ``ops.jobs.STATES``.
        since: of a finished state only entries with this score (epoch ms) or a higher one.
    """
    if state == "waiting":
        return _Chain([_ListWalk(client, keys("paused")), _ListWalk(client, keys("wait"))])
    if state == "stalled":
        return ShortWalk(stalled_ids(client, keys))
    if state == "active":
        return ShortWalk(active_ids(client, keys))
    return _SetWalk(client, keys(state), since)


class ShortWalk(Walk):
    """Ids that are all known: named ones, or those of ``active``, of which each has a worker."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._entries = [Entry(job_id) for job_id in ids]

    def take(self, size: int) -> list[Entry]:
        taken, self._entries = self._entries[:size], self._entries[size:]
        return taken


class _ListWalk(Walk):
    """From the head of a list, where jobs are added: those push others on, into what comes next.

    From the tail, where workers take them, the others would move into what was passed.
    """

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self._key = key
        self._passed = 0
        # Adds meanwhile must not make it a walk without end.
        self._left = int(client.call("LLEN", key))

    def take(self, size: int) -> list[Entry]:
        while self._left > 0:
            count = min(size, self._left)
            ids = self._client.call("LRANGE", self._key, self._passed, self._passed + count - 1)
            self._left = self._left - len(ids) if len(ids) == count else 0
            entries = [Entry(job_id) for job_id in ids if not is_marker(job_id)]
            self._passed += len(ids) - len(entries)
            if entries:
                return entries
        return []

    def stays(self, entries: Sequence[Entry]) -> None:
        self._passed += len(entries)


class _SetWalk(Walk):
    """From the lowest score of a sorted set. Ends at the score that was highest at the start.

    A rank alone is no place to go on from, since lower entries may vanish; the last entry that
    stayed is, and if it has vanished, its score.
    """

    def __init__(self, client: Client, key: str, since: float | None) -> None:
        self._client = client
        self._key = key
        self._since = since
        self._anchor: Entry | None = None
        last = client.call("ZREVRANGE", key, 0, 0, "WITHSCORES")
        self._end = float(last[1]) if last else None

    def take(self, size: int) -> list[Entry]:
        if self._end is None:
            return []
        start = self._start()
        flat = self._client.call("ZRANGE", self._key, start, start + size - 1, "WITHSCORES")
        entries = [Entry(job_id, float(score)) for job_id, score in pairs(flat).items()]
        return [entry for entry in entries if entry.score is None or entry.score <= self._end]

    def _start(self) -> int:
        if self._anchor is None:
            if self._since is None:
                return 0
            return int(self._client.call("ZCOUNT", self._key, "-inf", f"({self._since!r}"))
        rank, lower = map(
            raised,
            self._client.pipeline(
                [
                    ("ZRANK", self._key, self._anchor.id),
                    ("ZCOUNT", self._key, "-inf", f"({self._anchor.score!r}"),
                ]
            ),
        )
        return int(lower) if rank is None else int(rank) + 1

    def stays(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._anchor = entries[-1]


class _Chain(Walk):
    """One walk after another."""

    def __init__(self, walks: Sequence[Walk]) -> None:
        self._walks = list(walks)

    def take(self, size: int) -> list[Entry]:
        while self._walks:
            entries = self._walks[0].take(size)
            if entries:
                return entries
            self._walks.pop(0)
        return []

    def stays(self, entries: Sequence[Entry]) -> None:
        if self._walks:
            self._walks[0].stays(entries)
