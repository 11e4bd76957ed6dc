"""Names of queues are cached only where a scan is slow, and never hide a queue for long."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from qctl.config.prefixes import Prefixes, only
from qctl.config.settings import Settings
from qctl.connection.address import Address, Client, parse_url
from qctl.errors import NotFoundError
from qctl.ops.queues import names as known
from qctl.ops.queues.names import QueueNameCache
from qctl.ops.queues.status import Inspection, inspect_queues
from qctl.ops.queues.workers import inspect_workers
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import client_name
from qctl.wire.read.discovery import Survey
from tests.labs.clients import Counting
from tests.labs.jobs import make_queue
from tests.labs.scripts import write_script
from tests.labs.servers import wait_until

ADDRESS = Address()


@pytest.fixture
def slow_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis so large that every scan is slow."""
    monkeypatch.setattr(known, "SLOW_SCAN_S", -1.0)


def written(
    cache: QueueNameCache,
    *names: str,
    client: Client | None = None,
    age_s: float = 1.0,
    **fields: Any,
) -> None:
    """What an earlier scan has left, of the server of ``client``."""
    server = "" if client is None else known.server_id(client)
    queues = tuple(QueueKeys("bull", name) for name in names)
    cache._write(known.QueueNames(queues, time.time() - age_s, took_s=5.0, server=server))
    if fields:
        record = json.loads(cache.path.read_text()) | fields
        cache.path.write_text(json.dumps(record))


def test_a_quick_scan_is_made_each_time(fake: Client, tmp_path: Path) -> None:
    cache = QueueNameCache(tmp_path, ADDRESS, only("bull"))
    for name in ("a", "b"):
        make_queue(fake, name)
        assert not cache.get(fake).is_cached
    assert cache.get(fake).names == ("a", "b")
    assert list(tmp_path.iterdir()) == []


def test_a_long_pass_is_cached(slow_scans: None, fake: Client, tmp_path: Path) -> None:
    make_queue(fake, "a")
    make_queue(fake, "b\udcff\n")
    address = parse_url("redis://user:s3cret@h:1/2")
    cache = QueueNameCache(tmp_path / "state", address, only("bull"))
    first = cache.get(fake)
    counting = Counting(fake)
    again = cache.get(counting)
    assert (again.names, again.is_cached) == (first.names, True) == (("a", "b\udcff\n"), True)
    # The server says whether it is the same one; no key is looked at.
    assert len(counting.trips) == 1
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.path.parent.stat().st_mode) == 0o700
    assert "s3cret" not in cache.path.read_text() + str(cache.path)


def test_another_server_at_the_same_address_is_scanned(
    slow_scans: None, client: Client, tmp_path: Path
) -> None:
    # As where a tunnel led elsewhere yesterday.
    cache = QueueNameCache(tmp_path, ADDRESS, only("bull"))
    written(cache, "staging", server="of another")
    make_queue(client, "prod")
    assert cache.get(client).names == ("prod",)
    recalled = cache.read()
    assert recalled is not None
    assert (recalled.names, recalled.server) == (("prod",), known.server_id(client))
    assert len(recalled.server) == 40


def test_a_slow_scan_does_not_undo_a_later_one(
    slow_scans: None, fake: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = QueueNameCache(tmp_path, ADDRESS, only("bull"))

    def overtaken(client: Client, prefixes: Prefixes, *, look_beyond: bool) -> Survey:
        monkeypatch.undo()
        monkeypatch.setattr(known, "SLOW_SCAN_S", -1.0)
        make_queue(client, "new")
        assert cache.scan(client).names == ("new",)
        return Survey((), (), True)

    monkeypatch.setattr(known, "survey", overtaken)
    assert cache.scan(fake).names == ()
    recalled = cache.read()
    assert recalled is not None
    assert recalled.names == ("new",)


def test_a_prefix_may_be_any_bytes(slow_scans: None, fake: Client, tmp_path: Path) -> None:
    make_queue(fake, "a", prefix="\udcff")
    assert QueueNameCache(tmp_path, ADDRESS, only("\udcff")).get(fake).names == ("a",)
    recalled = QueueNameCache(tmp_path, ADDRESS, only("\udcff")).read()
    assert recalled is not None
    assert recalled.names == ("a",)


def test_a_scan_ignores_the_cache(slow_scans: None, fake: Client, tmp_path: Path) -> None:
    cache = QueueNameCache(tmp_path, ADDRESS, only("bull"))
    written(cache, "old")
    make_queue(fake, "new")
    assert cache.scan(fake).names == ("new",)
    assert cache.get(fake).names == ("new",)


@pytest.mark.parametrize(
    "fields",
    [
        {"age_s": known.MAX_AGE_S + 1},
        {"age_s": -3600.0},
        {"about": ["redis://elsewhere:6379/0", "bull"]},
        {"queues": None},
        {"scanned_at_s": 10**400},
        {"scanned_at_s": "yesterday"},
    ],
)
def test_what_cannot_be_relied_on_is_not_used(tmp_path: Path, fields: dict[str, Any]) -> None:
    cache = QueueNameCache(tmp_path, ADDRESS, only("bull"))
    written(cache, "old", **fields)
    assert cache.read() is None
    for text in (b"\xff nonsense", b"[]", b"{}", b"[" * 100_000):
        cache.path.write_bytes(text)
        assert cache.read() is None


def test_each_redis_and_prefix_has_its_own(slow_scans: None, fake: Client, tmp_path: Path) -> None:
    long = "p" * 400
    make_queue(fake, "a")
    make_queue(fake, "b", prefix=long)
    assert QueueNameCache(tmp_path, ADDRESS, only("bull")).scan(fake).names == ("a",)
    assert QueueNameCache(tmp_path, ADDRESS, only(long)).scan(fake).names == ("b",)
    assert QueueNameCache(tmp_path, ADDRESS, only("p" * 401)).read() is None
    assert QueueNameCache(tmp_path, Address(port=1), only("bull")).read() is None
    recalled = QueueNameCache(tmp_path, ADDRESS, only(long)).read()
    assert recalled is not None
    assert recalled.names == ("b",)


def test_a_folder_that_cannot_be_written_costs_only_time(
    slow_scans: None, fake: Client, tmp_path: Path
) -> None:
    (tmp_path / "queues").write_text("a file")
    cache = QueueNameCache(tmp_path, ADDRESS, only("bull"))
    make_queue(fake, "a")
    assert cache.get(fake).names == ("a",)
    cache.scan_in_background()


@pytest.mark.parametrize(
    ("took_s", "age_s", "is_scan_due"),
    [(1.0, 25.0, False), (1.0, 35.0, True), (60.0, 850.0, False), (60.0, 950.0, True)],
)
def test_the_next_pass_is_scan_due_before_the_names_are_too_old(
    took_s: float, age_s: float, is_scan_due: bool
) -> None:
    assert known.QueueNames((), time.time() - age_s, took_s).is_scan_due is is_scan_due


# What status makes of it


def look(url: str, client: Client, state_home: Path) -> Inspection:
    settings = Settings(pm2_home=Path("/nonexistent"), state_home=state_home)
    return inspect_queues(client, parse_url(url), settings)


def names(inspection: Inspection) -> list[str]:
    return [queue.name for queue in inspection.report.queues]


def test_status_says_that_names_are_cached(redis_url: str, client: Client, tmp_path: Path) -> None:
    for name in ("old", "unserved", "served"):
        make_queue(client, name)
    client.call("CLIENT", "SETNAME", client_name("bull", "served", "w"))
    cache = QueueNameCache(tmp_path, parse_url(redis_url), only("bull"))
    written(cache, "gone", "old", age_s=60, client=client)
    inspection = look(redis_url, client, tmp_path)
    # One that has gone is not shown, one with a worker is found at once.
    assert names(inspection) == ["old", "served"]
    (remark,) = inspection.remarks
    assert "queues as of 60 s ago" in remark
    assert "`qctl queues`" in remark
    assert inspection.report.queues_known_at is not None
    assert abs(inspection.report.queues_known_at.timestamp() - time.time() + 60) < 10


def test_status_with_cached_names_takes_two_round_trips(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    for number in range(30):
        make_queue(client, f"q{number}", active=1)
    client.call("CLIENT", "SETNAME", client_name("bull", "q3", "w"))
    cache = QueueNameCache(tmp_path, parse_url(redis_url), only("bull"))
    written(cache, *(f"q{n}" for n in range(30)), client=client)
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
    written(
        QueueNameCache(tmp_path, parse_url(redis_url), only("bull")), "shared", server="of another"
    )
    inspection = look(redis_url, client, tmp_path)
    assert (names(inspection), inspection.remarks) == (["new", "shared"], ())


def test_status_looks_anew_where_all_that_is_cached_has_gone(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    written(QueueNameCache(tmp_path, parse_url(redis_url), only("bull")), "gone", client=client)
    with pytest.raises(NotFoundError):
        look(redis_url, client, tmp_path)
    make_queue(client, "new")
    assert names(look(redis_url, client, tmp_path)) == ["new"]


def test_the_next_pass_is_made_in_the_background(
    redis_url: str, client: Client, tmp_path: Path
) -> None:
    make_queue(client, "old")
    make_queue(client, "unserved")
    cache = QueueNameCache(tmp_path, parse_url(redis_url), only("bull"))
    written(cache, "old", age_s=200, client=client)
    assert names(look(redis_url, client, tmp_path)) == ["old"]
    # Here a scan turns out to be quick, and so nothing is cached any more.
    wait_until(lambda: not cache.path.exists(), "the scan in the background")
    inspection = look(redis_url, client, tmp_path)
    assert (names(inspection), inspection.remarks) == (["old", "unserved"], ())


def test_only_one_pass_is_at_work_at_a_time(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    monkeypatch.setattr(QueueNameCache, "_start", lambda _, lock: started.append(os.dup(lock)))
    cache = QueueNameCache(tmp_path, parse_url(redis_url), only("bull"))
    for _ in range(3):
        cache.scan_in_background()
    assert len(started) == 1
    os.close(started[0])
    cache.scan_in_background()
    assert len(started) == 2
    os.close(started[1])


def test_workers_uses_the_remembered_names(redis_url: str, client: Client, tmp_path: Path) -> None:
    address = parse_url(redis_url)
    # As the official Python port of BullMQ names its connections.
    client.call("CLIENT", "SETNAME", "bull:cafe")
    written(QueueNameCache(tmp_path, address, only("bull")), "cafe", client=client)
    settings = Settings(redis_url=redis_url, pm2_home=Path("/nonexistent"), state_home=tmp_path)
    report, _ = inspect_workers(client, address, settings)
    assert [worker.queue for worker in report.workers] == ["cafe"]


def test_a_scan_in_the_background_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task, go, done = tmp_path / "task", tmp_path / "go", tmp_path / "done"
    slow = write_script(
        tmp_path / "python",
        f"cat > {task}.new && mv {task}.new {task}\n"
        f"until test -e {go} || test $((i += 1)) -gt 300; do sleep 0.1; done\ntouch {done}",
    )
    monkeypatch.setattr(known.sys, "executable", str(slow))
    cache = QueueNameCache(tmp_path, ADDRESS, only("bull"))
    cache.scan_in_background()
    assert not done.exists()
    # The new process has the task, and keeps the lock until it ends.
    assert json.loads(wait_until(lambda: task.exists() and task.read_text(), "the task"))
    assert cache._try_lock() is None
    go.touch()
    lock = wait_until(cache._try_lock, "the lock to be free")
    assert done.exists()
    os.close(lock)
