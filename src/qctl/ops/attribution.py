"""Which managed process serves which queue: CLIENT LIST → address → process → manager."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qctl.manage.protocol import ManagedProcess
from qctl.wire.clients import WorkerClient


def owners(
    workers: Iterable[WorkerClient], processes: Sequence[ManagedProcess]
) -> list[tuple[WorkerClient, ManagedProcess | None]]:
    """Each worker with the managed process (or one of its children) that holds its connection.

    A worker on another host, in a container, behind a proxy or NAT, or on a unix socket has none.
    """
    holders = by_address(processes)
    return [(worker, holders.get(worker.address)) for worker in workers]


def by_address(processes: Sequence[ManagedProcess]) -> dict[str, ManagedProcess]:
    """The address of each connection, as CLIENT LIST has it, that one of the processes holds."""
    from qctl.manage.sockets import local_endpoints  # noqa: PLC0415 - psutil costs 30 ms

    by_pid = {process.pid: process for process in processes if process.pid}
    return {address: by_pid[pid] for address, pid in local_endpoints(list(by_pid)).items()}


def serving(
    workers: Iterable[WorkerClient], processes: Sequence[ManagedProcess]
) -> dict[str, set[str]]:
    """Process key → names of the queues whose workers it holds; only processes that hold one."""
    served: dict[str, set[str]] = {}
    for worker, process in owners(workers, processes):
        if process is not None:
            served.setdefault(process.key, set()).add(worker.queue)
    return served
