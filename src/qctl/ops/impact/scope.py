"""What a restart affects: which queues, which processes, and which workers are connected.

A drain must know all of this before it begins. ``qctl impact`` gives an answer even if parts of
this are unknown; ``Scope.remarks`` says which parts, and why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import NotFoundError, QctlError, UsageError, is_outage
from qctl.manage.protocol import ManagedProcess
from qctl.ops.processes.managers import managed_processes
from qctl.ops.processes.suggest import command, command_on
from qctl.ops.processes.targets import (
    Connections,
    Target,
    open_target,
    read_connections,
    targets_serving,
    worker_addresses,
)
from qctl.ops.queues.find import (
    Queues,
    queues_named_or_all,
    read_existing,
    read_queues,
    require_bullmq,
)
from qctl.ops.queues.missing import no_queues
from qctl.ops.queues.select import select_queues
from qctl.ops.queues.served import select_served, under_other_prefixes
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.read.clients import (
    ForeignWorker,
    list_all_workers,
    unnamed,
)

_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Scope:
    """The queues and processes of a restart.

    Args:
        queues: the named queues, and the queues that the processes serve under the selected
            prefixes; some may be unreadable.
        target: None for all workers of these queues, wherever they run.
        connections: the connected workers; None if unknown.
        also: queues that the target serves but that were not named.
        unselected: queues that the target serves under prefixes that were not selected. Their jobs
            are not read.
        foreign: workers of the target that serve a queue in another database, or whose queue is
            unknown. Their jobs are not read.
        why_no_target: why no single app to restart was found; "" if one was found.
        may_serve_more: why the processes may serve more than these queues; "" if they do not.
        wider: the command that covers those other queues; "" if unknown.
        remarks: what could not be read, and why.
    """

    queues: Queues
    target: Target | None
    connections: Connections | None
    also: tuple[QueueKeys, ...] = ()
    unselected: tuple[QueueKeys, ...] = ()
    foreign: tuple[ForeignWorker, ...] = ()
    why_no_target: str = ""
    may_serve_more: str = ""
    wider: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def prefix(self) -> str | None:
        """The key prefix of all queues; None if they have several."""
        return common_prefix(self.queues.keys)

    def label(self, keys: QueueKeys) -> str:
        """The name of a queue in texts and JSON; see ``QueueKeys.label``."""
        return keys.label(self.prefix)

    @property
    def not_read(self) -> tuple[str, ...]:
        """What the target serves besides ``queues``."""
        unselected = (keys.full_name for keys in self.unselected)
        return tuple(dict.fromkeys([*unselected, *map(str, self.foreign)]))


@dataclass(frozen=True, slots=True)
class Platform:
    """How the workers are stopped if a platform runs them that qctl cannot ask.

    The operator states this in options.

    Args:
        grace_s: the seconds from the stop signal until SIGKILL.
        stop_signal: e.g. ``SIGTERM``; "" if unknown.
    """

    grace_s: float
    stop_signal: str = ""


def find_scope(
    client: Client,
    address: Address,
    settings: Settings,
    words: Sequence[str],
    target: str | None,
    platform: Platform | None = None,
) -> Scope:
    """The scope of a command.

    If ``target`` is None and only one app serves the queues, that app is the target.

    Raises:
        QctlError: as ``qctl.ops.impact.assess.assess``.
    """
    named = select_queues(client, settings.prefixes, words) if words else []
    # Check the queues first, so that a misspelt queue is reported as such.
    require_bullmq(read_existing(client, named), hint="qctl status shows it")
    if target is not None:
        found = open_target(settings, target)
        if platform is not None:
            found = _stopped_by(platform, found)
        connections, remarks = _connections(client, address, settings, found.processes, named)
        return _of_target(client, address, settings, named, found, connections, remarks)
    processes, remarks = _managed(client, settings, platform)
    connections, more = _connections(client, address, settings, processes, named)
    remarks += more
    labels = targets_serving(settings, connections, processes, named)
    why = "no managed process on this host is known to serve these queues"
    if platform is not None:
        labels, why = set(), "--grace is about a platform that qctl cannot ask"
    if len(labels) > 1:
        why = f"several apps serve these queues: {', '.join(sorted(labels))}"
    if len(labels) == 1:
        try:
            found = open_target(settings, labels.pop())
        except QctlError as error:
            # The app that the config names does not run, or its manager does not.
            why = error.what
        else:
            return _of_target(client, address, settings, named, found, connections, remarks)
    queues = queues_named_or_all(client, settings.prefixes, words)
    may_serve_more, others = _others_served(client, address, connections, queues, named)
    return Scope(
        queues,
        None,
        connections,
        why_no_target=why,
        may_serve_more=may_serve_more,
        wider=command_on([*named, *others], "impact") if named and others else "",
        remarks=remarks,
    )


def _managed(
    client: Client, settings: Settings, platform: Platform | None
) -> tuple[Sequence[ManagedProcess], tuple[str, ...]]:
    if platform is not None:
        return (), ()
    return managed_processes(settings, lambda: worker_addresses(client))


def _stopped_by(platform: Platform, target: Target) -> Target:
    """The target, with the platform's grace and signal in place of its manager's."""
    if target.manager.kind == "qctl":
        raise UsageError(
            f"--grace does not go with {target.label}",
            why="`qctl worker restart` lets these workers finish, however long that takes",
            hint="if the platform stops them, name the queues and leave --target out",
        )
    processes = tuple(
        replace(
            process,
            kill_timeout_ms=round(platform.grace_s * 1000),
            stop_signal=platform.stop_signal or process.stop_signal,
        )
        for process in target.processes
    )
    return replace(target, processes=processes)


def _of_target(
    client: Client,
    address: Address,
    settings: Settings,
    named: Sequence[QueueKeys],
    target: Target,
    connections: Connections | None,
    remarks: tuple[str, ...],
) -> Scope:
    serves = connections.queues_of(target.processes) if connections else set()
    selected, unselected = select_served(client, settings.prefixes, target, serves)
    if serves and named and not (selected | unselected).intersection(named):
        prefix = common_prefix([*serves, *named])
        raise NotFoundError(
            f"{target.label} does not serve {', '.join(keys.label(prefix) for keys in named)}",
            why=f"its workers are connected to {_listed(serves, prefix)}",
            hint="name another --target, or leave the queues out",
        )
    # If a queue is named, all queues that the target serves under the same prefix are selected.
    of_names = {keys.prefix for keys in named}
    selected.update([keys for keys in unselected if keys.prefix in of_names])
    elsewhere = connections.foreign if connections else {}
    foreign = {
        worker for process in target.processes for worker in elsewhere.get(process.identity, ())
    }
    missing: Sequence[QueueKeys] = ()
    if wanted := list(dict.fromkeys([*named, *sorted(selected)])):
        queues, missing = read_queues(client, wanted)
    elif serves:
        raise under_other_prefixes(target, serves)
    elif foreign and all(worker.place for worker in foreign):
        raise _in_other_databases(target, foreign, address)
    else:
        queues = queues_named_or_all(client, settings.prefixes, ())
        remarks += (f"it is unknown which queues {target.label} serves, so all queues are read",)
    may_serve_more = _may_serve_more(target, connections)
    if absent := serves.intersection(missing):
        # A BullMQ worker creates the keys of its queue. There are none, so this worker belongs to
        # another library.
        may_serve_more = may_serve_more or (
            f"a worker of {target.label} serves {_listed(absent, common_prefix(wanted))}, which "
            "does not exist, so it is unknown which jobs this worker runs"
        )
    if not queues.readable and not queues.broken:
        raise no_queues(client, settings.prefixes)
    wider = command(common_prefix(named), "impact", "--target", target.label)
    return Scope(
        queues,
        target,
        connections,
        also=tuple(sorted(selected.difference(named))) if named else (),
        unselected=tuple(sorted(unselected - selected)),
        foreign=tuple(sorted(foreign)),
        may_serve_more=may_serve_more,
        wider=wider if may_serve_more and named else "",
        remarks=remarks,
    )


def _in_other_databases(
    target: Target, foreign: Collection[ForeignWorker], address: Address
) -> UsageError:
    databases = sorted({worker.db for worker in foreign})
    redis = str(replace(address, db=databases[0]))
    return UsageError(
        f"{target.label} serves no queue of this database",
        why=f"it serves {', '.join(sorted(set(map(str, foreign))))}",
        hint=command(None, "impact", "--target", target.label, redis=redis),
    )


def _listed(queues: Iterable[QueueKeys], prefix: str | None) -> str:
    return ", ".join(keys.label(prefix) for keys in sorted(queues))


def _may_serve_more(target: Target, connections: Connections | None) -> str:
    """Why a target may serve more queues than those that are known; "" if it does not.

    The known queues are all queues of the target in two cases: the config names its queues; or each
    of its running processes has a known worker, and no nameless connection waits for jobs.
    """
    if target.configured:
        return ""
    if connections is not None and connections.workers.any_queue:
        # A connection without a name may belong to a worker of the target: for example, a worker
        # whose prefix has a space cannot name its connection.
        return unnamed(connections.workers.any_queue)
    # A crashed process runs no job, so only those that run matter.
    alive = [process for process in target.processes if process.runs] or target.processes
    unseen = [
        process.key
        for process in alive
        if connections is None
        or not (
            connections.owned.get(process.identity) or connections.foreign.get(process.identity)
        )
    ]
    if not unseen:
        return ""
    # A process without a known worker may be starting or closing, or may serve other queues.
    whose = "" if len(unseen) == len(alive) else f"id {', '.join(unseen)} of "
    return (
        f"no worker of {whose}{target.label} is seen in this Redis, so it is unknown which queues "
        "it serves ([targets] of the config can name them)"
    )


def _others_served(
    client: Client,
    address: Address,
    connections: Connections | None,
    queues: Queues,
    named: Sequence[QueueKeys],
) -> tuple[str, Sequence[QueueKeys]]:
    """Two values: why the processes that serve ``queues`` may serve other queues, and which queues.

    The first value is "" if the processes serve no other queue. The second value has only the other
    queues that are in this database.

    If no process is managed here, qctl does not know which connections belong to one process. It
    then treats all connections from one address as connections of the same process.
    """
    if connections is None:
        return "it is unknown which other queues these workers serve", ()
    if connections.workers.any_queue:
        return unnamed(connections.workers.any_queue), ()
    meant = {*queues.keys}
    hosts = {_host(w.address) for w in connections.workers if w.keys in meant}
    if named and not hosts:
        why = "no worker of these queues is seen in this Redis"
        return f"{why}: it is unknown what else their workers serve", ()
    near = [worker for worker in connections.workers if _host(worker.address) in hosts]
    others = sorted({worker.keys for worker in near} - meant)
    connected = list_all_workers(client, meant, address.db)
    foreign = connected.foreign if connected else ()
    elsewhere = {str(worker) for place, worker in foreign if _host(place) in hosts}
    prefix = common_prefix(queues.keys)
    found = [*(keys.label(prefix) for keys in others), *sorted(elsewhere)]
    if not found:
        return "", ()
    more = f" and {len(found) - _MAX_NAMED:,} more" if len(found) > _MAX_NAMED else ""
    return (
        f"the same processes may serve {', '.join(found[:_MAX_NAMED])}{more}, whose workers "
        "connect from the same address; the jobs of these queues were not read: name a --target, "
        "or these queues as well"
    ), others


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _connections(
    client: Client,
    address: Address,
    settings: Settings,
    processes: Sequence[ManagedProcess],
    named: Sequence[QueueKeys],
) -> tuple[Connections | None, tuple[str, ...]]:
    try:
        return read_connections(client, settings, address.db, processes, named), ()
    except QctlError as error:
        if is_outage(error):
            raise
        hint = f" ({error.hint})" if error.hint else ""
        return None, (f"it is unknown who is connected: {error.what}{hint}",)
    except Exception as error:
        # The operating system may deny facts about processes of other users.
        return None, (f"it is unknown which worker runs in which process: {error}",)
