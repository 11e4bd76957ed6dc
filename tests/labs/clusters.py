"""A real Redis Cluster of three masters on this machine, and slots that move between them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from qctl.connection.address import Client
from qctl.connection.cluster import key_slot
from qctl.connection.connect import connect
from tests.labs.servers import RedisServer, wait_until

SLOTS = 16_384
NODES = 3


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A cluster of three masters."""
    servers = [
        RedisServer(
            tmp_path_factory.mktemp("node"),
            *("--cluster-enabled", "yes", "--cluster-node-timeout", "5000"),
        ).start()
        for _ in range(NODES)
    ]
    try:
        _form(servers)
        yield servers
    finally:
        for server in servers:
            server.stop()


def _form(servers: list[RedisServer]) -> None:
    with contextlib.ExitStack() as stack:
        admins = [
            stack.enter_context(contextlib.closing(connect(server.url)[1])) for server in servers
        ]
        for number, admin in enumerate(admins):
            slots = range(SLOTS * number // NODES, SLOTS * (number + 1) // NODES)
            admin.call("CLUSTER", "ADDSLOTS", *slots)
            admin.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            admins[0].call("CLUSTER", "MEET", "127.0.0.1", server.port)

        def agreed() -> bool:
            infos = [admin.call("CLUSTER", "INFO") for admin in admins]
            return all(
                "cluster_state:ok" in info and f"cluster_known_nodes:{NODES}" in info
                for info in infos
            )

        wait_until(agreed, "the cluster to form", timeout_s=30)


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
