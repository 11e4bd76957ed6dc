"""Visits all jobs of a state while the caller and other clients add and remove jobs.

A job that is in the state during the whole walk is visited at least once; if a walk may have missed
such a job, ``is_complete`` is False. A job that enters or leaves the state during the walk may be
visited or not. A step's memory and cost do not depend on the number of jobs, except in ShortWalk.
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

# Each step reads the last 100 visited entries of a list again, to find where the walk goes on. So
# a step finds its place at once if fewer than 100 visited entries were removed since the last step.
_OVERLAP = 100
# A walk through a list remembers the ids of at most this many visited jobs.
_MAX_REMEMBERED = 20_000
# A walk through a list reads at most 3 times its initial length + 10,000 entries.
_MAX_TIMES, _MAX_MORE = 3, 10_000
# Each of the two lists of waiting jobs is visited at most this many times.
_MAX_ROUNDS = 3
# A walk through a sorted set starts by noting the 20,000 entries with the highest scores, and up to
# 20,000 more entries that are added while it notes them. One command reads 1,000 entries.
_NOTED = 20_000
_NOTED_A_CALL = 1_000


class Walk:
    """A walk in steps: ``take`` some entries, then ``keep`` those that were not changed.

    Attributes:
        is_complete: False if, at the end, some jobs may not have been visited.
    """

    is_complete = True

    def take(self, size: int) -> list[Entry]:
        """The next entries, at most ``size``; empty at the end."""
        raise NotImplementedError

    def keep(self, entries: Sequence[Entry]) -> None:
        """Continue after the entries that ``take`` has returned.

        Args:
            entries: those of the returned entries that the caller did not change, in order.
        """


def start_walk(
    client: Client, keys: QueueKeys, state: str, *, since: float | None = None, once: bool = False
) -> Walk:
    """A walk through a state: sorted sets from the lowest score, waiting lists from the head.

    Args:
        state: one of ``wire.states.STATES``.
        since: for finished states: visit only entries whose score (epoch ms) is at least this.
        once: skip jobs that have left the state and returned with another score.
    """
    if state == "waiting":
        return _WaitingWalk(client, [keys("paused"), keys("wait")])
    if state == "stalled":
        return ShortWalk([job.id for job in read_active(client, [keys]) if job.is_orphan])
    if state == "active":
        return ShortWalk(active_ids(client, keys))
    # Finished jobs are visited up to the present time, by Redis' clock.
    last = float(clock_ms(client)) if state in FINISHED else float("inf")
    return _SetWalk(client, keys(state), since, last, once=once)


class ShortWalk(Walk):
    """A walk through ids that are known at the start, for example of the active jobs."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._entries = [Entry(job_id) for job_id in ids]

    def take(self, size: int) -> list[Entry]:
        taken, self._entries = self._entries[:size], self._entries[size:]
        return taken


class _WaitingWalk(Walk):
    """A walk through the list ``paused``, and after that through the list ``wait``.

    A pause or resume by BullMQ 5 moves all jobs from one list to the other. After a resume, the
    jobs are in the list that is visited next. After a pause, both lists are visited again.
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
            if entries or not self._has_next_list():
                return entries
            self._list_walk = self._start_next()

    def _has_next_list(self) -> bool:
        if self._started % len(self._lists):
            return True
        # A pause moves the jobs of the list just visited, ``wait``, to the first list, ``paused``.
        self._had_entries = self._have_entries()
        if not self._list_walk.is_lost or not self._had_entries[0]:
            return False
        if self._started >= _MAX_ROUNDS * len(self._lists):
            self.is_complete = False
        return self.is_complete

    def keep(self, entries: Sequence[Entry]) -> None:
        self._list_walk.keep(entries)


class _ListWalk(Walk):
    """A walk through a list from its head, where jobs are added, to its tail, where jobs are taken.

    An added job moves the jobs behind it to higher indexes: the walk meets some jobs twice, but
    misses none. A deleted job moves the jobs behind it to lower indexes, where the walk has already
    been. So each step begins ``_OVERLAP`` entries earlier, and must find a visited id there.

    Attributes:
        is_lost: whether a step did not find its place, for example because BullMQ 5 has renamed
            the list.
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
            elif not self._finds_place(window, start):
                # The visited entries are gone or far away: step back further, up to the head.
                self._passed = max(0, self._passed - self._step_back)
                self._step_back *= 2
            else:
                # A window with fewer entries than requested reaches the end of the list.
                self._is_over = is_short
                self._taken = self._unseen(window, start)
                self._seen |= dict.fromkeys(window)
                if len(self._seen) > _MAX_REMEMBERED:
                    self._seen = dict.fromkeys(islice(self._seen, _MAX_REMEMBERED // 2, None))
                self._passed = start + len(window)
                if self._taken:
                    return [Entry(job_id) for job_id in self._taken]
        return []

    def _finds_place(self, window: Sequence[str], start: int) -> bool:
        if start and not (window and window[0] in self._seen):
            self.is_lost = True
            return False
        self._step_back = _OVERLAP
        # If the list is empty or has no visited entry, BullMQ 5 may have renamed it.
        is_emptied = self._had_entries and not window
        if is_emptied or (self._seen and self._seen.keys().isdisjoint(window)):
            self.is_lost = True
        return True

    def _unseen(self, window: Sequence[str], start: int) -> list[str]:
        """The ids to visit. Ids at the head, before the first visited one, are new: skip these."""
        first = 0
        if not start:
            first = next((at for at, job_id in enumerate(window) if job_id in self._seen), 0)
        return [
            job_id
            for job_id in window[first:]
            if job_id not in self._seen and not is_marker(job_id)
        ]

    def keep(self, entries: Sequence[Entry]) -> None:
        self._passed = max(0, self._passed - len(self._taken) + len(entries))
        for job_id in set(self._taken) - {entry.id for entry in entries}:
            # If a job is added with this id later, it is another job.
            self._seen.pop(job_id, None)


class _Rising:
    """Reads a sorted set by rising score. Each window begins behind the entry ``passed``.

    The rank of that entry changes if entries with lower scores are removed, so each window reads
    the rank again. If the entry is gone or has another score now, its old score is used instead.
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
    """A walk through a sorted set by rising score, up to the entry that is last at the start.

    A job that the caller runs again may fail again and return to the set. If clocks differ, its new
    score may be lower than that of the entry where the walk ends. So the walk starts by noting the
    entries with the highest scores, and visits the noted entries by their ids. Entries with lower
    scores are visited up to the score ``last``.
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
        passed = None
        if below and _score(below[0]) >= (float("-inf") if since is None else since):
            passed = below[0]
            self._end = min(_score(passed), last)
            # Of the entries above ``last``, the walk visits only those that are noted.
            self.is_complete = _score(passed) <= last
        self._noted = self._note(_Rising(client, key, lowest, passed))
        self._rest = iter(self._noted.items())
        if len(self._noted) >= 2 * _NOTED and highest:
            # Many entries were added while the walk noted entries: it may not have reached the end.
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
