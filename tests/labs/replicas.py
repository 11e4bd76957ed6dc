"""A master, its replica and a sentinel."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.wire.replies import to_dict
from tests.labs.servers import RedisServer, wait_until


def in_step_at(master: RedisServer, replica: RedisServer) -> float | None:
    """Whether a replica has all that its master acknowledged until this moment.

    Returns:
        the moment, in seconds since 1970; None if the replica lacks some, or follows another, or
        if one of them cannot be asked.
    """
    with (
        contextlib.suppress(QctlError),
        contextlib.closing(connect(master.url)[1]) as first,
        contextlib.closing(connect(replica.url)[1]) as second,
    ):
        at = time.time()
        of_master, of_replica = first.call("ROLE"), second.call("ROLE")
        if of_master[0] == "master" and of_replica[0] == "slave":
            _, _, port, link, offset = of_replica
            if port == master.port and link == "connected" and offset >= of_master[1]:
                return at
    return None


def command_until_done(server: RedisServer, *words: str | int) -> None:
    """Send a server a command, again if the connection is cut."""

    def is_done() -> bool:
        with contextlib.suppress(QctlError), contextlib.closing(connect(server.url)[1]) as admin:
            admin.call(*words)
            return True
        return False

    wait_until(is_done, f"a server to accept {words}")


def await_in_step(master: RedisServer, replica: RedisServer) -> float:
    """Wait until a replica has all that its master acknowledged until a moment; that moment."""
    what = "the replica to be in step"
    at = wait_until(lambda: in_step_at(master, replica), what, timeout_s=60)
    assert at is not None
    return at


@dataclass
class Pair:
    """A master, its replica, and the sentinel that watches them."""

    master: RedisServer
    replica: RedisServer
    url: str
    sentinel: Client

    def await_replica(self) -> None:
        """Wait until the replica has all that was written to the master."""
        with contextlib.closing(connect(self.master.url)[1]) as client:
            client.pipeline([("SET", "written", 1), ("DEL", "written")])
            wait_until(lambda: client.call("WAIT", 1, 1000), "the replica to be in step")

    def fail_over(self) -> None:
        """Promote the replica when it is in step, and wait until the sentinel names it."""
        self.await_replica()
        self.sentinel.call("SENTINEL", "FAILOVER", "main")
        self.await_failover()

    def await_failover(self) -> None:
        """Wait until the sentinel names the replica as the master."""

        def is_over() -> bool:
            row = to_dict(self.sentinel.call("SENTINEL", "MASTER", "main"))
            return row["port"] == str(self.replica.port)

        wait_until(is_over, "the failover", timeout_s=60)


@pytest.fixture
def pair(start_redis: Callable[..., RedisServer]) -> Iterator[Pair]:
    """A master and its replica, which is in step, and a sentinel that knows both."""
    master = start_redis("--repl-diskless-sync-delay", "0")
    replica = start_redis("--replicaof", "127.0.0.1", str(master.port))
    watching = start_redis(sentinel_of={"main": ("127.0.0.1", master.port)})
    with contextlib.closing(connect(watching.url.removesuffix("/0"))[1]) as sentinel:

        def is_known() -> bool:
            rows = map(to_dict, sentinel.call("SENTINEL", "REPLICAS", "main"))
            return any(row["master-link-status"] == "ok" for row in rows)

        wait_until(is_known, "the sentinel to know the replica", timeout_s=30)
        url = f"redis+sentinel://127.0.0.1:{watching.port}/main/0"
        pair = Pair(master, replica, url, sentinel)
        # The replica's link can be up before the master streams to it.
        pair.await_replica()
        yield pair
        os.kill(replica.pid, signal.SIGCONT)
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if "qctl.ops.drain.watchdog" in child.cmdline():
                    # It would wait for this Redis for some minutes.
                    child.kill()
