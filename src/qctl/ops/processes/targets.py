"""Find the processes that ``MANAGER:NAME`` means, and the workers and queues of each process."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from qctl.config.settings import Settings
from qctl.connection.address import Client
from qctl.errors import FailedError, NotFoundError, UsageError
from qctl.manage.kinds import KINDS
from qctl.manage.protocol import Identity, ManagedProcess, Manager, Restarter
from qctl.ops.processes.attribution import by_address, configured, holders
from qctl.ops.processes.managers import known_targets, manager_for
from qctl.ops.processes.stopped import remedy
from qctl.plurals import counted
from qctl.similar import similar_names
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import (
    Connected,
    ForeignWorker,
    WorkerClient,
    Workers,
    is_listed,
    list_all_workers,
    why_unknown,
)


@dataclass(frozen=True, slots=True)
class Target:
    """Processes to restart, all of one app.

    Args:
        label: such as ``pm2:worker``.
        processes: the processes of the app, without any that are stopped or stopping.
        configured: the queues that these processes serve according to the config, each as ``NAME``
            or ``NAME@PREFIX``.
    """

    label: str
    manager: Manager
    processes: tuple[ManagedProcess, ...]
    configured: tuple[str, ...]

    @property
    def name(self) -> str:
        """The manager's name for the target: the label without the kind of the manager."""
        return self.label.partition(":")[2]

    @property
    def restarter(self) -> Restarter:
        """The manager of a target whose processes are restarted one by one."""
        assert isinstance(self.manager, Restarter)  # noqa: S101 - a drain has checked
        return self.manager


@dataclass(frozen=True, slots=True)
class Connections:
    """The workers that are connected to Redis.

    Args:
        workers: all workers of queues in this database, whatever their prefix.
        owned: identity of a process → its workers. Processes without a matched worker are missing.
        foreign: identity of a process → its workers in other databases or of unknown queues.
    """

    workers: Workers
    owned: Mapping[Identity, Sequence[WorkerClient]]
    foreign: Mapping[Identity, Sequence[ForeignWorker]]

    def queues_of(self, processes: Sequence[ManagedProcess]) -> set[QueueKeys]:
        """The queues that these processes serve."""
        return {worker.keys for p in processes for worker in self.owned.get(p.identity, ())}

    def all_owned(self, queues: Collection[QueueKeys]) -> bool:
        """Whether the process of each worker is known.

        Args:
            queues: if not empty, only the workers of these queues count.
        """
        owned = {worker.id for workers in self.owned.values() for worker in workers}
        wanted = [worker for worker in self.workers if not queues or worker.keys in queues]
        return all(worker.id in owned for worker in wanted)

    def elsewhere(self, processes: Sequence[ManagedProcess]) -> list[str]:
        """Describe the workers of these processes in other databases or of unknown queues."""
        return sorted({str(each) for p in processes for each in self.foreign.get(p.identity, ())})


def open_target(settings: Settings, text: str) -> Target:
    """Find the target named by ``text``: ``MANAGER:NAME`` or a name from ``[targets.NAME]``.

    Raises:
        NotFoundError: there is no such target.
        UsageError: qctl does not know the manager, or ``text`` is the name of a group.
        FailedError: all processes of the target are stopped or stopping.
        UnreachableError: the manager does not run.
    """
    if members := settings.group(text):
        raise UsageError(
            f"{text} is a group of {counted(len(members), 'target')}; this command takes only one",
            hint=f"name one of them: {', '.join(members)}",
        )
    configured = {target.name: target for target in settings.targets}
    process = configured[text].process if text in configured else text
    kind, separator, name = process.partition(":")
    if not separator or not name:
        known = ", ".join(sorted(configured)) or "none are configured"
        raise NotFoundError(
            f"no target {text!r}",
            why=f"configured targets: {known}",
            hint=(kind not in KINDS and _nearest(settings, text)) or _form(kind),
        )
    manager = manager_for(kind, settings)
    try:
        # Never empty: ``find`` raises if it finds no process.
        found = manager.find(name)
    except NotFoundError as error:
        hint = _nearest(settings, process) or error.hint
        raise NotFoundError(error.what, why=error.why, hint=hint) from None
    not_stopped = tuple(p for p in found if p.status not in {"stopped", "stopping"})
    if not not_stopped:
        raise FailedError(
            f"{process} is {found[0].status}, so there is nothing to drain or restart",
            hint=remedy(found[0], "start"),
        )
    # A manager may return a longer name, but a configured target keeps its name from the config.
    spelled_out = not_stopped[0].target
    same = [each for each in settings.targets if each.process in {process, spelled_out}]
    label = process if any(each.process == process for each in same) else spelled_out
    processes = tuple(replace(each, target=label) for each in not_stopped)
    queues = {queue for each in same for queue in each.queues}
    return Target(label, manager, processes, tuple(sorted(queues)))


def _form(kind: str) -> str:
    """A hint on the form of a target, with an example for this manager (PM2 if it is unknown)."""
    known = kind if kind in KINDS else "pm2"
    example = "pm2:worker" if known == "pm2" else f"{known}:NAME"
    return f"a target is MANAGER:NAME, for example {example}; `{KINDS[known].listing}` shows names"


def _nearest(settings: Settings, text: str) -> str:
    """A hint with the target, among those of all managers, that is most similar to ``text``.

    "" if none is similar.
    """
    known = known_targets(settings)
    _, separator, name = text.partition(":")
    # The name may be right, although the manager is wrong or missing.
    wanted = name if separator else text
    same = [t for t in known if t.partition(":")[2].removesuffix(":*") == wanted.removesuffix(":*")]
    near = same or similar_names(text, known)
    return f"did you mean {near[0]}?" if near else ""


def listed_workers(
    client: Client, db: int, queues: Iterable[QueueKeys], *, or_else: str = ""
) -> Connected:
    """Like ``list_all_workers``, but raises if Redis does not list the workers.

    Args:
        queues: the queues whose workers must be listed.
        or_else: what the operator can do instead; becomes the end of the error's hint.

    Raises:
        FailedError: Redis does not list the connected workers.
    """
    known = [*queues]
    require_listed(client, known, or_else=or_else)
    connected = list_all_workers(client, known, db)
    if connected is None:
        raise _unlisted(client, "", or_else)
    return connected


def require_listed(client: Client, queues: Iterable[QueueKeys], *, or_else: str = "") -> None:
    """Make sure that Redis can list the workers of these queues; see ``listed_workers``.

    Raises:
        FailedError: a queue has a prefix whose workers Redis cannot list.
    """
    for keys in queues:
        if not is_listed(keys.prefix):
            raise _unlisted(client, keys.prefix, or_else)


def _unlisted(client: Client, prefix: str, or_else: str = "") -> FailedError:
    what, hint = why_unknown(prefix, client)
    why = "so qctl cannot prove that the new workers are connected"
    return FailedError(what, why=why, hint=f"{hint}{or_else}")


def read_connections(
    client: Client,
    settings: Settings,
    db: int,
    processes: Sequence[ManagedProcess],
    queues: Iterable[QueueKeys] = (),
) -> Connections:
    """Read the connected workers, and match them with these processes.

    Args:
        queues: queues whose workers must be listed.

    Raises:
        FailedError: Redis does not list the connected workers, so a restart cannot be proved.
    """
    prefix = settings.prefixes.single
    if prefix is not None and not is_listed(prefix):
        raise _unlisted(client, prefix)
    connected = listed_workers(client, db, queues)
    found = holders(client, connected.workers, processes)
    owned: dict[Identity, list[WorkerClient]] = {}
    for worker in connected.workers:
        if worker.id in found:
            owned.setdefault(found[worker.id].identity, []).append(worker)
    foreign: dict[Identity, list[ForeignWorker]] = {}
    addresses = by_address(processes, [address for address, _ in connected.foreign])
    for address, worker_elsewhere in connected.foreign:
        if address in addresses:
            foreign.setdefault(addresses[address].identity, []).append(worker_elsewhere)
    return Connections(connected.workers, owned, foreign)


def worker_addresses(client: Client) -> list[str]:
    """The addresses of all worker connections; empty if Redis does not list them."""
    connected = list_all_workers(client)
    if connected is None:
        return []
    here = [worker.address for worker in connected.workers]
    return here + [address for address, _ in connected.foreign]


def targets_serving(
    settings: Settings,
    connections: Connections | None,
    processes: Sequence[ManagedProcess],
    queues: Collection[QueueKeys],
) -> set[str]:
    """Labels of the targets that serve one of these queues according to config or connections.

    Args:
        connections: the connected workers; if None (unknown), only the config counts.
        queues: if empty, every target that serves a queue under the prefixes in force is returned.
    """
    wanted = set(queues)
    prefixes = settings.prefixes
    targets = {target.process for target in settings.targets}
    labels = {target for target in targets if configured(settings, target, wanted)}
    for process in processes:
        served = connections.queues_of([process]) if connections else set()
        if not wanted:
            served = {keys for keys in served if prefixes.include(keys.prefix, keys.name)}
        if served & wanted or (served and not wanted):
            labels.add(process.target)
    return labels
