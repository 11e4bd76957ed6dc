"""Visits all jobs of a state while others, and the caller, add and take jobs.

Every job that is in the state from start to end is visited at least once. Jobs that come or go in
the meantime may be visited or not. A walk that cannot promise this says so (``is_complete``). The
memory and the cost of a step do not depend on the number of jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from qctl.connection.address import Arg, Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import read_active
from qctl.wire.read.lists import Entry, active_ids, scored
from qctl.wire.read.server import clock_ms
from qctl.wire.replies import read_checked
from qctl.wire.states import FINISHED, is_marker

# Entries before the reached place of a list that are read again. As many may be removed before it
# from one step to the next.
_OVERLAP = 100
# Ids of a list that are remembered, to recognize the place again.
_MAX_REMEMBERED = 20_000
# A walk through a list reads at most 3 times its initial length + 10,000 entries.
_MAX_TIMES, _MAX_MORE = 3, 10_000
# How often BullMQ 5 may exchange the lists of waiting jobs during a walk.
_MAX_ROUNDS = 3
# Entries with the highest scores of a sorted set that are noted at the start, and how many of them
# one command reads.
_NOTED = 20_000
_NOTED_A_CALL = 1_000


class Walk:
    """``take`` some entries, then ``keep`` those that are still in the state; until none is left.

    Attributes:
        is_complete: False if, at the end, some jobs may not have been visited.
    """

    is_complete = True

    def take(self, size: int) -> list[Entry]:
        """The next entries, at most ``size``; empty at the end."""
        raise NotImplementedError

    def keep(self, entries: Sequence[Entry]) -> None:
        """Go on behind the taken entries, of which these are still in the state, in their order."""


def start_walk(
    client: Client, keys: QueueKeys, state: str, *, since: float | None = None, once: bool = False
) -> Walk:
    """A walk through a state: sorted sets from the lowest score, lists from the newest entry.

    Args:
        state: one of ``wire.states.STATES``.
        since: of a finished state only entries with this score (epoch ms) or a higher one.
        once: skip jobs that have left the state and come back with another score.
    """
    if state == "waiting":
        return _WaitingWalk(client, [keys("paused"), keys("wait")])
    if state == "stalled":
        return ShortWalk([job.id for job in read_active(client, [keys]) if job.is_orphan])
    if state == "active":
        return ShortWalk(active_ids(client, keys))
    # Jobs that finish from now on do not belong to the walk, whatever their worker's clock says.
    last = float(clock_ms(client)) if state in FINISHED else float("inf")
    return _SetWalk(client, keys(state), since, last, once=once)


class ShortWalk(Walk):
    """Through ids that are all known: named ones, or those of ``active``, which is never long."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._entries = [Entry(job_id) for job_id in ids]

    def take(self, size: int) -> list[Entry]:
        taken, self._entries = self._entries[:size], self._entries[size:]
        return taken


class _WaitingWalk(Walk):
    """Through ``paused`` and then ``wait``, between which BullMQ 5 moves all jobs at once.

    A resume moves them into the list that comes next; after a pause both lists are visited again.
    """

    def __init__(self, client: Client, lists: Sequence[str]) -> None:
        self._client = client
        self._lists = lists
        self._started = 0
        self._had_entries = self._have_entries()
        self._list_walk = self._start_next()

    def _have_entries(self) -> list[bool]:
        return [int(self._client.call("LLEN", key)) > 0 for key in self._lists]

    def _start_next(self) -> _ListWalk:
        index = self._started % len(self._lists)
        self._started += 1
        return _ListWalk(self._client, self._lists[index], had_entries=self._had_entries[index])

    def take(self, size: int) -> list[Entry]:
        while True:
            entries = self._list_walk.take(size)
            self.is_complete = self.is_complete and self._list_walk.is_complete
            if entries or not self._goes_on():
                return entries
            self._list_walk = self._start_next()

    def _goes_on(self) -> bool:
        if self._started % len(self._lists):
            return True
        self._had_entries = self._have_entries()
        if not self._list_walk.is_lost or not self._had_entries[0]:
            return False
        if self._started >= _MAX_ROUNDS * len(self._lists):
            self.is_complete = False
        return self.is_complete

    def keep(self, entries: Sequence[Entry]) -> None:
        self._list_walk.keep(entries)


class _ListWalk(Walk):
    """From the head of a list, where jobs are added: adds push the others towards the walk.

    From the tail, where workers take jobs, the others would move to where the walk has been. Jobs
    deleted before the reached place move the others that way, too: so each step begins a little
    earlier, and must find an id there that it has seen.

    Attributes:
        is_lost: the place was not found again at least once, as when the list was exchanged.
    """

    def __init__(self, client: Client, key: str, *, had_entries: bool) -> None:
        self._client = client
        self._key = key
        self._passed = 0
        self._taken: list[str] = []
        self._seen: dict[str, None] = {}
        self._step_back = _OVERLAP
        self._is_over = False
        length = int(client.call("LLEN", key))
        self._had_entries = had_entries or length > 0
        self._reads_left = _MAX_TIMES * length + _MAX_MORE
        self.is_lost = False

    def take(self, size: int) -> list[Entry]:
        while not self._is_over:
            start = max(0, self._passed - _OVERLAP)
            window = self._client.call("LRANGE", self._key, start, self._passed + size - 1)
            is_short = start + len(window) < self._passed + size
            self._reads_left -= max(1, start + len(window) - self._passed)
            if self._reads_left < 0:
                # Jobs are added faster than they can be visited.
                self.is_complete, self._is_over = False, True
            elif not self._is_found(window, start):
                # The passed entries are gone or far away: search for them, or begin again.
                self._passed = max(0, self._passed - self._step_back)
                self._step_back *= 2
            else:
                # A short window reaches the end of the list.
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
        self._step_back = _OVERLAP
        is_emptied = self._had_entries and not window
        if is_emptied or (self._seen and self._seen.keys().isdisjoint(window)):
            self.is_lost = True
        return True

    def _unseen(self, window: Sequence[str], start: int) -> list[str]:
        """The ids to visit. At the head those before the first seen one are new, and left out."""
        first = 0
        if not start:
            first = next((at for at, job_id in enumerate(window) if job_id in self._seen), 0)
        return [
            job_id
            for job_id in window[first:]
            if job_id not in self._seen and not is_marker(job_id)
        ]

    def _remember(self, ids: Sequence[str]) -> None:
        self._seen |= dict.fromkeys(ids)
        if len(self._seen) > _MAX_REMEMBERED:
            self._seen = dict.fromkeys(islice(self._seen, _MAX_REMEMBERED // 2, None))

    def keep(self, entries: Sequence[Entry]) -> None:
        self._passed = max(0, self._passed - len(self._taken) + len(entries))
        for job_id in set(self._taken) - {entry.id for entry in entries}:
            # If this id is added again, it is another job.
            self._seen.pop(job_id, None)


class _Rising:
    """Reads a sorted set in windows, from the lowest score on, each behind the entry ``passed``.

    A rank alone does not say where to go on, because lower entries may vanish. An entry does, and
    if it has vanished or moved, its score does.
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
            entries = scored(flat)
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
        return scored(found)


def _score(entry: Entry) -> float:
    return entry.score or 0.0


def _order(entry: Entry) -> tuple[float, bytes]:
    """How Redis sorts the entries of a sorted set."""
    return (_score(entry), entry.id.encode(errors="surrogateescape"))


class _SetWalk(Walk):
    """Through a sorted set, up to where it ended at the start.

    A job that runs again may fail again and come back; if clocks differ, below what was the end of
    the set. So the entries with the highest scores are noted at the start and visited by their ids,
    and the entries below those are visited up to Redis' own time.
    """

    def __init__(
        self, client: Client, key: str, since: float | None, last: float, *, once: bool
    ) -> None:
        self._client = client
        self._key = key
        self._once = once
        lowest = "-inf" if since is None else repr(since)
        self._rising = _Rising(client, key, lowest)
        highest = scored(client.call("ZREVRANGE", key, 0, 0, "WITHSCORES"))
        below = scored(client.call("ZREVRANGE", key, _NOTED, _NOTED, "WITHSCORES"))
        # The highest score below the noted entries; None if all entries are noted.
        self._end: float | None = None
        behind = None
        if below and _score(below[0]) >= (float("-inf") if since is None else since):
            behind = below[0]
            self._end = min(_score(behind), last)
            self.is_complete = _score(behind) <= last
        self._noted = self._note(_Rising(client, key, lowest, behind))
        self._rest = iter(self._noted.items())
        if len(self._noted) >= 2 * _NOTED and highest:
            # So many entries have been added since that the end was not reached.
            *_, noted = self._noted.items()
            self.is_complete = self.is_complete and noted[1] >= _score(highest[0])

    def _note(self, rising: _Rising) -> dict[str, float]:
        noted: dict[str, float] = {}
        while len(noted) < 2 * _NOTED and (entries := rising.window(_NOTED_A_CALL)):
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
        scores = read_checked(self._client, commands)
        return [
            entry
            for entry, score in zip(noted, scores, strict=True)
            if score is not None and not (self._once and float(score) != entry.score)
        ]

    def keep(self, entries: Sequence[Entry]) -> None:
        if entries and self._end is not None:
            self._rising.passed = entries[-1]
