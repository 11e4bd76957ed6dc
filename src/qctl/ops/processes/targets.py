"""Find the processes that ``MANAGER:NAME`` names, or all on this host, and the queues of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qctl.config.settings import Settings
from qctl.connection.address import Client
from qctl.errors import FailedError, NotFoundError, UsageError
from qctl.manage.protocol import ManagedProcess, Manager
from qctl.ops.processes.attribution import by_address, holders
from qctl.similar import similar_names
from qctl.wire.read.clients import (
    ForeignWorker,
    WorkerClient,
    list_foreign,
    list_workers,
    why_unknown,
)

# A command that only shows information waits this long for a PM2 that hangs.
PM2_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """Processes to restart, all of one app.

    Args:
        label: ``pm2:worker``.
        processes: the processes of the app, except those that are stopped or stopping.
        configured: names of the queues that they serve according to the config.
    """

    label: str
    manager: Manager
    processes: tuple[ManagedProcess, ...]
    configured: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connections:
    """The workers that are connected to Redis.

    Args:
        workers: all workers under this prefix.
        owned: process key → its workers; without the processes whose workers cannot be matched.
        foreign: process key → its workers under other prefixes or databases.
    """

    workers: Sequence[WorkerClient]
    owned: Mapping[str, Sequence[WorkerClient]]
    foreign: Mapping[str, Sequence[ForeignWorker]]

    def queues_of(self, processes: Sequence[ManagedProcess]) -> set[str]:
        """Names of the queues that these processes serve."""
        return {worker.queue for p in processes for worker in self.owned.get(p.key, ())}

    def elsewhere(self, processes: Sequence[ManagedProcess]) -> list[str]:
        """Describe the queues that these processes serve under other prefixes or databases."""
        return sorted({str(each) for p in processes for each in self.foreign.get(p.key, ())})


def manager_for(kind: str, settings: Settings) -> Manager:
    """The process manager of this kind, the first part of ``MANAGER:NAME``.

    Raises:
        UsageError: qctl does not know the manager.
    """
    if kind == "pm2":
        from qctl.manage.pm2.manager import Pm2  # noqa: PLC0415 - only the manager in use is loaded

        return Pm2(settings.pm2_home)
    if kind == "qctl":
        from qctl.manage.qctl.manager import Qctl  # noqa: PLC0415

        return Qctl(settings.state_home)
    raise UsageError(
        f"qctl cannot restart processes of {kind!r}",
        why="it knows pm2 and qctl",
        hint="name the target as pm2:NAME (see `pm2 ls`) or qctl:NAME (see `qctl worker list`)",
    )


def open_target(settings: Settings, text: str) -> Target:
    """Find the target named by ``text``: ``MANAGER:NAME`` or a name from ``[targets.NAME]``.

    Raises:
        NotFoundError: there is no such target.
        UsageError: qctl does not know the manager.
        FailedError: all processes of the target are stopped or stopping.
        UnreachableError: the manager does not run.
    """
    configured = {target.name: target for target in settings.targets}
    process = configured[text].process if text in configured else text
    kind, separator, name = process.partition(":")
    if not separator or not name:
        known = ", ".join(sorted(configured)) or "none are configured"
        near = similar_names(text, configured)
        raise NotFoundError(
            f"no target {text!r}",
            why=f"configured targets: {known}",
            hint=f"did you mean {near[0]}?"
            if near
            else "a target is MANAGER:NAME, for example pm2:worker; `pm2 ls` shows the names",
        )
    manager = manager_for(kind, settings)
    # At least one: ``find`` raises if there is none.
    found = manager.find(name)
    not_stopped = tuple(p for p in found if p.status not in {"stopped", "stopping"})
    if not not_stopped:
        raise FailedError(
            f"{process} is {found[0].status}, so there is nothing to drain or restart",
            hint=f"pm2 start {found[0].key}" if kind == "pm2" else "qctl worker list",
        )
    queues = {queue for t in settings.targets if t.process == process for queue in t.queues}
    return Target(not_stopped[0].target, manager, not_stopped, tuple(sorted(queues)))


def listed_workers(
    client: Client, prefix: str, db: int, queues: Iterable[str] = (), *, or_else: str = ""
) -> list[WorkerClient]:
    """The workers as ``list_workers`` reads them, where a restart cannot be proved without them.

    Args:
        or_else: what the operator can do instead, for the hint.

    Raises:
        FailedError: Redis does not list the connected workers.
    """
    workers = list_workers(client, prefix, queues, db)
    if workers is None:
        what, hint = why_unknown(prefix, client)
        why = "so qctl cannot prove that the new workers are connected"
        raise FailedError(what, why=why, hint=f"{hint}{or_else}")
    return workers


def read_connections(
    client: Client, settings: Settings, db: int, processes: Sequence[ManagedProcess]
) -> Connections:
    """Read the connected workers, and which of these processes each worker belongs to.

    Raises:
        FailedError: Redis does not list the connected workers, so no restart can be proved.
    """
    workers = listed_workers(client, settings.prefix, db)
    found = holders(client, settings.prefix, workers, processes)
    owned: dict[str, list[WorkerClient]] = {}
    for worker in workers:
        if worker.client_id in found:
            owned.setdefault(found[worker.client_id].key, []).append(worker)
    foreign: dict[str, list[ForeignWorker]] = {}
    addresses = by_address(processes)
    for address, worker_elsewhere in list_foreign(client, settings.prefix, db):
        if address in addresses:
            foreign.setdefault(addresses[address].key, []).append(worker_elsewhere)
    return Connections(workers, owned, foreign)


def managed_processes(
    settings: Settings, *, pm2_timeout_s: float = PM2_TIMEOUT_S
) -> tuple[Sequence[ManagedProcess], tuple[str, ...]]:
    """The processes that PM2 and qctl run on this host, and a remark if PM2's cannot be read.

    This never starts PM2.
    """
    processes, remarks = _pm2_processes(settings, pm2_timeout_s)
    if not (settings.state_home / "workers").exists():
        return processes, remarks
    from qctl.manage.qctl.manager import Qctl  # noqa: PLC0415 - only where there are some

    return [*processes, *Qctl(settings.state_home).processes()], remarks


def _pm2_processes(
    settings: Settings, timeout_s: float
) -> tuple[Sequence[ManagedProcess], tuple[str, ...]]:
    if not (settings.pm2_home / "rpc.sock").exists():
        return (), ()
    try:
        from qctl.manage.pm2.manager import Pm2  # noqa: PLC0415 - only where PM2 runs

        return Pm2(settings.pm2_home, timeout_s=timeout_s).processes(), ()
    except Exception as error:
        # The queues are in Redis: a failure of PM2 must not hide them.
        why = getattr(error, "why", "")
        return (), (f"no PM2 processes shown: {error}" + (f" ({why})" if why else ""),)


def targets_serving(
    settings: Settings,
    connections: Connections | None,
    processes: Sequence[ManagedProcess],
    queues: Collection[str],
) -> set[str]:
    """Labels of the targets that serve one of these queues, by the config or by their workers.

    Args:
        connections: the connected workers; None if unknown: then only the config counts.
        queues: names of queues; if empty, every target with a connected worker is returned.
    """
    wanted = set(queues)
    labels = {target.process for target in settings.targets if wanted & set(target.queues)}
    for process in processes:
        served = connections.queues_of([process]) if connections else set()
        if served & wanted or (served and not wanted):
            labels.add(process.target)
    return labels
