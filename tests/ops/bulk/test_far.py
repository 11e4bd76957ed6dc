"""Jobs deep in long lists: found, deleted, and no call of it keeps Redis from others for long."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Callable, Iterator

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import InterruptedByUserError
from qctl.ops.bulk.actions import purging, removing
from qctl.ops.bulk.choice import Selection
from qctl.ops.bulk.report import BulkReport
from qctl.ops.bulk.run import BulkRun
from qctl.ops.jobs.where import Filter, parse_where
from qctl.wire.read.lists import positions
from qctl.wire.write.far import Block, draw
from qctl.wire.write.pace import Pace
from qctl.wire.write.transitions import remove_jobs
from tests.labs.build import Q, put, row
from tests.labs.servers import RedisServer
from tests.ops.bulk.test_family import child, top

# As lib/list_search.lua says: entries that one call of a script comes by at most.
MOST_SEARCHED = 17_500
# Of a list that is read.
MOST_SENT = 2_500


def fill(client: Client, count: int, deep: dict[int, str], *, name: str = "wait") -> None:
    """A list of so many entries, at the given places (from the head) those ids, each a job."""
    words = [deep.get(n, f"x{n}") for n in range(count)]
    for start in range(0, count, 10_000):
        client.call("RPUSH", Q(name), *words[start : start + 10_000])
    for job_id in deep.values():
        put(client, job_id, "")


def carried_out(client: Client, *ids: str, total: int = 1, **options: bool) -> BulkReport:
    run = BulkRun(client, Q, removing(), Selection(ids=ids), total, **options)
    for _ in run:
        pass
    return run.report()


class Watched:
    """A client, and what happens ahead of each of its commands that is sent alone."""

    def __init__(self, client: Client, before: Callable[[tuple[object, ...]], object]) -> None:
        self._client = client
        self._before = before

    def call(self, *command: object, timeout_s: float = 0.0) -> object:
        self._before(command)
        return self._client.call(*command, timeout_s=timeout_s)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


class Replayed:
    """What a server did to ``wait``, done once more here: entries come by, for each call.

    Args:
        lines: of MONITOR.
        entries: of the list, before.
    """

    def __init__(self, lines: list[str], entries: list[str]) -> None:
        self._entries = entries
        self._index = {job_id: n for n, job_id in enumerate(entries)}
        self.scripts: list[int] = []
        self.commands: list[int] = []
        for line in lines:
            head, _, rest = line.partition("] ")
            words = re.findall(r'"((?:[^"\\]|\\.)*)"', rest)
            if head.endswith(" lua"):
                self.scripts[-1] += self._come_by(words)
            elif words[0] == "EVALSHA":
                self.scripts.append(0)
            else:
                self.commands.append(self._come_by(words))

    def _come_by(self, command: list[str]) -> int:
        match command:
            case ["LPOS", _, job_id, "RANK", rank, "MAXLEN", most] if "wait" in command[1]:
                return min(self._steps(job_id, rank), int(most))
            case ["LREM", _, rank, job_id]:
                steps = self._steps(job_id, rank)
                self._entries.remove(job_id)
                self._index = {job_id: n for n, job_id in enumerate(self._entries)}
                return steps
            case ["LSET", _, at, job_id]:
                # A list seeks an index by whole nodes of it.
                self._entries[int(at)] = job_id
                self._index[job_id] = int(at)
            case ["LRANGE", _, start, end]:
                return int(end) - int(start) + 1
            case ["LINSERT", *_]:
                pytest.fail(f"{command} has no bound")
        return 1

    def _steps(self, job_id: str, rank: str) -> int:
        length = len(self._entries)
        at = self._index.get(job_id, length)
        return at + 1 if rank == "1" or at == length else length - at


@contextlib.contextmanager
def monitored(server: RedisServer) -> Iterator[Callable[[], list[str]]]:
    with (
        socket.create_connection(("127.0.0.1", server.port)) as watcher,
        watcher.makefile("r", encoding="utf-8", newline="\r\n") as stream,
    ):
        watcher.sendall(b"MONITOR\r\n")
        assert stream.readline().strip() == "+OK"

        def ended() -> list[str]:
            with contextlib.closing(connect(server.url)[1]) as client:
                client.call("ECHO", "that is all")
            lines = []
            while '"ECHO" "that is all"' not in (line := stream.readline()):
                lines.append(line)
            return lines

        yield ended


def test_named_jobs_deep_in_a_long_list_go_and_no_call_searches_long(
    redis_url: str, client: Client, redis_server: RedisServer
) -> None:
    places = {1: "first", 4_999: "near", 30_000: "a", 60_000: "b", 60_007: "c", 199_999: "last"}
    fill(client, 200_000, places)
    put(client, "nowhere", "")
    before = row(client, "wait")
    named = random.Random(7).sample([*places.values(), "never", "nowhere"], 8)
    with monitored(redis_server) as ended:
        report = carried_out(client, *named)
        seen = Replayed(ended(), [*before])
    assert (report.done, sorted(report.sample)) == (6, sorted(places.values()))
    assert {skipped.id for skipped in report.skipped} == {"never", "nowhere"}
    assert row(client, "wait") == [job_id for job_id in before if job_id not in places.values()]
    assert 5_000 <= max(seen.scripts) <= MOST_SEARCHED
    assert max(seen.commands) <= MOST_SENT


def test_the_bound_holds_when_a_call_is_for_many_jobs(
    client: Client, redis_server: RedisServer
) -> None:
    """The size of a call may have grown while jobs were near to the ends of their list."""
    places = {n * 997: f"d{n}" for n in range(100)}
    fill(client, 100_000, places)
    before = row(client, "wait")
    with monitored(redis_server) as ended:
        answers = remove_jobs(client, Q, [*places.values()])
        seen = Replayed(ended(), before)
    assert set(answers.values()) == {"removed", "deep"}
    assert max(seen.scripts) <= MOST_SEARCHED
    # More than one job a call, where they are near.
    assert 50 < len(seen.scripts) < 100


def test_children_deep_in_a_long_list_go_with_their_parent(client: Client) -> None:
    root = top(client)
    places = {n: f"c{n}" for n in range(500, 60_000, 5_000)}
    fill(client, 60_000, places)
    for job_id in places.values():
        child(client, (Q, job_id), root, "")
    run = BulkRun(client, Q, removing(with_children=True), Selection(ids=("top",)), 1)
    list(run)
    assert (run.report().done, run.report().below_count) == (1, len(places))
    assert row(client, "wait") == [f"x{n}" for n in range(60_000) if n not in places]
    assert client.call("EXISTS", *(Q(job_id) for job_id in places.values())) == 0


def test_what_a_filter_chooses_deep_in_a_list_goes_too(client: Client) -> None:
    places = {n: f"d{n}" for n in range(0, 24_000, 3_000)}
    fill(client, 24_000, places)
    for job_id in places.values():
        client.call("HSET", Q(job_id), "name", "wanted")
    only = Filter(where=parse_where("name = wanted"))
    for dry_run in (True, False):
        chosen = Selection(state="waiting", only=only)
        run = BulkRun(client, Q, purging(), chosen, 24_000, dry_run=dry_run)
        list(run)
        assert (run.report().done, run.report().scanned) == (len(places), 24_000)
    assert row(client, "wait") == [f"x{n}" for n in range(24_000) if n not in places]


def test_one_that_is_taken_while_it_is_looked_for_has_moved_on(client: Client) -> None:
    fill(client, 30_000, {15_000: "a", 15_001: "b"})

    def take(command: tuple[object, ...]) -> None:
        if command[0] == "LRANGE" and command[2:] == (0, MOST_SENT - 1):
            client.call("LREM", Q("wait"), 1, "a")

    chosen = Selection(state="waiting", only=Filter(where=parse_where("name = job")))
    run = BulkRun(Watched(client, take), Q, removing(), chosen, 30_000)  # type: ignore[arg-type]
    list(run)
    report = run.report()
    assert (report.done, report.skipped_count, report.moved_on_count) == (1, 1, 1)


def test_many_that_a_filter_chooses_are_moved_together(client: Client) -> None:
    """One in fifty of a long list: not each goes to the head before the next one sets out."""
    places = {n: f"d{n}" for n in range(10, 26_000, 50)}
    fill(client, 26_000, places)
    for job_id in places.values():
        client.call("HSET", Q(job_id), "name", "wanted")
    draws: list[tuple[object, ...]] = []

    def note(command: tuple[object, ...]) -> None:
        if command[0] in {"EVALSHA", "EVAL"} and command[3] == Q("wait"):
            draws.append(command)

    chosen = Selection(state="waiting", only=Filter(where=parse_where("name = wanted")))
    run = BulkRun(Watched(client, note), Q, removing(), chosen, 26_000)  # type: ignore[arg-type]
    list(run)
    assert (run.report().done, run.report().scanned) == (len(places), 26_000)
    assert row(client, "wait") == [f"x{n}" for n in range(26_000) if n not in places]
    # All that were between the two ends that a script searches.
    assert len(draws) < 1_000


def test_passing_an_entry_costs_the_same_for_many(
    client: Client, redis_server: RedisServer
) -> None:
    wanted = [f"w{n}" for n in range(400)]
    client.call("RPUSH", Q("wait"), *(f"x{n}" for n in range(100)), *wanted)
    with monitored(redis_server) as ended:
        drawn = draw(client, Q("wait"), Block(100, 400, "w0", "w399"), [], 0, Pace(100))
        changes = [line for line in ended() if '"LSET"' in line]
    assert len(changes) == 200
    after = row(client, "wait")
    assert drawn == (Block(0, 400, after[0], after[399]), [])
    assert sorted(after[:400]) == sorted(wanted)
    assert after[400:] == [f"x{n}" for n in range(100)]


def test_a_block_that_few_adds_have_pushed_on_is_found_nearby(
    client: Client, redis_server: RedisServer
) -> None:
    """Else each step would look through all of the slack while jobs are added."""
    client.call("RPUSH", Q("wait"), *(f"x{n}" for n in range(3_000)), "w")
    for adds, most in ((5, 250), (900, 3 * 900)):
        at = int(client.call("LPOS", Q("wait"), "w"))
        client.call("LPUSH", Q("wait"), *(f"n{adds}-{n}" for n in range(adds)))
        with monitored(redis_server) as ended:
            assert draw(client, Q("wait"), Block(at, 1, "w", "w"), [], 2_000, Pace(10))
            looks = [line.split('"')[5::2] for line in ended() if '"LRANGE"' in line]
        assert sum(int(end) - int(start) + 1 for start, end in looks) <= most


def test_a_dry_run_looks_as_far(client: Client) -> None:
    fill(client, 50_000, {25_000: "deep"})
    put(client, "nowhere", "")
    report = carried_out(client, "deep", "nowhere", dry_run=True)
    assert report.sample == ("deep",)
    assert [skipped.id for skipped in report.skipped] == ["nowhere"]
    assert client.call("LINDEX", Q("wait"), 25_000) == "deep"


def test_it_says_so_when_a_job_has_only_lost_its_turn(client: Client) -> None:
    fill(client, 60_000, {30_000: "a", 30_005: "b"})
    run = BulkRun(
        client, Q, removing(), Selection(ids=("a", "b")), 2,
        stop=lambda: client.call("LINDEX", Q("wait"), 30_000) != "a",
    )  # fmt: skip
    with pytest.raises(InterruptedByUserError) as caught:
        list(run)
    assert caught.value.why == (
        "0 jobs were removed before; 2 more jobs have moved within a list and lost their turn"
    )
    assert {"a", "b"} <= set(row(client, "wait"))


def test_adds_meanwhile_leave_no_job_behind(client: Client) -> None:
    """More than the slack at once, as a bulk add of BullMQ does."""
    fill(client, 40_000, {20_000: "a", 20_001: "b", 20_300: "c"})
    added = iter([0, 5, 90, 1_000, 0, 30, 2_000])

    new: list[str] = []

    def add(command: tuple[object, ...]) -> None:
        if command[0] == "EVALSHA" and (more := next(added, 0)):
            ids = [f"n{len(new) + n}" for n in range(more)]
            client.call("LPUSH", Q("wait"), *ids)
            new.extend(ids)

    report = carried_out(Watched(client, add), "a", "b", "c")  # type: ignore[arg-type]
    assert report.done == 3
    left = row(client, "wait")
    assert [job_id for job_id in left if job_id[0] == "x"] == [
        f"x{n}" for n in range(40_000) if n not in {20_000, 20_001, 20_300}
    ]
    assert len(left) == 39_997 + len(new)


def test_an_entry_is_found_although_others_are_deleted_before_it(store: Client) -> None:
    store.call("RPUSH", Q("wait"), *(f"x{n}" for n in range(12_000)))
    wanted = {f"x{n}" for n in (5_000, 5_001, 9_990, 10_005)}
    found: set[str] = set()
    for some in positions(store, Q("wait"), wanted):
        found |= some.keys()
        store.call("LTRIM", Q("wait"), 40, -1)
    assert found == wanted


def test_deletions_meanwhile_leave_no_job_behind(client: Client) -> None:
    """By others, before the place that was reached."""
    places = {n: f"d{n}" for n in range(14_000, 24_000, 100)}
    fill(client, 40_000, places)
    gone = iter(range(5_000, 8_000))

    def delete(command: tuple[object, ...]) -> None:
        if command[0] == "EVALSHA" and command[3] == Q("wait"):
            client.call("LREM", Q("wait"), 1, f"x{next(gone)}")

    report = carried_out(Watched(client, delete), *places.values(), total=100)  # type: ignore[arg-type]
    assert (report.done, report.skipped_count) == (100, 0)
    deleted = next(gone)
    assert deleted > 5_010
    assert row(client, "wait") == [
        f"x{n}" for n in range(40_000) if n not in places and not 5_000 <= n < deleted
    ]


def test_drawn_entries_pass_others_that_keep_their_order(store: Client) -> None:
    store.call("RPUSH", Q("wait"), *"abcdefghij")
    block = Block(7, 1, "h", "h")
    assert draw(store, Q("wait"), block, ["c", "f", "never"], 0, Pace(3)) == (
        Block(4, 2, "h", "f"),
        ["f"],
    )
    assert row(store, "wait") == [*"abcdhfegij"]
    # Adds have pushed it on.
    store.call("LPUSH", Q("wait"), "y", "z")
    block = Block(4, 2, "h", "f")
    assert draw(store, Q("wait"), block, ["c"], 1, Pace(3)) is None
    assert draw(store, Q("wait"), block, ["c"], 2, Pace(3)) == (Block(3, 3, "h", "f"), ["c"])
    assert row(store, "wait") == [*"zyahcfbdegij"]
    # Others took one of it.
    store.call("LREM", Q("wait"), 1, "c")
    assert draw(store, Q("wait"), Block(3, 3, "h", "f"), [], 5, Pace(3)) is None
    assert draw(store, Q("nothing"), Block(0, 1, "a", "a"), ["a"], 5, Pace(5)) is None
    assert list(positions(store, Q("wait"), ["a", "j", "never"])) == [{"a": 2, "j": 10}]


def test_any_block_passes_any_others(store: Client) -> None:
    rng = random.Random(11)
    for _ in range(300):
        store.call("DEL", Q("wait"))
        before = [f"x{n}" for n in range(rng.randint(1, 30))]
        size, at, steps = rng.randint(1, 12), len(before), rng.randint(1, 20)
        block = [f"w{n}" for n in range(size)]
        more = rng.sample(before, rng.randint(0, len(before) // 2))
        store.call("RPUSH", Q("wait"), *before, *block, "end")
        drawn = draw(store, Q("wait"), Block(at, size, block[0], block[-1]), more, 0, Pace(steps))
        assert drawn is not None
        passed = before[max(at - steps, 0) :]
        come = [job_id for job_id in passed if job_id in more]
        others = [job_id for job_id in passed if job_id not in more]
        after = row(store, "wait")
        start, end = drawn[0].at, drawn[0].at + drawn[0].size
        assert drawn == (Block(start, size + len(come), after[start], after[end - 1]), come)
        assert after[:start] == before[: max(at - steps, 0)]
        assert sorted(after[start:end]) == sorted([*block, *come])
        assert after[end:] == [*others, "end"]
