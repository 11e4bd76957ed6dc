"""The Redis of a round: one server, or several of which one takes over when another dies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.wire.replies import to_dict
from tests.labs.clusters import QUICK_MS, Cluster, Move, Replicated, open_replicated
from tests.labs.replicas import await_in_step, command_until_done, in_step_at
from tests.labs.servers import RedisServer, wait_until

# In braces: in a cluster, all keys of a queue must be on one node.
CLUSTER_PREFIX = "{bull}"
_TAG = "bull"
# After how long a silent server counts as dead, in milliseconds: long, because this machine may
# stand still for seconds, and because of faults that stop a Redis. If another server took over
# unnoticed, the old one would acknowledge writes for 10 s which are lost then.
_PATIENT_MS = 30_000


class Several:
    """Servers that watch each other.

    Attributes:
        url: how clients find the one that is in charge.
        node_env: the same for the tests' Node processes.
    """

    url: str
    node_env: str

    def in_charge(self) -> RedisServer:
        """The server that has the queue now."""
        raise NotImplementedError

    def crash(self) -> tuple[float, float] | None:
        """Kill the server that has the queue, and wait for another to take over.

        Returns:
            from when to when it acknowledged writes that may be lost, in seconds since 1970; None
            if no write is lost.
        """
        raise NotImplementedError

    def hand_over(self) -> tuple[float, float] | None:
        """Let another server take over in agreement; returns the same as ``crash``."""
        raise NotImplementedError

    def heal(self) -> None:
        """Start what was killed, and wait until another can take over again."""
        raise NotImplementedError


class Watched(Several):
    """A master, its replica, and a sentinel."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = ("--repl-diskless-sync-delay", "0", *options)
        first, second = self._servers = [
            RedisServer(folder / name, *self._options).start() for name in ("a", "b")
        ]
        _follow(second, first)
        watched = {"main": ("127.0.0.1", first.port)}
        self._sentinel = RedisServer(folder / "sentinel", sentinel_of=watched).start()
        self.url = f"redis+sentinel://127.0.0.1:{self._sentinel.port}/main/0"
        self.node_env = f"sentinel:{self._sentinel.port}"
        self._asking = connect(self._sentinel.url.removesuffix("/0"))[1]
        self._set("failover-timeout", 3000)
        self.heal()

    def _set(self, option: str, ms: int) -> None:
        self._asking.call("SENTINEL", "SET", "main", option, ms)

    def in_charge(self) -> RedisServer:
        row = to_dict(self._asking.call("SENTINEL", "MASTER", "main"))
        return next(server for server in self._servers if str(server.port) == row["port"])

    def _other(self) -> RedisServer:
        master = self.in_charge()
        return next(server for server in self._servers if server is not master)

    def crash(self) -> tuple[float, float]:
        old, new = self.in_charge(), self._other()
        in_step = await_in_step(old, new)
        self._set("down-after-milliseconds", QUICK_MS)
        old.kill()
        killed = time.time()
        wait_until(lambda: self.in_charge() is new, "the failover", timeout_s=60)
        return in_step, killed

    def hand_over(self) -> tuple[float, float]:
        old, new = self.in_charge(), self._other()
        in_step = wait_until(
            lambda: self._ask_for_failover(old, new),
            "the sentinel to agree", timeout_s=30, every_s=0.2,
        )  # fmt: skip
        assert in_step is not None
        wait_until(lambda: self.in_charge() is new, "the failover", timeout_s=60)
        # Until then, the old master goes on to acknowledge. The sentinel would do it 10 s later.
        _follow(old, new)
        over = time.time()
        # So that clients do not go on to read from it; this, too, the sentinel does.
        for kind in ("normal", "pubsub"):
            command_until_done(old, "CLIENT", "KILL", "TYPE", kind)
        return in_step, over

    def _ask_for_failover(self, old: RedisServer, new: RedisServer) -> float | None:
        in_step = await_in_step(old, new)
        # It may not know yet that the replica is back.
        with contextlib.suppress(QctlError):
            self._asking.call("SENTINEL", "FAILOVER", "main")
            return in_step
        return None

    def heal(self) -> None:
        master, other = self.in_charge(), self._other()
        if not other.is_running:
            # As a master, it could acknowledge something to a late client, and forget it.
            other.args = (*self._options, "--replicaof", "127.0.0.1", str(master.port))
            other.start()
        wait_until(self._is_whole, "a master and a replica in step", timeout_s=60, every_s=0.1)
        self._set("down-after-milliseconds", _PATIENT_MS)

    def _is_whole(self) -> bool:
        rows = map(to_dict, self._asking.call("SENTINEL", "REPLICAS", "main"))
        return (
            any(row["flags"] == "slave" for row in rows)
            and in_step_at(self.in_charge(), self._other()) is not None
        )

    def close(self) -> None:
        self._asking.close()
        for server in (self._sentinel, *self._servers):
            server.stop()


class Clustered(Several):
    """Three masters of a cluster, with a replica each."""

    def __init__(self, replicated: Replicated) -> None:
        self._replicated = replicated
        self.url = replicated.url
        ports = ",".join(str(server.port) for server in replicated.servers)
        self.node_env = f"cluster:{ports}"

    def in_charge(self) -> RedisServer:
        return self._replicated.nodes_of(_TAG)[0]

    def crash(self) -> tuple[float, float]:
        return self._replicated.crash(_TAG)

    def hand_over(self) -> None:
        self._replicated.fail_over(_TAG)

    def heal(self) -> None:
        self._replicated.heal()
        self._replicated.set_timeout(_PATIENT_MS)

    def move_slot(self, chance: Random) -> None:
        """Move the queue's slot to another master, key by key."""
        ports = {
            node.call("CONFIG", "GET", "port")[1] for node in self._replicated.client.masters()
        }
        masters = [server for server in self._replicated.servers if str(server.port) in ports]
        with Move(Cluster(self._replicated.client, masters), _TAG) as move:
            while keys := move.left():
                move.carry(keys[: max(len(keys) // 4, 1)])
                time.sleep(chance.uniform(0, 0.1))


def _follow(replica: RedisServer, master: RedisServer) -> None:
    command_until_done(replica, "REPLICAOF", "127.0.0.1", master.port)


@contextlib.contextmanager
def _watched(folder: Path, options: tuple[str, ...]) -> Iterator[Several]:
    with contextlib.closing(Watched(folder, *options)) as watched:
        yield watched


@contextlib.contextmanager
def _clustered(folder: Path, options: tuple[str, ...]) -> Iterator[Several]:
    with open_replicated(folder, *options) as servers:
        replicated = Replicated(servers)
        with contextlib.closing(replicated.client):
            clustered = Clustered(replicated)
            clustered.heal()
            yield clustered


# By the kind of Redis.
SEVERAL: dict[
    str, Callable[[Path, tuple[str, ...]], contextlib.AbstractContextManager[Several]]
] = {"sentinel": _watched, "cluster": _clustered}
