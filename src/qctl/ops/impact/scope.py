"""What a question about a restart is about: which queues, which processes, who else is connected.

Unlike a drain, which must be certain before it begins, this always answers: what cannot be told is
unknown, and a remark says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import NotFoundError, QctlError, is_outage
from qctl.manage.protocol import ManagedProcess
from qctl.ops.processes.managed import managed_processes, targets_serving
from qctl.ops.processes.targets import Connections, Target, open_target, read_connections
from qctl.ops.queues.find import Queues, find_queues, no_queues, queues_named_or_all, require_bullmq
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import ForeignWorker, list_foreign
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Scope:
    """Queues and the processes whose restart is meant.

    Args:
        queues: those named and those that the processes serve besides; some may be unreadable.
        target: None for all workers of these queues, whoever runs them.
        connections: None when Redis does not tell who is connected.
        also: queues that were not named, and that the target serves.
        foreign: workers of the target under another prefix or database, which are not looked at.
        why_no_target: why no single app is meant; "" when one is.
        unsure: why the restart may hit more than these queues; "" when that is known not to be.
        wider: words of the question that would tell more; () when there is none.
        remarks: on what failed.
    """

    queues: Queues
    target: Target | None
    connections: Connections | None
    also: tuple[str, ...] = ()
    foreign: tuple[ForeignWorker, ...] = ()
    why_no_target: str = ""
    unsure: str = ""
    wider: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def snapshots(self) -> tuple[QueueSnapshot, ...]:
        return tuple(queue for queue in self.queues.readable if queue.format == "bullmq")

    @property
    def bull(self) -> tuple[str, ...]:
        """Names of the queues of Bull 3/4, whose jobs are not looked at."""
        return tuple(q.keys.name for q in self.queues.readable if q.format == "bull")


def find_scope(
    client: Client,
    address: Address,
    settings: Settings,
    names: Sequence[str],
    target: str | None,
) -> Scope:
    """The scope of a command's words; without a target, the one app that serves the queues.

    Raises:
        NotFoundError: no such queue or target, or no queue at all.
        RefusedError: a named queue is Bull 3/4's.
        FailedError: the target does not run.
        UnreachableError: Redis or the target's manager cannot be reached.
    """
    if names:
        # First, so that a misspelt queue is not taken for one that nobody serves.
        require_bullmq(find_queues(client, settings.prefix, names), hint="qctl status shows it")
    if target is not None:
        found = open_target(settings, target)
        connections, remarks = _connections(client, address, settings, found.processes)
        return _of_target(client, settings, names, found, connections, remarks)
    processes, remarks = managed_processes(settings)
    connections, more = _connections(client, address, settings, processes)
    remarks += more
    labels = targets_serving(settings, connections, processes, names)
    why = "no managed process on this host is known to serve these queues"
    if len(labels) > 1:
        why = f"several apps serve these queues: {', '.join(sorted(labels))}"
    if len(labels) == 1:
        try:
            found = open_target(settings, labels.pop())
        except QctlError as error:
            # One of the config that does not run, or whose manager does not.
            why = error.what
        else:
            return _of_target(client, settings, names, found, connections, remarks)
    queues = queues_named_or_all(client, settings.prefix, names)
    unsure, others = _beside(client, address, settings, connections, queues, names)
    return Scope(
        queues,
        None,
        connections,
        why_no_target=why,
        unsure=unsure,
        wider=(*names, *others) if names and others else (),
        remarks=remarks,
    )


def _of_target(
    client: Client,
    settings: Settings,
    names: Sequence[str],
    target: Target,
    connections: Connections | None,
    remarks: tuple[str, ...],
) -> Scope:
    connected = connections.queues_of(target.processes) if connections else set()
    served = connected | set(target.configured)
    unsure = _unseen(target, connections)
    if not names and not served:
        queues = queues_named_or_all(client, settings.prefix, ())
        remarks += (f"which queues {target.label} serves cannot be told: all are looked at",)
        return Scope(queues, target, connections, unsure=unsure, remarks=remarks)
    if connected and names and not served & set(names):
        raise NotFoundError(
            f"{target.label} does not serve {', '.join(names)}",
            why=f"its workers are connected to {', '.join(sorted(connected))}",
            hint="name another --target, or leave the queues out",
        )
    wanted = list(dict.fromkeys([*names, *sorted(served)]))
    readable, broken, missing = [], [], []
    snapshots = read_snapshots(client, [QueueKeys(settings.prefix, name) for name in wanted])
    for name, snapshot in zip(wanted, snapshots, strict=True):
        if isinstance(snapshot, QueueSnapshot):
            readable.append(snapshot)
        elif snapshot is not None:
            broken.append((name, snapshot))
        elif name in connected:
            missing.append(name)
    if missing:
        # A worker makes its queue exist: one of another library, which names its queue otherwise.
        unsure = unsure or (
            f"a worker of {target.label} serves {', '.join(missing)}, which does not exist, so "
            "whose jobs it has cannot be told"
        )
    if not readable and not broken:
        raise no_queues(client, settings.prefix)
    foreign = {
        name
        for process in target.processes
        for name in (connections.foreign.get(process.key, ()) if connections else ())
    }
    return Scope(
        Queues(tuple(readable), tuple(broken)),
        target,
        connections,
        also=tuple(sorted(served - set(names))) if names else (),
        foreign=tuple(sorted(foreign)),
        unsure=unsure,
        wider=("--target", target.label) if unsure and names else (),
        remarks=remarks,
    )


def _unseen(target: Target, connections: Connections | None) -> str:
    """Why a target may serve more than what is seen; the config's word is taken for it."""
    if target.configured:
        return ""
    # One that has crashed runs no job.
    alive = [process for process in target.processes if process.pid] or target.processes
    unseen = [
        process.key
        for process in alive
        if connections is None
        or not (connections.owned.get(process.key) or connections.foreign.get(process.key))
    ]
    if not unseen:
        return ""
    # One that starts or closes just now, or that has other tasks than its siblings.
    whose = "" if len(unseen) == len(alive) else f"id {', '.join(unseen)} of "
    return (
        f"no worker of {whose}{target.label} is seen in this Redis, so which queues it serves "
        "cannot be told ([targets] of the config can)"
    )


def _beside(
    client: Client,
    address: Address,
    settings: Settings,
    connections: Connections | None,
    queues: Queues,
    names: Sequence[str],
) -> tuple[str, tuple[str, ...]]:
    """Why the processes of these queues' workers may serve others, too; and which of this prefix.

    Nobody tells which connections are of one process, where none is managed; those of one address
    may be.
    """
    if connections is None:
        return "which queues these workers serve besides cannot be told", ()
    meant = {queue.keys.name for queue in queues.readable} | {name for name, _ in queues.broken}
    hosts = {_host(w.address) for w in connections.workers if w.queue in meant}
    if names and not hosts:
        why = (
            "no worker of these queues is seen in this Redis, so what else theirs serve is unknown"
        )
        return why, ()
    near = [worker for worker in connections.workers if _host(worker.address) in hosts]
    others = sorted({worker.queue for worker in near} - meant)
    foreign = list_foreign(client, settings.prefix, address.db)
    elsewhere = {str(worker) for place, worker in foreign if _host(place) in hosts}
    found = [*others, *sorted(elsewhere)]
    if not found:
        return "", ()
    more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
    return (
        f"the same processes may serve {', '.join(found[:_MOST_NAMED])}{more}, whose workers "
        "connect from the same address, and which were not looked at: name a --target, or them too"
    ), tuple(others)


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _connections(
    client: Client, address: Address, settings: Settings, processes: Sequence[ManagedProcess]
) -> tuple[Connections | None, tuple[str, ...]]:
    try:
        return read_connections(client, settings, address.db, processes), ()
    except QctlError as error:
        if is_outage(error):
            raise
        hint = f" ({error.hint})" if error.hint else ""
        return None, (f"who is connected cannot be told: {error.what}{hint}",)
    except Exception as error:
        # Whatever the system denies about other people's processes, Redis can still be asked.
        return None, (f"which process holds which worker cannot be told: {error}",)
