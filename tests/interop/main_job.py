"""The main job on real servers, for a first look: ``python -m tests.interop.main_job``.

Starts a private Redis, a private PM2 with a BullMQ worker (5 jobs at a time, 3 seconds each) and a
producer that keeps adding jobs; then drains and restarts the worker twice, the second time killing
qctl in the middle. At the end it counts, from what the worker itself wrote down, how often each job
really ran. Everything it started is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.keys import QueueKeys
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots
from tests.labs.node import HERE, install_node_modules, node, node_env, runs
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

QUEUE = "user-data-processing"
DRAIN = "drain --then-restart --target pm2:worker --yes"


class Stage:
    """A Redis, a PM2 with a worker, and a producer."""

    def __init__(self, redis: RedisServer, pm2: Pm2) -> None:
        self.client: Client = connect(redis.url)[1]
        self.env = {**os.environ, "QCTL_REDIS_URL": redis.url, "PM2_HOME": str(pm2.home)}
        app = {"REDIS_PORT": redis.port, "QUEUES": QUEUE, "CONCURRENCY": 5}
        pm2.start("worker", env=app)
        pm2.wait_worker(self.client, QUEUE)
        self.producer = subprocess.Popen(
            [*node(), str(HERE / "producer.js")],
            stdout=subprocess.DEVNULL,
            env=node_env(
                {"REDIS_PORT": str(redis.port), "QUEUE": QUEUE, "EVERY_MS": "500", "JOB_MS": "3000"}
            ),
        )

    def qctl(self, words: str) -> int:
        """Run qctl for the reader to see."""
        print(f"\n$ qctl {words}", flush=True)
        return subprocess.run(
            [sys.executable, "-m", "qctl", *shlex.split(words)], env=self.env, check=False
        ).returncode

    def kill_in_the_middle(self) -> None:
        """Start a drain and kill it with SIGKILL once the queue is paused."""
        print(f"\n$ qctl {DRAIN} &   # … and kill -9 while it waits", flush=True)
        drain = subprocess.Popen(
            [sys.executable, "-m", "qctl", *shlex.split(DRAIN)],
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: self.snapshot().paused, "the drain to pause the queue", timeout_s=30)
        drain.kill()
        drain.wait()
        wait_until(lambda: not self.snapshot().paused, "the watchdog to resume it", timeout_s=5)
        print("killed; within 5 s its watchdog has resumed the queue", flush=True)

    def active(self) -> int:
        """How many jobs run; 0 before the producer has created the queue."""
        (snapshot,) = read_snapshots(self.client, [QueueKeys("bull", QUEUE)])
        return snapshot.counts.active if isinstance(snapshot, QueueSnapshot) else 0

    def snapshot(self) -> QueueSnapshot:
        (snapshot,) = read_snapshots(self.client, [QueueKeys("bull", QUEUE)])
        assert isinstance(snapshot, QueueSnapshot)
        return snapshot

    def finish(self) -> dict[str, int]:
        """Stop the producer, let the rest run, and count the starts of each job."""
        self.producer.terminate()
        self.producer.wait(10)
        wait_until(self._is_idle, "the remaining jobs to run", timeout_s=120)
        starts = Counter(row["id"] for row in runs(self.client, QUEUE) if row["ev"] == "start")
        done = self.snapshot().counts
        return {
            "jobs": len(starts),
            "completed": done.completed,
            "failed": done.failed,
            "started more than once": sum(count > 1 for count in starts.values()),
        }

    def _is_idle(self) -> bool:
        snapshot = self.snapshot()
        return snapshot.backlog + snapshot.counts.active == 0

    def close(self) -> None:
        if self.producer.poll() is None:
            self.producer.kill()
            self.producer.wait()
        self.client.close()


@contextlib.contextmanager
def open_stage() -> Iterator[Stage]:
    """Everything started, and ended afterwards."""
    print("installing BullMQ and PM2 from npm, starting Redis, PM2 and a producer …", flush=True)
    install_node_modules()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis = RedisServer(Path(folder)).start()
        stack.callback(redis.stop)
        pm2 = Pm2()
        stack.callback(pm2.kill)
        yield stack.enter_context(contextlib.closing(Stage(redis, pm2)))


def main() -> int:
    with open_stage() as stage:
        running = "five jobs to be running"
        wait_until(lambda: stage.active() == 5, running, timeout_s=30)
        codes = [stage.qctl("status"), stage.qctl(DRAIN)]
        wait_until(lambda: stage.active() == 5, running, timeout_s=30)
        stage.kill_in_the_middle()
        codes.append(stage.qctl(f"{DRAIN} --json"))
        codes.append(stage.qctl("status"))
        tally = stage.finish()
    print(f"\nwhat the worker itself wrote down: {json.dumps(tally)}")
    proved = not any(codes) and not tally["failed"] and not tally["started more than once"]
    proved = proved and tally["jobs"] == tally["completed"]
    print("proved: every job ran exactly once" if proved else "NOT PROVED: see above")
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
