"""Find which other queues the processes of some workers serve, by the workers' addresses."""

from __future__ import annotations

from collections.abc import Collection

from qctl.connection.address import Client
from qctl.wire.read.clients import list_foreign, list_workers

_LOCAL = ("127.", "[::1]")


def queues_beside(
    client: Client, prefix: str, db: int, names: Collection[str]
) -> tuple[list[str], list[str]]:
    """Other queues that are served by a process, container or host that serves one of ``names``.

    On this host, the process of each connection is known. Workers elsewhere are compared by IP
    address: each container or pod has its own, but all processes on one machine share an address.

    Returns:
        names of queues under this prefix, and descriptions of queues under another prefix or in
        another database.
    """
    from qctl.manage.host import pids_by_endpoint  # noqa: PLC0415 - psutil costs 30 ms

    pids = pids_by_endpoint()

    def place(address: str) -> str | int:
        # Where a connection comes from: a process of this host, or an IP address.
        pid = pids.get(address)
        if pid is not None:
            return pid
        # If the process of a local connection is unknown, the connection is a place of its own.
        return address if address.startswith(_LOCAL) else address.rpartition(":")[0]

    workers = [(place(w.address), w.queue) for w in list_workers(client, prefix, names, db) or ()]
    here = {where for where, queue in workers if queue in names}
    beside = {queue for where, queue in workers if where in here and queue not in names}
    foreign = {str(w) for address, w in list_foreign(client, prefix, db) if place(address) in here}
    return sorted(beside), sorted(foreign)
