"""Find queues that share worker processes with the given queues, by the workers' addresses."""

from __future__ import annotations

from collections.abc import Collection

from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import ForeignWorker, list_all_workers

_LOCAL = ("127.", "[::1]")


def queues_beside(
    client: Client, db: int, queues: Collection[QueueKeys]
) -> tuple[list[QueueKeys], list[ForeignWorker]]:
    """Other queues that share a process, container or host with one of ``queues``.

    On this host, the process of each connection is known. Workers elsewhere are compared by IP
    address: each container or pod has its own, but all processes on one machine share an address.

    Returns:
        queues of this database, and workers in other databases or of unknown queues.
    """
    from qctl.manage.host import pids_by_endpoint  # noqa: PLC0415 - psutil costs 30 ms

    connected = list_all_workers(client, queues, db)
    if connected is None:
        return [], []
    # Read the pids after the workers, so that the pid of even the newest worker is known.
    pids = pids_by_endpoint()

    def place(address: str) -> str | int:
        # Where a connection comes from: a process of this host, or an IP address.
        pid = pids.get(address)
        if pid is not None:
            return pid
        # If the process of a local connection is unknown, the connection is a place of its own.
        return address if address.startswith(_LOCAL) else address.rpartition(":")[0]

    workers = [(place(worker.address), worker.keys) for worker in connected.workers]
    here = {where for where, keys in workers if keys in queues}
    beside = {keys for where, keys in workers if where in here and keys not in queues}
    foreign = {worker for address, worker in connected.foreign if place(address) in here}
    return sorted(beside), sorted(foreign)
