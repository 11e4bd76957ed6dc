"""A lab of drains on several hosts: Redis on one, PM2 with BullMQ's workers on others, and qctl.

The test itself is on no host. It reads Redis through a unix socket, which no partition touches, and
what the handlers did from a file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

from qctl import Queue
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.events import Event, past_events
from qctl.wire.write.adding import NewJob
from tests.labs.drains import Lab, Running, qctl_command
from tests.labs.network import Host, Network
from tests.labs.node import MODULES, node
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

# A worker of qctl that does what processor.js does, for jobs with ``ms`` and ``held``.
_WORKER = """
    import asyncio, json, os, sys, time
    from qctl import Worker
    from qctl.runtime.loop import listener

    listener.MAX_BLOCK_S = $block_s
    queue, name, ledger = sys.argv[1:]
    worker = Worker(
        queue, name=name, concurrency=1, lock_ttl_s=$lock_s, stalled_interval_s=0.5,
        drain_delay_s=$block_s, max_stalled_count=100,
    )

    def note(job, ev):
        row = {"id": job.id, "pid": os.getpid(), "worker": name, "ats": job.attempts_started,
               "ev": ev, "at": time.time() * 1000}
        with open(ledger, "a") as file:
            file.write(json.dumps(row) + "\\n")

    @worker.task()
    async def run(job):
        note(job, "start")
        try:
            await asyncio.sleep(job.data.get("ms", 0) / 1000)
            while job.data.get("held") and not os.path.exists(f"{ledger}.release"):
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            note(job, "fail")
            raise
        note(job, "end")

    worker.run(grace_s=$grace_s)
"""
LOCK_S = 1.5
GRACE_S = 1.0
# In place of 10 s: how long a worker of qctl blocks at most.
BLOCK_S = 0.5
# In place of 5 and 10 s, for all processes of qctl: a partition must outlast them.
CONNECT_S, REPLY_S = 0.5, 1.0
# Python runs this before anything else.
_SHORT_TIMES = f"""
import sys
if "qctl" in " ".join(sys.orig_argv):
    from qctl.connection import socket_client
    socket_client.CONNECT_TIMEOUT_S, socket_client.REPLY_TIMEOUT_S = {CONNECT_S}, {REPLY_S}
"""


class HostRedis(RedisServer):
    """A Redis on a host. Its ``url`` is for the other hosts; the tests use ``socket_url``."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(folder)
        self._host = host
        self._socket = folder / "redis.sock"
        self.port = 6379

    @property
    def url(self) -> str:
        return f"redis://{self._host.address}:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> HostRedis:
        options = ["--bind", "*", "--protected-mode", "no", "--unixsocket", str(self._socket)]
        self._process = self._host.popen(
            [*self._command(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._socket.exists, "Redis to listen")
        return self


class HostPm2(Pm2):
    """A PM2 daemon on a host; it ends with the host."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def run(self, *args: str, timeout_s: float = 60.0, **_: Any) -> str:
        command = [*node(), str(MODULES / "pm2/bin/pm2"), *args]
        return self._host.run(*command, env=self.env, cwd=self.home, timeout_s=timeout_s)


class PartitionLab(Lab):
    """Apps under PM2 on host ``a``, qctl's own workers on host ``b``, and Redis on ``redis``.

    Attributes:
        network: where the hosts can be cut off.
        own: the worker on ``b``.
    """

    own: Running

    def __init__(self, folder: Path) -> None:
        self.network = Network("redis", "a", "b")
        server = HostRedis(self.network["redis"], folder / "redis").start()
        super().__init__(HostPm2(self.network["a"]), server, folder)
        self.socket_url = server.socket_url
        self.ledger = folder / "ledger"
        (folder / "sitecustomize.py").write_text(_SHORT_TIMES)

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "PYTHONPATH": str(self.folder)}

    @cached_property
    def client(self) -> Client:
        return connect(self.socket_url)[1]

    def app(self, name: str = "app", queues: str = "q", **more: Any) -> None:
        host = self.network["redis"]
        given: dict[str, Any] = {
            "REDIS_HOST": host.address,
            "WORKER_NAME": name,
            "LEDGER": self.ledger,
            "LOCK_MS": round(LOCK_S * 1000),
            "STALLED_MS": 500,
            "MAX_STALLED": 100,
            "RECONNECT_MS": 200,
        }
        super().app(name, queues, **{**given, **more})

    def worker(self, name: str = "own", queue: str = "q", host: str = "b") -> Running:
        """Start a worker of qctl and wait for it."""
        file = self.folder / "qctl_worker.py"
        text = Template(textwrap.dedent(_WORKER))
        file.write_text(text.substitute(lock_s=LOCK_S, grace_s=GRACE_S, block_s=BLOCK_S))
        before = self.count_workers(queue)
        command = [sys.executable, str(file), queue, name, str(self.ledger)]
        running = Running(self.network[host].popen(command, env=self.env, cwd=self.folder))
        self._running.append(running)
        self.wait_workers(queue, before + 1)
        return running

    def start(self, *args: str, env: Mapping[str, str] = {}, host: str = "a") -> Running:
        command = qctl_command(*args, quick=not self.watch)
        process = self.network[host].popen(command, env={**self.env, **env}, cwd=self.folder)
        self._running.append(Running(process))
        return self._running[-1]

    def release(self, queue: str = "q") -> None:
        super().release(queue)
        Path(f"{self.ledger}.release").touch()

    def hold_anew(self, count: int) -> list[str]:
        """``hold``, after an earlier ``release``, once all runs of before have noticed that."""
        wait_until(lambda: not self._running_handlers(), "the handlers to end")
        self.client.call("DEL", "release:q")
        Path(f"{self.ledger}.release").unlink(missing_ok=True)
        return self.hold(count)

    def _running_handlers(self) -> set[tuple[str, int]]:
        """Job id and attempt of each run that has started, not ended, and whose process lives."""
        rows = self.runs()
        ended = {(row["id"], row["ats"]) for row in rows if row["ev"] != "start"}
        app = {row.pid for row in self.pm2.rows("app")}
        living = [row for row in rows if row["worker"] != "app" or row["pid"] in app]
        return {(row["id"], row["ats"]) for row in living} - ended

    def starts(self, job_id: str) -> list[dict[str, Any]]:
        return [row for row in self.rows(job_id) if row["ev"] == "start"]

    def prove_ended(self, added: Sequence[str], *, again: Sequence[str] | None = ()) -> None:
        """Check that each job has completed, and that nothing is left of the drain or of a lock.

        Args:
            again: jobs that had to start twice; None for any. Two runs of a job may overlap: the
                first goes on behind the partition.
        """
        self.wait_completed(added)
        ended = Counter(event.job_id for event in self._events() if event.name == "completed")
        for job_id in added:
            assert self.places(job_id) == ["completed"]
            assert ended[job_id] == 1
            allowed = {1, 2} if again is None else {1 + (job_id in again)}
            assert len(self.starts(job_id)) in allowed, self.rows(job_id)
        wait_until(lambda: self.is_resumed("q"), "the queue to be resumed")
        assert self.client.call("LLEN", "bull:q:active") == 0
        assert self.client.call("KEYS", "bull:q:*:lock") == []

    def _events(self) -> list[Event]:
        return list(past_events(self.client, self.keys(), since="-"))

    def _add(self, jobs: list[dict[str, Any]], queue: str, _: int) -> list[str]:
        own = Queue(queue, redis_url=self.socket_url)
        try:
            return own.add_bulk([NewJob(job["name"], job["data"]) for job in jobs])
        finally:
            own.close()

    def runs(self, _: str = "q") -> list[dict[str, Any]]:
        text = self.ledger.read_text() if self.ledger.exists() else ""
        # The last row may not be complete yet.
        return [json.loads(row) for row in text.split("\n")[:-1]]

    def close(self) -> None:
        # All processes end here, so nothing waits for Redis.
        self.network.close()
        super().close()
        self.server.stop()
        self.pm2.kill()

    def _delete_apps(self) -> None:
        """They have ended with their host."""
