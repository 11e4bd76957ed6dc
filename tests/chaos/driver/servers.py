"""The Redis of a round: one server, or several of which one takes over when another dies."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.wire.replies import to_dict
from tests.labs.clusters import Cluster, Move, Replicated, open_replicated
from tests.labs.servers import RedisServer, wait_until

# In braces: in a cluster, all keys of a queue must be on one node.
CLUSTER_PREFIX = "{bull}"
_TAG = "bull"
# How late a replica is at most, in seconds.
LAG_S = 1.0


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

    def crash(self) -> float:
        """Kill the server that has the queue, and wait for another to take over.

        Returns:
            from when on writes may be lost, in seconds since 1970.
        """
        raise NotImplementedError

    def hand_over(self) -> float:
        """Let another server take over in agreement.

        Returns:
            as ``crash``; infinity if no write is lost.
        """
        raise NotImplementedError

    def heal(self) -> None:
        """Start what was killed, and wait until another can take over again."""
        raise NotImplementedError


class Watched(Several):
    """A master, its replica, and a sentinel."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._servers = [
            RedisServer(folder / name, "--repl-diskless-sync-delay", "0", *options).start()
            for name in ("a", "b")
        ]
        first, second = self._servers
        with contextlib.closing(connect(second.url)[1]) as admin:
            admin.call("REPLICAOF", "127.0.0.1", first.port)
        watched = {"main": ("127.0.0.1", first.port)}
        self._sentinel = RedisServer(folder / "sentinel", sentinel_of=watched).start()
        self.url = f"redis+sentinel://127.0.0.1:{self._sentinel.port}/main/0"
        self.node_env = f"sentinel:{self._sentinel.port}"
        self._asking = connect(self._sentinel.url.removesuffix("/0"))[1]
        for option, ms in (("down-after-milliseconds", 1000), ("failover-timeout", 3000)):
            self._asking.call("SENTINEL", "SET", "main", option, ms)
        self.heal()

    def in_charge(self) -> RedisServer:
        row = to_dict(self._asking.call("SENTINEL", "MASTER", "main"))
        return next(server for server in self._servers if str(server.port) == row["port"])

    def crash(self) -> float:
        old = self.in_charge()
        began = time.time()
        old.kill()
        wait_until(lambda: self.in_charge() is not old, "the failover", timeout_s=60)
        return began - LAG_S

    def hand_over(self) -> float:
        old = self.in_charge()
        # Until it hears of it, the old master goes on to acknowledge.
        began = time.time()
        wait_until(self._asks_for_failover, "the sentinel to agree", timeout_s=30, every_s=0.2)
        wait_until(lambda: self.in_charge() is not old, "the failover", timeout_s=60)
        return began - LAG_S

    def _asks_for_failover(self) -> bool:
        # It may not know yet that the replica is back.
        with contextlib.suppress(QctlError):
            self._asking.call("SENTINEL", "FAILOVER", "main")
            return True
        return False

    def heal(self) -> None:
        for server in self._servers:
            if not server.is_running:
                server.start()
        wait_until(self._is_whole, "a master and a replica in step", timeout_s=60, every_s=0.1)

    def _is_whole(self) -> bool:
        master = self.in_charge()
        (other,) = (server for server in self._servers if server is not master)
        with (
            contextlib.suppress(QctlError),
            contextlib.closing(connect(master.url)[1]) as admin,
            contextlib.closing(connect(other.url)[1]) as second,
        ):
            if second.call("ROLE")[0] == "master":
                # The sentinel would do the same some seconds later.
                second.call("REPLICAOF", "127.0.0.1", master.port)
            rows = map(to_dict, self._asking.call("SENTINEL", "REPLICAS", "main"))
            return (
                admin.call("ROLE")[0] == "master"
                and any(row["flags"] == "slave" for row in rows)
                and bool(admin.call("WAIT", 1, 1000))
            )
        return False

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

    def crash(self) -> float:
        began = time.time()
        self._replicated.crash(_TAG)
        return began - LAG_S

    def hand_over(self) -> float:
        self._replicated.fail_over(_TAG)
        return math.inf

    def heal(self) -> None:
        self._replicated.heal()

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


@contextlib.contextmanager
def _watched(folder: Path, options: tuple[str, ...]) -> Iterator[Several]:
    with contextlib.closing(Watched(folder, *options)) as watched:
        yield watched


@contextlib.contextmanager
def _clustered(folder: Path, options: tuple[str, ...]) -> Iterator[Several]:
    with open_replicated(folder, *options) as servers:
        replicated = Replicated(servers)
        with contextlib.closing(replicated.client):
            replicated.heal()
            yield Clustered(replicated)


# By the kind of Redis.
SEVERAL: dict[
    str, Callable[[Path, tuple[str, ...]], contextlib.AbstractContextManager[Several]]
] = {"sentinel": _watched, "cluster": _clustered}
