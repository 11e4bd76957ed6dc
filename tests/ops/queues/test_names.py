"""Names of queues are remembered only where a pass is dear, and never hide a queue for long."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from qctl.cli import complete
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client, parse_url
from qctl.errors import NotFoundError
from qctl.ops.queues import names as known
from qctl.ops.queues.names import Memory
from qctl.ops.queues.status import Inspection, inspect_queues
from qctl.ops.queues.workers import inspect_workers
from qctl.wire.read.clients import client_name
from tests.labs.servers import wait_until
from tests.ops.queues.test_status import Counting, make_queue

ADDRESS = Address()


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis so large that every pass is dear."""
    monkeypatch.setattr(known, "DEAR_S", -1.0)


def written(
    memory: Memory, *names: str, client: Client | None = None, age_s: float = 1.0, **fields: Any
) -> None:
    """What an earlier pass has left, of the server of ``client``."""
    server = "" if client is None else known.server_id(client)
    memory._write(known.Known(names, time.time() - age_s, took_s=5.0, server=server))
    if fields:
        record = json.loads(memory.path.read_text()) | fields
        memory.path.write_text(json.dumps(record))


def test_a_quick_pass_is_made_each_time(fake: Client, tmp_path: Path) -> None:
    memory = Memory(tmp_path, ADDRESS, "bull")
    for name in ("a", "b"):
        make_queue(fake, name)
        assert not memory.names(fake).is_remembered
    assert memory.names(fake).names == ("a", "b")
    assert list(tmp_path.iterdir()) == []


def test_a_long_pass_is_remembered(dear: None, fake: Client, tmp_path: Path) -> None:
    make_queue(fake, "a")
    make_queue(fake, "b\udcff\n")
    address = parse_url("redis://user:s3cret@h:1/2")
    memory = Memory(tmp_path / "state", address, "bull")
    first = memory.names(fake)
    counting = Counting(fake)
    again = memory.names(counting)
    assert (again.names, again.is_remembered) == (first.names, True) == (("a", "b\udcff\n"), True)
    # The server says whether it is the same one; no key is looked at.
    assert len(counting.trips) == 1
    assert stat.S_IMODE(memory.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(memory.path.parent.stat().st_mode) == 0o700
    assert "s3cret" not in memory.path.read_text() + str(memory.path)


def test_another_server_at_the_same_address_is_passed_over(
    dear: None, client: Client, tmp_path: Path
) -> None:
    # As where a tunnel led elsewhere yesterday.
    memory = Memory(tmp_path, ADDRESS, "bull")
    written(memory, "staging", server="of another")
    make_queue(client, "prod")
    assert memory.names(client).names == ("prod",)
    recalled = memory.recall()
    assert recalled is not None
    assert (recalled.names, recalled.server) == (("prod",), known.server_id(client))
    assert len(recalled.server) == 40


def test_a_slow_pass_does_not_undo_a_later_one(
    dear: None, fake: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(tmp_path, ADDRESS, "bull")

    def overtaken(client: Client, prefix: str) -> list[str]:
        monkeypatch.undo()
        monkeypatch.setattr(known, "DEAR_S", -1.0)
        make_queue(client, "new")
        assert memory.look(client).names == ("new",)
        return []

    monkeypatch.setattr(known, "discover", overtaken)
    assert memory.look(fake).names == ()
    recalled = memory.recall()
    assert recalled is not None
    assert recalled.names == ("new",)


def test_a_prefix_may_be_any_bytes(dear: None, fake: Client, tmp_path: Path) -> None:
    make_queue(fake, "a", prefix="\udcff")
    assert Memory(tmp_path, ADDRESS, "\udcff").names(fake).names == ("a",)
    recalled = Memory(tmp_path, ADDRESS, "\udcff").recall()
    assert recalled is not None
    assert recalled.names == ("a",)


def test_a_look_is_a_pass_whatever_is_remembered(dear: None, fake: Client, tmp_path: Path) -> None:
    memory = Memory(tmp_path, ADDRESS, "bull")
    written(memory, "old")
    make_queue(fake, "new")
    assert memory.look(fake).names == ("new",)
    assert memory.names(fake).names == ("new",)


@pytest.mark.parametrize(
    "fields",
    [
        {"age_s": known.MOST_AGE_S + 1},
        {"age_s": -3600.0},
        {"about": ["redis://elsewhere:6379/0", "bull"]},
        {"names": None},
        {"passed_at_s": 10**400},
        {"passed_at_s": "yesterday"},
    ],
)
def test_what_cannot_be_relied_on_is_not_used(tmp_path: Path, fields: dict[str, Any]) -> None:
    memory = Memory(tmp_path, ADDRESS, "bull")
    written(memory, "old", **fields)
    assert memory.recall() is None
    for text in (b"\xff nonsense", b"[]", b"{}", b"[" * 100_000):
        memory.path.write_bytes(text)
        assert memory.recall() is None


def test_each_redis_and_prefix_has_its_own(dear: None, fake: Client, tmp_path: Path) -> None:
    long = "p" * 400
    make_queue(fake, "a")
    make_queue(fake, "b", prefix=long)
    assert Memory(tmp_path, ADDRESS, "bull").look(fake).names == ("a",)
    assert Memory(tmp_path, ADDRESS, long).look(fake).names == ("b",)
    assert Memory(tmp_path, ADDRESS, "p" * 401).recall() is None
    assert Memory(tmp_path, Address(port=1), "bull").recall() is None
    recalled = Memory(tmp_path, ADDRESS, long).recall()
    assert recalled is not None
    assert recalled.names == ("b",)


def test_a_folder_that_cannot_be_written_costs_only_time(
    dear: None, fake: Client, tmp_path: Path
) -> None:
    (tmp_path / "queues").write_text("a file")
    memory = Memory(tmp_path, ADDRESS, "bull")
    make_queue(fake, "a")
    assert memory.names(fake).names == ("a",)
    memory.look_in_background()


@pytest.mark.parametrize(
    ("took_s", "age_s", "is_due"),
    [(1.0, 25.0, False), (1.0, 35.0, True), (60.0, 850.0, False), (60.0, 950.0, True)],
)
def test_the_next_pass_is_due_before_the_names_are_too_old(
    took_s: float, age_s: float, is_due: bool
) -> None:
    assert known.Known((), time.time() - age_s, took_s).is_due is is_due


# What status makes of it


def look(url: str, client: Client, state_home: Path) -> Inspection:
    settings = Settings(pm2_home=Path("/nonexistent"), state_home=state_home)
    return inspect_queues(client, parse_url(url), settings)


def names(inspection: Inspection) -> list[str]:
    return [queue.name for queue in inspection.report.queues]


def test_status_says_that_names_are_remembered(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    for name in ("old", "unserved", "served"):
        make_queue(client, name)
    client.call("CLIENT", "SETNAME", client_name("bull", "served", "w"))
    memory = Memory(tmp_path, parse_url(redis_url), "bull")
    written(memory, "gone", "old", age_s=60, client=client)
    inspection = look(redis_url, client, tmp_path)
    # One that has gone is not shown, one with a worker is found at once.
    assert names(inspection) == ["old", "served"]
    (remark,) = inspection.remarks
    assert "queues as of 60 s ago" in remark
    assert "`qctl queues`" in remark
    assert inspection.report.queues_known_at is not None
    assert abs(inspection.report.queues_known_at.timestamp() - time.time() + 60) < 10


def test_status_with_remembered_names_takes_two_round_trips(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    for number in range(30):
        make_queue(client, f"q{number}", active=1)
    client.call("CLIENT", "SETNAME", client_name("bull", "q3", "w"))
    memory = Memory(tmp_path, parse_url(redis_url), "bull")
    written(memory, *(f"q{n}" for n in range(30)), client=client)
    counting = Counting(client)
    report = look(redis_url, counting, tmp_path).report
    assert [queue.workers for queue in report.queues if queue.name == "q3"] == [1]
    assert report.redis.version is not None
    assert (len(report.queues), counting.trips) == (30, ["pipeline", "pipeline"])


def test_status_looks_anew_where_another_server_answers(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    for name in ("new", "shared"):
        make_queue(client, name)
    written(Memory(tmp_path, parse_url(redis_url), "bull"), "shared", server="of another")
    inspection = look(redis_url, client, tmp_path)
    assert (names(inspection), inspection.remarks) == (["new", "shared"], ())


def test_status_looks_anew_where_all_that_is_remembered_has_gone(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    written(Memory(tmp_path, parse_url(redis_url), "bull"), "gone", client=client)
    with pytest.raises(NotFoundError):
        look(redis_url, client, tmp_path)
    make_queue(client, "new")
    assert names(look(redis_url, client, tmp_path)) == ["new"]


def test_the_next_pass_is_made_in_the_background(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    make_queue(client, "old")
    make_queue(client, "unserved")
    memory = Memory(tmp_path, parse_url(redis_url), "bull")
    written(memory, "old", age_s=200, client=client)
    assert names(look(redis_url, client, tmp_path)) == ["old"]
    # Here a pass turns out to be quick, and so nothing is remembered any more.
    wait_until(lambda: not memory.path.exists(), "the pass in the background")
    inspection = look(redis_url, client, tmp_path)
    assert (names(inspection), inspection.remarks) == (["old", "unserved"], ())


def test_only_one_pass_is_at_work_at_a_time(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    monkeypatch.setattr(Memory, "_start", lambda _, lock: started.append(os.dup(lock)))
    memory = Memory(tmp_path, parse_url(redis_url), "bull")
    for _ in range(3):
        memory.look_in_background()
    assert len(started) == 1
    os.close(started[0])
    memory.look_in_background()
    assert len(started) == 2
    os.close(started[1])


def test_workers_and_tab_use_the_same_names(redis_url: str, client: Client, tmp_path: Path) -> None:
    address = parse_url(redis_url)
    # As the official Python port of BullMQ names its connections.
    client.call("CLIENT", "SETNAME", "bull:cafe")
    written(Memory(tmp_path, address, "bull"), "cafe", client=client)
    settings = Settings(redis_url=redis_url, pm2_home=Path("/nonexistent"), state_home=tmp_path)
    report, _ = inspect_workers(client, address, settings)
    assert [worker.queue for worker in report.workers] == ["cafe"]
    assert list(complete._queues(settings)) == ["cafe"]
