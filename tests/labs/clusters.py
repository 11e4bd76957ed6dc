"""Real Redis Clusters on this machine: slots that move between masters, and masters that fail."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from qctl.connection.address import Client
from qctl.connection.cluster import key_slot
from qctl.connection.connect import connect
from qctl.errors import QctlError
from qctl.wire.read.info import await_replicas
from tests.labs.replicas import await_in_step, command_until_done
from tests.labs.servers import RedisServer, wait_until

SLOTS = 16_384
NODES = 3
# After how long a silent node counts as failed, in milliseconds.
QUICK_MS = 1000


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A cluster of three masters."""
    folder = tmp_path_factory.mktemp("cluster")
    servers = _start(folder, NODES, "--cluster-node-timeout", "5000")
    try:
        _form(servers)
        yield servers
    finally:
        for server in servers:
            server.stop()


def _start(folder: Path, count: int, *more: str) -> list[RedisServer]:
    options = ("--cluster-enabled", "yes", *more)
    # Nodes list a replica once it has received something, by default a ping after up to 10 s.
    replication = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
    return [
        RedisServer(folder / str(number), *options, *replication).start() for number in range(count)
    ]


def _form(masters: list[RedisServer], replicas: Sequence[RedisServer] = ()) -> None:
    """Make a cluster of them; each replica follows the master of its place."""
    with contextlib.ExitStack() as stack:
        admins = [
            stack.enter_context(contextlib.closing(connect(server.url)[1]))
            for server in (*masters, *replicas)
        ]
        for number, admin in enumerate(admins[:NODES]):
            slots = range(SLOTS * number // NODES, SLOTS * (number + 1) // NODES)
            admin.call("CLUSTER", "ADDSLOTS", *slots)
        for number, admin in enumerate(admins):
            admin.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in (*masters[1:], *replicas):
            admins[0].call("CLUSTER", "MEET", "127.0.0.1", server.port)

        def agreed() -> bool:
            infos = [admin.call("CLUSTER", "INFO") for admin in admins]
            return all(
                "cluster_state:ok" in info and f"cluster_known_nodes:{len(admins)}" in info
                for info in infos
            )

        wait_until(agreed, "the cluster to form", timeout_s=30)
        for number, admin in enumerate(admins[NODES:]):
            admin.call("CLUSTER", "REPLICATE", admins[number].call("CLUSTER", "MYID"))


@dataclass
class Cluster:
    client: Client
    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"


@pytest.fixture
def cluster(nodes: list[RedisServer]) -> Iterator[Cluster]:
    """An empty cluster, entered by its second node."""
    with contextlib.closing(connect(f"redis+cluster://127.0.0.1:{nodes[1].port}")[1]) as client:
        for master in client.masters():
            master.call("FLUSHALL")
        yield Cluster(client, nodes)


class Replicated:
    """A cluster of three masters with a replica each; a failover swaps the two.

    Attributes:
        client: goes to all nodes, whatever their roles.
    """

    def __init__(self, servers: list[RedisServer]) -> None:
        self.servers = servers
        nodes = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        self.url = f"redis+cluster://{nodes}"
        self.client = connect(self.url)[1]

    def set_timeout(self, ms: int) -> None:
        """After how long a silent node counts as failed, in milliseconds."""
        for server in self.servers:
            command_until_done(server, "CONFIG", "SET", "cluster-node-timeout", ms)

    def heal(self) -> None:
        """Start what was killed, and wait until each master has a replica that is in step."""
        for server in self.servers:
            if not server.is_running:
                server.start()
        wait_until(self._is_whole, "three masters with a replica each", timeout_s=60)

    def _is_whole(self) -> bool:
        """Whether every node knows all replicas, and they are in step."""
        with contextlib.suppress(QctlError), contextlib.ExitStack() as stack:
            admins = [
                stack.enter_context(contextlib.closing(connect(server.url)[1]))
                for server in self.servers
            ]
            known = [admin.call("CLUSTER", "SLOTS") for admin in admins]
            masters = [admin for admin in admins if admin.call("ROLE")[0] == "master"]
            return (
                all(
                    len({row[2][2] for row in rows}) == NODES and all(len(row) == 4 for row in rows)
                    for rows in known
                )
                and len(masters) == NODES
                and all(await_replicas(master, 1000, at_least=1) for master in masters)
            )
        return False

    def nodes_of(self, tag: str) -> tuple[RedisServer, RedisServer]:
        """Master and replica of a hash tag's slot."""
        slot = key_slot(tag.encode())
        at = {server.port: server for server in self.servers}
        with contextlib.closing(connect(self.url)[1]) as client:
            for first, last, master, replica, *_ in client.call("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return at[master[1]], at[replica[1]]
        raise AssertionError(f"slot {slot} has no replica")

    def fail_over(self, tag: str) -> None:
        """Swap master and replica in agreement, as before maintenance: no write is lost."""
        _, replica = self.nodes_of(tag)
        with contextlib.closing(connect(replica.url)[1]) as admin:
            admin.call("CLUSTER", "FAILOVER")
        self._await_master(tag, replica)

    def crash(self, tag: str) -> tuple[float, float]:
        """Kill the master when its replica has all writes, and wait for the election.

        Returns:
            from when to when it acknowledged what its replica may lack, in seconds since 1970.
        """
        master, replica = self.nodes_of(tag)
        in_step = await_in_step(master, replica)
        self.set_timeout(QUICK_MS)
        master.kill()
        killed = time.time()
        self._await_master(tag, replica)
        return in_step, killed

    def _await_master(self, tag: str, replica: RedisServer) -> None:
        """Wait until all nodes that run know the new master."""
        slot = key_slot(tag.encode())
        with contextlib.ExitStack() as stack:
            admins = [
                stack.enter_context(contextlib.closing(connect(server.url)[1]))
                for server in self.servers
                if server.is_running
            ]
            promoted = stack.enter_context(contextlib.closing(connect(replica.url)[1]))
            name = promoted.call("CLUSTER", "MYID")

            def agreed() -> bool:
                # A test may cut connections.
                with contextlib.suppress(QctlError):
                    infos = [admin.call("CLUSTER", "INFO") for admin in admins]
                    up = all("cluster_state:ok" in info for info in infos)
                    return up and {_owner(admin, slot) for admin in admins} == {name}
                return False

            wait_until(agreed, "the failover", timeout_s=60)


@pytest.fixture(scope="session")
def replicated_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Six nodes: three masters and their replicas."""
    with open_replicated(tmp_path_factory.mktemp("replicated")) as servers:
        yield servers


@contextlib.contextmanager
def open_replicated(folder: Path, *options: str) -> Iterator[list[RedisServer]]:
    """Six nodes with these further options: three masters and their replicas."""
    servers = _start(folder, 2 * NODES, "--cluster-node-timeout", str(QUICK_MS), *options)
    try:
        _form(servers[:NODES], servers[NODES:])
        yield servers
    finally:
        for server in servers:
            server.stop()


@pytest.fixture
def replicated(replicated_nodes: list[RedisServer]) -> Iterator[Replicated]:
    """An empty cluster in which each master has a replica."""
    cluster = Replicated(replicated_nodes)
    with contextlib.closing(cluster.client):
        cluster.heal()
        for master in cluster.client.masters():
            master.call("FLUSHALL")
        yield cluster


class Move:
    """The slot of a hash tag while it moves to the next node; the end of the context ends the move.

    Args:
        tag: without its braces.
    """

    def __init__(self, cluster: Cluster, tag: str) -> None:
        self._slot = key_slot(tag.encode())
        self._stack = contextlib.ExitStack()
        self._admins = [
            self._stack.enter_context(contextlib.closing(connect(node.url)[1]))
            for node in cluster.nodes
        ]
        self._names = [admin.call("CLUSTER", "MYID") for admin in self._admins]
        self._from = self._names.index(_owner(self._admins[0], self._slot))
        self._to = (self._from + 1) % NODES
        self._port = cluster.nodes[self._to].port

    def __enter__(self) -> Move:
        self._target.call("CLUSTER", "SETSLOT", self._slot, "IMPORTING", self._names[self._from])
        self._source.call("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self._names[self._to])
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.carry(self.left())
            for admin in (self._target, self._source, *self._admins):
                admin.call("CLUSTER", "SETSLOT", self._slot, "NODE", self._names[self._to])

            def agreed() -> bool:
                owners = {_owner(admin, self._slot) for admin in self._admins}
                return owners == {self._names[self._to]}

            wait_until(agreed, "all nodes to know of the move")

    @property
    def _source(self) -> Client:
        return self._admins[self._from]

    @property
    def _target(self) -> Client:
        return self._admins[self._to]

    def left(self) -> list[str]:
        """The keys that have not moved, in order."""
        found: list[str] = self._source.call("CLUSTER", "GETKEYSINSLOT", self._slot, 100_000)
        return sorted(found)

    def carry(self, keys: Sequence[str]) -> None:
        """Move some keys."""
        if keys:
            self._source.call(
                "MIGRATE", "127.0.0.1", self._port, "", 0, 5000, "KEYS", *keys
            )  # fmt: skip


def _owner(admin: Client, slot: int) -> str:
    for first, last, master, *_ in admin.call("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return str(master[2])
    return ""
