"""A fake process manager, and ``impact`` on it."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from qctl.config.settings import Settings
from qctl.connection.address import Client, parse_url
from qctl.errors import NotFoundError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.impact import scope
from qctl.ops.impact.assess import Assessment, Impact, assess
from qctl.ops.impact.jobs_at_risk import JobRef
from qctl.ops.processes import targets
from qctl.ops.processes.targets import Connections
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import ForeignWorker, WorkerClient, Workers
from qctl.wire.read.heartbeats import Heartbeat
from tests.labs.build import Q, put

NOW = 1_700_000_100_000

PROCESS = ManagedProcess(
    target="pm2:app", key="0", name="app", namespace="default", status="online", pid=4711,
    started_at_ms=0, restarts=0, mode="fork", stop_signal="SIGINT", kill_timeout_ms=1600,
    ready_timeout_ms=0, cpu_percent=None, rss_bytes=None,
)  # fmt: skip

BEAT = Heartbeat(
    *("own-1", socket.gethostname(), 1, "", "bull", "q", "ours"),
    started_ms=0, concurrency=1, busy=1, quiet=False, completed=0, failed=0, rss_bytes=0,
)  # fmt: skip


SETTINGS = Settings(pm2_home=Path("/nonexistent"), state_home=Path("/nonexistent"))

OTHER = QueueKeys("bull", "other")


def now_ms() -> int:
    return int(time.time() * 1000)


def run(client: Client, job_id: str, keys: QueueKeys = Q, **fields: Any) -> None:
    put(client, job_id, "active", keys=keys, lock=f"uuid:{job_id}", **fields)


def look(client: Client, *names: str, **options: Any) -> Assessment:
    settings = options.pop("settings", SETTINGS)
    return assess(client, parse_url("redis://localhost/0"), settings, names, **options)


def ask(client: Client, *names: str, **options: Any) -> Impact:
    return look(client, *names, **options).impact


class Apps:
    """Processes and connected workers, by the process's key; pm2:app with a worker of q."""

    def __init__(self) -> None:
        self.processes = [PROCESS]
        self.owned = {"0": (self.worker(1),)}
        self.others: tuple[WorkerClient, ...] = ()
        self.foreign: dict[str, tuple[ForeignWorker, ...]] = {}
        self.nameless = 0
        self.error: Exception | None = None
        self.kind = "pm2"

    @staticmethod
    def worker(
        number: int, name: str | None = None, queue: str = "q", prefix: str = "bull"
    ) -> WorkerClient:
        return WorkerClient(QueueKeys(prefix, queue), name, number, f"127.0.0.1:{number}", 5, 1)

    def find(self, name: str) -> list[ManagedProcess]:
        found = [process for process in self.processes if process.name == name]
        if not found:
            raise NotFoundError(f"no app named {name}")
        return found

    def connections(self, *_: Any) -> Connections:
        if self.error is not None:
            raise self.error
        own = tuple(worker for workers in self.owned.values() for worker in workers)
        owned = {p.identity: self.owned[p.key] for p in self.processes if p.key in self.owned}
        foreign = {p.identity: self.foreign[p.key] for p in self.processes if p.key in self.foreign}
        return Connections(Workers([*own, *self.others], any_queue=self.nameless), owned, foreign)


def ids(refs: tuple[JobRef, ...] | None) -> list[str] | None:
    return None if refs is None else [ref.id for ref in refs]


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> Apps:
    apps = Apps()
    monkeypatch.setattr(targets, "manager_for", lambda *_: apps)
    monkeypatch.setattr(scope, "managed_processes", lambda *_: (apps.processes, ()))
    monkeypatch.setattr(scope, "read_connections", apps.connections)
    return apps
