"""Which managed process holds which worker: by its connection's address, else by its heartbeat."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping, Sequence

from qctl.config.settings import TargetConfig
from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.manage.protocol import ManagedProcess
from qctl.wire.read import heartbeats
from qctl.wire.read.clients import WorkerClient


def holders(
    client: Client,
    prefix: str,
    workers: Sequence[WorkerClient],
    processes: Sequence[ManagedProcess],
) -> dict[int, ManagedProcess]:
    """Client id of a worker's connection → the process that holds it, or whose child does.

    A worker on another host, in a container, behind a proxy or NAT is not matched. Nor is one on a
    unix socket, unless it is one of qctl's own, whose heartbeats say where they run.
    """
    addresses = by_address(processes)
    found = {w.client_id: addresses[w.address] for w in workers if w.address in addresses}
    rest = [worker for worker in workers if worker.client_id not in found]
    ours = {p.pid: p for p in processes if p.pid and p.target.startswith("qctl:")}
    if rest and ours:
        names = _named(client, prefix, ours)
        for worker in rest:
            process = names.get((worker.queue, worker.worker_name))
            if process is not None:
                found[worker.client_id] = process
    return found


def _named(
    client: Client, prefix: str, processes: dict[int, ManagedProcess]
) -> dict[tuple[str, str | None], ManagedProcess]:
    """Queue and name of qctl's own workers → the process in which they say they run."""
    host = socket.gethostname()
    try:
        beats = heartbeats.read_all(client, prefix)
    except ReplyError:
        # Who may see the queues need not be allowed to see qctl's keys.
        return {}
    return {
        (beat.queue, beat.name): processes[beat.pid]
        for beat in beats
        if beat.host == host and beat.pid in processes
    }


def by_address(processes: Sequence[ManagedProcess]) -> dict[str, ManagedProcess]:
    """The address of each connection, as CLIENT LIST has it, that one of the processes holds."""
    from qctl.manage.sockets import local_endpoints  # noqa: PLC0415 - psutil costs 30 ms

    by_pid = {process.pid: process for process in processes if process.pid}
    return {address: by_pid[pid] for address, pid in local_endpoints(list(by_pid)).items()}


def queues_served(
    workers: Iterable[WorkerClient], holders: dict[int, ManagedProcess]
) -> dict[str, set[str]]:
    """Process key → names of the queues whose workers it holds; only processes that hold one."""
    served: dict[str, set[str]] = {}
    for worker in workers:
        process = holders.get(worker.client_id)
        if process is not None:
            served.setdefault(process.key, set()).add(worker.queue)
    return served


def serving(
    processes: Iterable[ManagedProcess],
    connected: Mapping[str, Collection[str]],
    targets: Iterable[TargetConfig],
    names: Collection[str],
) -> dict[ManagedProcess, frozenset[str]]:
    """The running processes that serve any of these queues, with the names of these queues.

    Args:
        connected: see ``queues_served``.
        targets: what the config says that processes serve; it counts as well.
    """
    configured: dict[str, set[str]] = {}
    for target in targets:
        configured.setdefault(target.process, set()).update(target.queues)
    found = {}
    for process in processes:
        served = {*connected.get(process.key, ()), *configured.get(process.target, ())}
        if process.pid and served & set(names):
            found[process] = frozenset(served & set(names))
    return found
