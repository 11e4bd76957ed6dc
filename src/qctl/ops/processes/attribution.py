"""Match workers with managed processes, by the addresses of connections and by heartbeats."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping, Sequence

from qctl.config.settings import Settings
from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.manage.protocol import Identity, ManagedProcess
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.read.clients import ConnectionId, WorkerClient, host_of


def holders(
    client: Client, workers: Sequence[WorkerClient], processes: Sequence[ManagedProcess]
) -> dict[ConnectionId, ManagedProcess]:
    """A worker's connection → the process that holds it, perhaps through a child.

    The address does not show the process of a worker on another host, behind a proxy or NAT, or on
    a unix socket. For qctl's own workers on this host, heartbeats then show the process.
    """
    addresses = by_address(processes, [worker.address for worker in workers])
    found = {w.id: addresses[w.address] for w in workers if w.address in addresses}
    rest = [worker for worker in workers if worker.id not in found]
    ours = {p.pid: p for p in processes if p.pid and p.target.startswith("qctl:")}
    if rest and ours:
        names = _by_heartbeat(client, {worker.keys.prefix for worker in rest}, ours)
        for worker in rest:
            process = names.get((worker.keys, worker.worker_name))
            if process is not None:
                found[worker.id] = process
    return found


def known_holders(
    client: Client, workers: Sequence[WorkerClient], processes: Sequence[ManagedProcess]
) -> tuple[dict[ConnectionId, ManagedProcess], tuple[str, ...]]:
    """Like ``holders``, but a failure becomes a remark, so that the workers are still shown."""
    if not workers or not processes:
        return {}, ()
    try:
        return holders(client, workers, processes), ()
    except Exception as error:
        # psutil raises errors of many kinds, for example if the system denies access.
        return {}, (f"it is unknown which process holds which worker: {error}",)


def _by_heartbeat(
    client: Client, prefixes: Collection[str], processes: dict[int, ManagedProcess]
) -> dict[tuple[QueueKeys, str | None], ManagedProcess]:
    """Queue and name of qctl's own workers → the process that their heartbeats report."""
    host = socket.gethostname()
    try:
        beats = heartbeats.read_all(client, *prefixes)
    except ReplyError:
        # A Redis user that has access to the queues may have no access to qctl's own keys.
        return {}
    return {
        (QueueKeys(beat.prefix, beat.queue), beat.name): processes[beat.pid]
        for beat in beats
        if beat.host == host and beat.pid is not None and beat.pid in processes
    }


def by_address(
    processes: Sequence[ManagedProcess], addresses: Iterable[str]
) -> dict[str, ManagedProcess]:
    """Address of a connection → the process that holds the connection, if it is known.

    Args:
        addresses: the addresses of connections, as in CLIENT LIST.
    """
    from qctl.manage.host import local_endpoints, namespace_addresses  # noqa: PLC0415 - psutil, 30 ms

    by_pid = {process.pid: process for process in processes if process.pid}
    owners = local_endpoints(list(by_pid))
    for pid, process in by_pid.items():
        if process.addresses:
            # Only root can list the connections of another user's process, but any user can list
            # the connections of the process's network namespace.
            owners = dict.fromkeys(namespace_addresses(pid), pid) | owners
    by_host = {host: p for p in processes if not p.pid for host in p.addresses}
    found = {}
    for address in addresses:
        if address in owners:
            found[address] = by_pid[owners[address]]
        elif (host := host_of(address)) in by_host:
            found[address] = by_host[host]
    return found


def children_holding(workers: Iterable[WorkerClient], pid: int) -> set[int]:
    """Pids of those descendants of process ``pid`` that hold the connection of a worker."""
    from qctl.manage.host import local_endpoints, process_tree  # noqa: PLC0415 - psutil is slow

    tree = process_tree(pid)
    if len(tree) == 1:
        return set()
    owners = local_endpoints(tree)
    return {owners[worker.address] for worker in workers if worker.address in owners} - {pid}


def queues_served(
    workers: Iterable[WorkerClient], holders: dict[ConnectionId, ManagedProcess]
) -> dict[Identity, set[QueueKeys]]:
    """Identity of each process that has workers → the queues that the process serves."""
    served: dict[Identity, set[QueueKeys]] = {}
    for worker in workers:
        process = holders.get(worker.id)
        if process is not None:
            served.setdefault(process.identity, set()).add(worker.keys)
    return served


def serving(
    processes: Iterable[ManagedProcess],
    connected: Mapping[Identity, Collection[QueueKeys]],
    settings: Settings,
    queues: Collection[QueueKeys],
) -> dict[ManagedProcess, frozenset[QueueKeys]]:
    """Each running process that serves some of ``queues`` → these queues.

    Args:
        connected: identity of a process → the queues that the process serves now.
        settings: lists queues for targets. Each process of a target counts as serving the queues
            that are listed for the target.
    """
    found = {}
    for process in processes:
        served = configured(settings, process.target, queues)
        served |= set(queues).intersection(connected.get(process.identity, ()))
        if process.runs and served:
            found[process] = frozenset(served)
    return found


def configured(settings: Settings, target: str, queues: Iterable[QueueKeys]) -> set[QueueKeys]:
    """Those of ``queues`` that a target serves according to the config.

    Args:
        target: such as ``pm2:worker``. The config lists its queues as ``NAME`` or ``NAME@PREFIX``.
    """
    words = {word for each in settings.targets if each.process == target for word in each.queues}
    return {
        keys
        for keys in queues
        if f"{keys.name}@{keys.prefix}" in words
        or (keys.name in words and settings.prefixes.include(keys.prefix, keys.name))
    }
