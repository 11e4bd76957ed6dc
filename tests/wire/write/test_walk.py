"""Walks through states that others change at every step: nothing that stays is passed by."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from qctl.connection.address import Client
from qctl.wire.read.lists import Entry
from qctl.wire.write import walk as module
from qctl.wire.write.pausing import resume
from qctl.wire.write.walk import Walk, start_walk
from tests.labs.build import Q

NOW_MS = 1_700_000_000_000
FUTURE_MS = 4_000_000_000_000


def waiting(client: Client, count: int, key: str = "wait", name: str = "j") -> list[str]:
    ids = [f"{name}{n}" for n in range(count)]
    client.call("LPUSH", Q(key), *ids)
    return ids


def ended(client: Client, scores: dict[str, float], state: str = "failed") -> None:
    client.call("ZADD", Q(state), *(word for job_id, at in scores.items() for word in (at, job_id)))


def followed(
    path: Walk, size: int, meanwhile: Callable[[list[str]], None], *, steps: int = 5000
) -> list[str]:
    """All ids in the order in which they are visited; ``meanwhile`` is called after every step."""
    found: list[str] = []
    for _ in range(steps):
        entries = path.take(size)
        if not entries:
            return found
        ids = [entry.id for entry in entries]
        found += ids
        path.keep(entries)
        meanwhile(ids)
    pytest.fail(f"no end after {steps} steps")


def nothing(_: list[str]) -> None:
    pass


# Lists


@pytest.mark.parametrize("added", [1, 9, 40])
def test_the_oldest_are_seen_while_jobs_are_added(store: Client, added: int) -> None:
    ids = waiting(store, 200)
    numbers = iter(range(10**6))

    def add(_: list[str]) -> None:
        if next(numbers) < 100:
            store.call("LPUSH", Q("wait"), *(f"n{next(numbers)}" for _ in range(added)))

    path = start_walk(store, Q, "waiting")
    found = followed(path, 20, add)
    assert set(ids) <= set(found)
    assert path.is_complete
    # Visited ids are recognized when others push them on.
    assert len(found) == len(set(found))


def test_a_producer_that_is_too_fast_ends_the_walk_and_it_says_so(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_MORE", 100)
    waiting(client, 100)
    numbers = iter(range(10**9))

    def replace(ids: list[str]) -> None:
        client.call("LPUSH", Q("wait"), *(f"n{next(numbers)}" for _ in range(12)))

    path = start_walk(client, Q, "waiting")
    found: list[str] = []
    while entries := path.take(10):
        found += [entry.id for entry in entries]
        client.call("LTRIM", Q("wait"), len(entries), -1)
        path.keep([])
        replace(found)
        assert len(found) < 1000
    assert not path.is_complete


def test_a_resume_moves_all_jobs_to_what_comes_next(store: Client) -> None:
    ids = waiting(store, 300, "paused")
    path = start_walk(store, Q, "waiting")
    found = [entry.id for entry in path.take(50)]
    path.keep([Entry(job_id) for job_id in found])
    store.call("RENAME", Q("paused"), Q("wait"))
    assert set(found + followed(path, 50, nothing)) == set(ids)
    assert path.is_complete


def test_a_resume_in_parts(store: Client) -> None:
    ids = waiting(store, 2500, "paused")
    store.call("HSET", Q("meta"), "paused", "1")
    path = start_walk(store, Q, "waiting")
    found = [entry.id for entry in path.take(50)]
    path.keep([Entry(job_id) for job_id in found])
    resume(store, Q)
    assert set(found + followed(path, 500, nothing)) == set(ids)
    assert path.is_complete


@pytest.mark.parametrize("passed", [0, 50, 250])
def test_a_pause_moves_all_jobs_back(store: Client, passed: int) -> None:
    ids = waiting(store, 300)
    path = start_walk(store, Q, "waiting")
    found = [entry.id for entry in path.take(passed)] if passed else []
    path.keep([Entry(job_id) for job_id in found])
    store.call("RENAME", Q("wait"), Q("paused"))
    assert set(found + followed(path, 50, nothing)) == set(ids)
    assert path.is_complete


def test_to_and_fro_for_ever_is_said(store: Client) -> None:
    waiting(store, 300)
    places = [Q("wait"), Q("paused")]

    def exchange(_: list[str]) -> None:
        store.call("RENAME", *places)
        places.reverse()

    path = start_walk(store, Q, "waiting")
    followed(path, 50, exchange)
    assert not path.is_complete


@pytest.mark.parametrize("removed", [10, 90, 350])
def test_others_delete_jobs_that_were_passed(store: Client, removed: int) -> None:
    ids = waiting(store, 1000)
    path = start_walk(store, Q, "waiting")
    found = [entry.id for entry in path.take(400)]
    path.keep([Entry(job_id) for job_id in found])
    store.call("LTRIM", Q("wait"), removed, -1)
    assert set(found + followed(path, 50, nothing)) == set(ids)


def disturbed(client: Client, chance: random.Random, new: list[str]) -> set[str]:
    """Something happens to the lists; which jobs are no longer there."""
    lists = [Q("wait"), Q("paused")]
    chance.shuffle(lists)
    key, other = lists
    match chance.choice(["add", "add", "take", "delete", "move"]):
        case "add":
            client.call("LPUSH", key, *new[chance.randint(0, 14) :])
        case "take":
            return {client.call("RPOP", key) for _ in range(chance.randint(1, 5))}
        case "delete":
            count = chance.randint(1, 9)
            ids = client.call("LRANGE", key, 0, count - 1)
            client.call("LTRIM", key, count, -1)
            return set(ids)
        case "move":
            if chance.random() < 0.2 and client.call("EXISTS", key) > client.call("EXISTS", other):
                client.call("RENAME", key, other)
    return set()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_lists(
    client: Client, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(module, "_OVERLAP", chance.choice([1, 3, 10]))
    monkeypatch.setattr(module, "_MAX_REMEMBERED", chance.choice([20, 60, 1000]))
    lists = [Q("wait"), Q("paused")]
    ids = waiting(client, chance.randint(1, 150), chance.choice(["wait", "paused"]))
    numbers = iter(range(10**6))
    found: set[str] = set()
    gone: set[str] = set()
    path = start_walk(client, Q, "waiting")
    for step in range(3000):
        entries = path.take(chance.randint(1, 12))
        if not entries:
            break
        found |= {entry.id for entry in entries}
        own = [entry for entry in entries if chance.random() < 0.3]
        for entry in own:
            for key in lists:
                client.call("LREM", key, 0, entry.id)
        path.keep([entry for entry in entries if entry not in own])
        # Less and less happens, so that it comes to an end.
        for _ in range(chance.randint(0, 3) if step < 60 else 0):
            gone |= disturbed(client, chance, [f"n{next(numbers)}" for _ in range(15)])
    else:
        pytest.fail("no end")
    assert set(ids) <= found | gone or not path.is_complete


# Sorted sets


def test_what_finished_in_the_future_does_not_make_a_walk_without_end(store: Client) -> None:
    """A worker's clock was ahead; what fails from now on stands below what failed then."""
    scores = {f"j{n:03}": NOW_MS + n for n in range(100)}
    ended(store, scores | {"ahead": FUTURE_MS})
    at = iter(range(NOW_MS + 10_000, FUTURE_MS))

    def fail_again(ids: list[str]) -> None:
        ended(store, {job_id: next(at) for job_id in ids})

    path = start_walk(store, Q, "failed", once=True)
    assert followed(path, 7, fail_again) == [*scores, "ahead"]
    assert path.is_complete


@pytest.mark.parametrize("state", ["failed", "delayed"])
def test_more_than_are_noted_at_the_start(
    store: Client, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(module, "_NOTED", 10)
    ids = [f"j{n:03}" for n in range(100)]
    ended(store, {job_id: NOW_MS + n // 4 for n, job_id in enumerate(ids)}, state)
    path = start_walk(store, Q, state, once=True)
    assert followed(path, 7, nothing) == ids
    assert path.is_complete


def test_more_in_the_future_than_are_noted_is_said(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NOTED", 10)
    ended(store, {f"j{n:03}": FUTURE_MS + n for n in range(20)} | {"now": NOW_MS})
    path = start_walk(store, Q, "failed", once=True)
    assert followed(path, 7, nothing) == ["now", *(f"j{n:03}" for n in range(10, 20))]
    assert not path.is_complete


def test_a_promoted_job_that_is_delayed_again_is_not_promoted_twice(store: Client) -> None:
    ids = [f"j{n:03}" for n in range(60)]
    ended(store, {job_id: 4096 * n for n, job_id in enumerate(ids)}, "delayed")

    def again(done: list[str]) -> None:
        # Their backoff is shorter than the longest delay there was.
        ended(store, dict.fromkeys(done, 4096 * 55), "delayed")

    assert followed(start_walk(store, Q, "delayed", once=True), 7, again) == ids


def test_where_it_was_may_move_and_vanish(store: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NOTED", 5)
    ids = [f"j{n:03}" for n in range(100)]
    ended(store, dict.fromkeys(ids, NOW_MS))

    def disturb(last: list[str]) -> None:
        if int(last[-1][1:]) % 2:
            store.call("ZREM", Q("failed"), last[-1], last[0])
        else:
            # Somebody else has retried it, and it failed again.
            ended(store, {last[-1]: FUTURE_MS - 1})

    found = followed(start_walk(store, Q, "failed"), 7, disturb)
    assert set(found) == set(ids)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_sets(
    client: Client, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(module, "_NOTED", chance.choice([3, 20, 1000]))
    monkeypatch.setattr(module, "_NOTED_A_CALL", chance.choice([2, 9]))
    ids = [f"j{n}" for n in range(chance.randint(1, 120))]
    ended(client, {job_id: NOW_MS + chance.randint(0, 20) for job_id in ids})
    touched: set[str] = set()

    def disturb(_: list[str]) -> None:
        for _ in range(chance.randint(0, 3)):
            touched.add(some := chance.choice(ids))
            if chance.random() < 0.5:
                client.call("ZREM", Q("failed"), some)
            else:
                ended(client, {some: NOW_MS + chance.randint(0, 40)})

    path = start_walk(client, Q, "failed", once=bool(seed % 2))
    found = followed(path, chance.randint(1, 9), disturb)
    assert set(ids) <= set(found) | touched
    assert path.is_complete
