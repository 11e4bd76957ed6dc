"""A PM2 daemon in a home of its own: changed through its command line, read through its socket."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from qctl.connection.address import Client
from qctl.errors import ManagerUnreachableError
from qctl.manage.pm2 import rpc
from qctl.wire.read.clients import list_workers
from tests.labs.node import HERE, MODULES, node, node_env
from tests.labs.servers import wait_until


@dataclass(frozen=True)
class Row:
    """The fields of PM2's list that the tests read; never the environment."""

    name: str
    pm_id: int
    pid: int
    status: str
    restarts: int
    mode: str
    namespace: str
    unstable: int


class Pm2:
    """One private PM2. ``home`` is its PM2_HOME; ``env`` what a client of it needs."""

    def __init__(self) -> None:
        # The daemon's unix sockets need a short path.
        self.home = Path(tempfile.mkdtemp(prefix="qpm2-", dir="/tmp"))
        self.env = node_env(
            {
                "PM2_HOME": str(self.home),
                "PM2_DISABLE_VERSION_CHECK": "true",
                "PM2_DISCRETE_MODE": "true",
            }
        )
        self._starter: subprocess.Popen[str] | None = None

    def run(self, *args: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """``pm2 ARGS``; its stdout."""
        done = subprocess.run(
            [*node(), str(MODULES / "pm2/bin/pm2"), *args],
            env=self.env, cwd=self.home, capture_output=True, text=True,
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode != 0:
            pytest.fail(f"pm2 {args[0]} failed: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout

    def start(
        self,
        name: str,
        script: str | Path = "worker.js",
        env: Mapping[str, object] = {},
        *,
        instances: int = 1,
        cluster: bool = False,
        online: bool = True,
        **options: Any,
    ) -> list[Row]:
        """Start an app and wait until all its processes are online.

        Args:
            script: a file beside this one, or a path.
            env: the app's environment.
            online: False returns at once, for apps that crash.
            options: of the ecosystem file, e.g. ``kill_timeout=30000``, ``namespace="jobs"``.
        """
        app = {
            "name": name,
            "script": str(HERE / script),
            "cwd": str(HERE),
            "env": {key: str(value) for key, value in env.items()},
            "instances": instances,
            "exec_mode": "cluster" if cluster else "fork",
            **options,
        }
        file = self.home / f"{name}.config.json"
        file.write_text(json.dumps({"apps": [app]}))
        self._start(file)
        if online:
            self.wait_online(name, instances)
        return self.rows(name)

    def _start(self, file: Path) -> None:
        """``pm2 start FILE``; the command starts the daemon, too."""
        if not self._ask("getVersion", {}):
            self.run("start", str(file))
            return
        if self._starter is None:
            self._starter = subprocess.Popen(
                [*node(), str(HERE / "pm2_start.js")], env=self.env, cwd=self.home, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.write(f"{file}\n")
        self._starter.stdin.flush()
        if not select.select([self._starter.stdout], [], [], 60)[0]:
            pytest.fail("pm2 start: no answer within 60 s")
        answer = self._starter.stdout.readline()
        if answer != "null\n":
            pytest.fail(f"pm2 start failed: {answer}")

    def rows(self, name: str = "") -> list[Row]:
        """Its processes, or those of one app. Read from its socket: `pm2 jlist` takes 0.5 s."""
        return [
            Row(
                name=item["name"],
                pm_id=item["pm_id"],
                pid=item["pid"] or 0,
                status=item["pm2_env"]["status"],
                restarts=item["pm2_env"]["restart_time"],
                mode=item["pm2_env"]["exec_mode"],
                namespace=item["pm2_env"]["namespace"],
                unstable=item["pm2_env"]["unstable_restarts"],
            )
            for item in self._ask("getMonitorData", {})
            if name in {"", item["name"]}
        ]

    def _ask(self, method: str, *args: object) -> list[Any]:
        """The daemon's answer; an empty list when no daemon runs."""
        with contextlib.suppress(ManagerUnreachableError):
            answer: list[Any] = rpc.call(self.home / "rpc.sock", method, *args, timeout_s=60)[0]
            return answer
        return []

    def pid(self, name: str) -> int:
        """The pid of an app's first process."""
        rows = self.rows(name)
        assert rows, f"PM2 has no app {name}"
        return rows[0].pid

    def wait_online(self, name: str, instances: int = 1) -> None:
        def online() -> bool:
            rows = self.rows(name)
            return len(rows) >= instances and all(r.status == "online" and r.pid for r in rows)

        wait_until(online, f"PM2 to show {name} online", timeout_s=30, every_s=0.1)

    def wait_worker(
        self, client: Client, queue: str, *, count: int = 1, prefix: str = "bull"
    ) -> None:
        """Wait until Redis lists this many workers of a queue."""

        def listed() -> bool:
            workers = list_workers(client, prefix) or []
            return sum(worker.queue == queue for worker in workers) >= count

        wait_until(listed, f"{count} worker(s) of {queue} in CLIENT LIST", timeout_s=30)

    def delete(self, name: str) -> None:
        self.run("delete", name)

    def delete_all(self) -> None:
        """Stop and forget all apps, at the same time."""
        ids = [row.pm_id for row in self.rows()]
        if ids:
            with ThreadPoolExecutor(len(ids)) as pool:
                list(pool.map(lambda pm_id: self._ask("deleteProcessId", pm_id), ids))

    def log(self, name: str, stream: str = "error") -> str:
        """What an app wrote; ``stream`` is ``out`` or ``error``."""
        files = sorted((self.home / "logs").glob(f"{name}-{stream}*.log"))
        return "".join(file.read_text(errors="replace") for file in files)

    def kill(self) -> None:
        """End the daemon, its apps and their children, and remove its home."""
        if self._starter is not None:
            try:
                self._starter.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                self._starter.kill()
                self._starter.communicate()
            self._starter = None
        family = self._family()
        if family:
            with contextlib.suppress(subprocess.TimeoutExpired, pytest.fail.Exception):
                self.run("kill", timeout_s=20, check=False)
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)
        shutil.rmtree(self.home, ignore_errors=True)

    def _family(self) -> list[psutil.Process]:
        """The daemon and all that descends from it, by the pid it wrote down."""
        try:
            daemon = psutil.Process(int((self.home / "pm2.pid").read_text()))
            # The system may have given the pid to another process.
            if str(self.home) not in " ".join(daemon.cmdline()):
                return []
            return [daemon, *daemon.children(recursive=True)]
        except (OSError, ValueError, psutil.Error):
            return []
