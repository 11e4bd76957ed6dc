"""Find the server that holds a queue: the named one, a sentinel's master, or a cluster's node."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from qctl.connection.address import Address


async def locate(address: Address, key: str) -> Address:
    """The address of the one server to connect to. Asks sentinels or the cluster each time.

    Args:
        key: a key of the queue; all keys of a queue are on one node of a cluster.

    Raises:
        UnreachableError: no sentinel or no node answers.
    """
    if address.mode == "standalone":
        return address
    find = _find_in_cluster if address.mode == "cluster" else _find_master
    host, port = await asyncio.get_running_loop().run_in_executor(None, find, address, key)
    return replace(address, mode="standalone", host=host, port=port, nodes=())


def _find_in_cluster(address: Address, key: str) -> tuple[str, int]:
    from qctl.connection.cluster import ClusterClient  # noqa: PLC0415 - only cluster users need it

    client = ClusterClient(address)
    try:
        return client.node_of(key)
    finally:
        client.close()


def _find_master(address: Address, _: str) -> tuple[str, int]:
    from qctl.connection.sentinel import find_master  # noqa: PLC0415 - only sentinel users need it

    return find_master(address)
