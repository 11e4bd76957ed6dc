"""A walk through all jobs of a state, while others add and take jobs and the walker does, too.

Each job that is there from start to end is come by once or more often; what comes or goes meanwhile
may be seen or not. A walk that cannot promise that says so (``is_complete``). Memory and cost of a
step do not depend on how many jobs there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.lists import Entry, active_ids, stalled_ids
from qctl.wire.read.server import clock_ms
from qctl.wire.replies import checked, to_dict
from qctl.wire.states import FINISHED, is_marker

# Entries before the place that was reached in a list that are read once more: so many may be
# removed before it from one step to the next.
_OVERLAP = 100
# Ids of a list that are remembered, to know the place again.
_REMEMBERED = 20_000
# Entries of a list that a walk comes by at most: so many times as many as there were, and some.
_MOST_TIMES, _MOST_MORE = 3, 10_000
# How often the lists of waiting jobs may be exchanged during a walk.
_MOST_ROUNDS = 3
# Entries of a sorted set, those with the highest scores, that are noted at the start; and how many
# of them one command sends.
_NOTED = 20_000
_SENT = 1_000


class Walk:
    """Windows of a state: ``take`` one, then say what ``stays`` of it, until ``take`` is empty.

    Attributes:
        is_complete: False when, at the end, some may not have been come by.
    """

    is_complete = True

    def take(self, size: int) -> list[Entry]:
        """The next entries, at most ``size``; empty at the end."""
        raise NotImplementedError

    def stays(self, entries: Sequence[Entry], *, gone_before: int = 0) -> None:
        """Which of the taken entries are still there, in their order; the walk goes on behind.

        Args:
            gone_before: how many that were taken earlier have been removed meanwhile.
        """


def walk(
    client: Client, keys: QueueKeys, state: str, *, since: float | None = None, once: bool = False
) -> Walk:
    """A walk through a state: sorted sets from the lowest score on, lists from the newest entry on.

    Args:
        state: one of ``wire.states.STATES``.
        since: of a finished state only entries with this score (epoch ms) or a higher one.
        once: leave out what has left the state meanwhile and come back with another score.
    """
    if state == "waiting":
        return _WaitingWalk(client, [keys("paused"), keys("wait")])
    if state == "stalled":
        return ShortWalk(stalled_ids(client, keys))
    if state == "active":
        return ShortWalk(active_ids(client, keys))
    # What finishes from now on is none of those that are there, whatever its worker's clock says.
    last = float(clock_ms(client)) if state in FINISHED else float("inf")
    return _SetWalk(client, keys(state), since, last, once=once)


class ShortWalk(Walk):
    """Ids that are all known: named ones, or those of ``active``, of which each has a worker."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._entries = [Entry(job_id) for job_id in ids]

    def take(self, size: int) -> list[Entry]:
        taken, self._entries = self._entries[:size], self._entries[size:]
        return taken


class _WaitingWalk(Walk):
    """Through ``paused`` and ``wait``, between which BullMQ 5 moves all jobs at once.

    A resume moves them to what is walked through next; a pause moves them back.
    """

    def __init__(self, client: Client, lists: Sequence[str]) -> None:
        self._client = client
        self._lists = lists
        self._turns = 0
        self._had = self._have()
        self._now = self._next()

    def _have(self) -> list[bool]:
        return [int(self._client.call("LLEN", key)) > 0 for key in self._lists]

    def _next(self) -> _ListWalk:
        which = self._turns % len(self._lists)
        self._turns += 1
        return _ListWalk(self._client, self._lists[which], had=self._had[which])

    def take(self, size: int) -> list[Entry]:
        while True:
            entries = self._now.take(size)
            self.is_complete = self.is_complete and self._now.is_complete
            if entries or not self._goes_on():
                return entries
            self._now = self._next()

    def _goes_on(self) -> bool:
        if self._turns % len(self._lists):
            return True
        self._had = self._have()
        if not self._now.is_lost or not self._had[0]:
            return False
        if self._turns >= _MOST_ROUNDS * len(self._lists):
            self.is_complete = False
        return self.is_complete

    def stays(self, entries: Sequence[Entry], *, gone_before: int = 0) -> None:
        self._now.stays(entries, gone_before=gone_before)


class _ListWalk(Walk):
    """From the head of a list, where jobs are added: those push others on, into what comes next.

    From the tail, where workers take them, the others would move into what was passed. Jobs that
    are deleted from before the place reached draw others there, too: so a step begins a little
    earlier, and must find an id there that was passed.

    Attributes:
        is_lost: the place was not found again at least once, as when the list was exchanged.
    """

    def __init__(self, client: Client, key: str, *, had: bool) -> None:
        self._client = client
        self._key = key
        self._passed = 0
        self._taken: list[str] = []
        self._seen: dict[str, None] = {}
        self._back = _OVERLAP
        self._is_over = False
        length = int(client.call("LLEN", key))
        self._had = had or length > 0
        self._left = _MOST_TIMES * length + _MOST_MORE
        self.is_lost = False

    def take(self, size: int) -> list[Entry]:
        while not self._is_over:
            start = max(0, self._passed - _OVERLAP)
            window = self._client.call("LRANGE", self._key, start, self._passed + size - 1)
            is_short = start + len(window) < self._passed + size
            self._left -= max(1, start + len(window) - self._passed)
            if self._left < 0:
                # More are added than can be looked at.
                self.is_complete, self._is_over = False, True
            elif not self._is_found(window, start):
                # What was passed is gone, or has been pushed far on: look for it, else begin anew.
                self._passed = max(0, self._passed - self._back)
                self._back *= 2
            else:
                # What comes short reaches to the end of the list.
                self._is_over = is_short
                self._taken = self._unseen(window, start)
                self._remember(window)
                self._passed = start + len(window)
                if self._taken:
                    return [Entry(job_id) for job_id in self._taken]
        return []

    def _is_found(self, window: Sequence[str], start: int) -> bool:
        if start and not (window and window[0] in self._seen):
            self.is_lost = True
            return False
        self._back = _OVERLAP
        if (self._had and not window) or (self._seen and self._seen.keys().isdisjoint(window)):
            self.is_lost = True
        return True

    def _unseen(self, window: Sequence[str], start: int) -> list[str]:
        """What is to be come by; before the first that was passed stand newer ones only."""
        known = 0
        if not start:
            known = next((at for at, job_id in enumerate(window) if job_id in self._seen), 0)
        return [
            job_id
            for job_id in window[known:]
            if job_id not in self._seen and not is_marker(job_id)
        ]

    def _remember(self, ids: Sequence[str]) -> None:
        self._seen |= dict.fromkeys(ids)
        if len(self._seen) > _REMEMBERED:
            self._seen = dict.fromkeys(islice(self._seen, _REMEMBERED // 2, None))

    def stays(self, entries: Sequence[Entry], *, gone_before: int = 0) -> None:
        self._passed -= len(self._taken) - len(entries) + gone_before
        self._passed = max(0, self._passed)
        for job_id in set(self._taken) - {entry.id for entry in entries}:
            # One that is added anew under this id stands elsewhere.
            self._seen.pop(job_id, None)


class _Rising:
    """Windows of a sorted set from the lowest score on, behind ``passed``.

    A rank alone is no place to go on from, since lower entries may vanish; an entry is, and if it
    has vanished or moved, its score.
    """

    def __init__(self, client: Client, key: str, lowest: str, passed: Entry | None = None) -> None:
        self._client = client
        self._key = key
        self._lowest = lowest
        self.passed = passed

    def window(self, size: int) -> list[Entry]:
        passed = self.passed
        if passed is None:
            return self._by_score(self._lowest, 0, size)
        rank = self._client.call("ZRANK", self._key, passed.id)
        if rank is not None:
            flat = self._client.call("ZRANGE", self._key, rank, int(rank) + size, "WITHSCORES")
            entries = _scored(flat)
            if entries and entries[0] == passed:
                return entries[1:]
        offset = 0
        while True:
            found = self._by_score(repr(passed.score), offset, size)
            behind = [entry for entry in found if _order(entry) > _order(passed)]
            if behind or len(found) < size:
                return behind
            offset += size

    def _by_score(self, lowest: str, offset: int, size: int) -> list[Entry]:
        found = self._client.call(
            "ZRANGEBYSCORE", self._key, lowest, "+inf", "WITHSCORES", "LIMIT", offset, size
        )
        return _scored(found)


def _scored(flat: Sequence[str]) -> list[Entry]:
    return [Entry(job_id, float(score)) for job_id, score in to_dict(flat).items()]


def _score(entry: Entry) -> float:
    return entry.score or 0.0


def _order(entry: Entry) -> tuple[float, bytes]:
    """Where Redis puts an entry of a sorted set."""
    return (_score(entry), entry.id.encode(errors="surrogateescape"))


class _SetWalk(Walk):
    """Through a sorted set, up to where it ended at the start.

    A job that is run again may fail again and come back into the set, below what was its end if
    clocks differ. So the entries with the highest scores are noted at the start, and walked through
    by their ids; and what is below them ends at Redis' own time.
    """

    def __init__(
        self, client: Client, key: str, since: float | None, last: float, *, once: bool
    ) -> None:
        self._client = client
        self._key = key
        self._once = once
        lowest = "-inf" if since is None else repr(since)
        self._rising = _Rising(client, key, lowest)
        highest = _scored(client.call("ZREVRANGE", key, 0, 0, "WITHSCORES"))
        below = _scored(client.call("ZREVRANGE", key, _NOTED, _NOTED, "WITHSCORES"))
        # The score up to which is walked; None when all are noted.
        self._end: float | None = None
        behind = None
        if below and _score(below[0]) >= (float("-inf") if since is None else since):
            behind = below[0]
            self._end = min(_score(behind), last)
            self.is_complete = _score(behind) <= last
        self._noted = self._note(_Rising(client, key, lowest, behind))
        self._rest = iter(self._noted.items())
        if len(self._noted) >= 2 * _NOTED and highest:
            # So many have come meanwhile that the end was not reached.
            *_, noted = self._noted.items()
            self.is_complete = self.is_complete and noted[1] >= _score(highest[0])

    def _note(self, rising: _Rising) -> dict[str, float]:
        noted: dict[str, float] = {}
        while len(noted) < 2 * _NOTED and (entries := rising.window(_SENT)):
            noted |= {entry.id: _score(entry) for entry in entries}
            rising.passed = entries[-1]
        return noted

    def take(self, size: int) -> list[Entry]:
        while self._end is not None:
            window = self._rising.window(size)
            below = [entry for entry in window if _score(entry) <= self._end]
            if entries := [entry for entry in below if entry.id not in self._noted]:
                return entries
            if not below:
                self._end = None
            else:
                self._rising.passed = below[-1]
        while noted := [Entry(*item) for item in islice(self._rest, size)]:
            if entries := self._still_there(noted):
                return entries
        return []

    def _still_there(self, noted: Sequence[Entry]) -> list[Entry]:
        commands: list[tuple[Arg, ...]] = [("ZSCORE", self._key, entry.id) for entry in noted]
        scores = [checked(reply) for reply in self._client.pipeline(commands)]
        return [
            entry
            for entry, score in zip(noted, scores, strict=True)
            if score is not None and not (self._once and float(score) != entry.score)
        ]

    def stays(self, entries: Sequence[Entry], *, gone_before: int = 0) -> None:  # noqa: ARG002
        if entries and self._end is not None:
            self._rising.passed = entries[-1]
