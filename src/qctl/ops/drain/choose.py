"""Choose the queues to drain and the processes to restart.

A restart interrupts the jobs of all queues that the processes serve. If the operator has not named
some of these queues, the operator must decide: drain them too, or let their jobs be interrupted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from qctl.config.settings import Settings
from qctl.connection.address import Address, Client
from qctl.errors import (
    RefusedError,
    UnreachableError,
    UsageError,
)
from qctl.ops.processes.beside import queues_beside
from qctl.ops.processes.managers import managed_processes
from qctl.ops.processes.replacement import WITHOUT_PROOF
from qctl.ops.processes.run_command import OperatorCommand
from qctl.ops.processes.suggest import command
from qctl.ops.processes.targets import (
    Connections,
    Target,
    listed_workers,
    open_target,
    read_connections,
    require_listed,
    targets_serving,
    worker_addresses,
)
from qctl.ops.queues.select import select_queues
from qctl.ops.queues.served import under_other_prefixes
from qctl.wire.keys import QueueKeys, common_prefix
from qctl.wire.read.clients import Workers, unnamed

# A drain must know all processes before it begins, so it gives managers more time than `status`.
MANAGER_TIMEOUT_S = 10.0
_NO_EXPECT_HINT = (
    "say how many workers each queue should have afterwards, with --expect-workers N, or do "
    "without the proof, with --no-expect"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The queues to drain, and the processes to restart; see ``DrainPlan``."""

    queues: tuple[QueueKeys, ...]
    others: tuple[QueueKeys, ...] = ()
    foreign: tuple[str, ...] = ()
    target: Target | None = None
    connections: Connections | None = None
    guessed: str = ""

    def include(self, include_others: bool | None, what: str) -> Choice:
        """Add ``others`` if the operator wants them drained; refuse if no decision was made."""
        _require_choice(what, self, include_others)
        if not include_others:
            return self
        return replace(self, queues=(*self.queues, *self.others), others=())


def choose_for_command(
    client: Client,
    db: int,
    queues: Sequence[QueueKeys],
    operator_command: OperatorCommand,
    include_others: bool | None,
) -> Choice:
    if operator_command.is_proved:
        listed = listed_workers(client, db, queues, or_else=WITHOUT_PROOF)
        if operator_command.expected_workers is None:
            require_workers(listed.workers, queues, _NO_EXPECT_HINT)
    return choose_beside(client, db, Choice(tuple(queues)), include_others)


def choose_beside(client: Client, db: int, choice: Choice, include_others: bool | None) -> Choice:
    """Find the other queues that the workers of the chosen queues serve; see ``Choice.include``."""
    others, unreached = queues_beside(client, db, choice.queues)
    foreign = [*choice.foreign, *sorted({str(worker) for worker in unreached})]
    choice = replace(
        choice,
        others=tuple(dict.fromkeys([*choice.others, *others])),
        foreign=tuple(dict.fromkeys(foreign)),
    )
    what = f"the workers of {_listed(choice.queues)} also serve"
    return choice.include(include_others, what)


def choose_for_target(
    client: Client,
    address: Address,
    settings: Settings,
    named: Sequence[QueueKeys],
    target: str | None,
    then_restart: bool,
    include_others: bool | None,
    only_served: bool = False,
) -> Choice:
    guessed = ""
    if target is not None:
        found = open_target(settings, target)
        connections = read_connections(client, settings, address.db, found.processes, named)
    else:
        found, connections = _only_target(client, address, settings, named, then_restart)
        guessed = found.label
    by_config: list[QueueKeys] = []
    if found.configured:
        by_config = select_queues(client, settings.prefixes, found.configured)
    serves = connections.queues_of(found.processes) | {*by_config}
    queues = _served(found, named, serves) if only_served else named
    if not queues:
        prefixes = settings.prefixes
        chosen = {keys for keys in serves if prefixes.include(keys.prefix, keys.name)}
        queues = sorted(chosen.union(by_config))
        if not queues:
            raise _no_queues(found, serves, then_restart)
        guessed += f" with {_listed(queues)}" if guessed else ""
    choice = Choice(tuple(queues), (), (), found, connections, guessed)
    if not then_restart:
        return choice
    _require_served(found, connections, queues, serves)
    others = tuple(sorted(serves.difference(queues)))
    foreign = tuple(connections.elsewhere(found.processes))
    choice = replace(choice, others=others, foreign=foreign)
    choice = choice.include(include_others, f"{found.label} also serves")
    require_listed(client, choice.queues)
    return choice


def _only_target(
    client: Client,
    address: Address,
    settings: Settings,
    queues: Sequence[QueueKeys],
    then_restart: bool,
) -> tuple[Target, Connections]:
    """The only managed app that serves the named queues, or any queue if none is named."""
    what = "it is not clear " + ("which process to restart" if queues else "which queues to drain")
    hint = "name the process with --target MANAGER:NAME, for example pm2:worker"
    if not then_restart:
        hint = f"name each queue: {command(None, 'drain', 'QUEUE')}"
    processes, remarks = managed_processes(
        settings,
        lambda: worker_addresses(client),
        timeout_s=MANAGER_TIMEOUT_S,
    )
    connections = read_connections(client, settings, address.db, processes, queues)
    labels = targets_serving(settings, connections, processes, queues)
    if remarks and not (labels and connections.all_owned(queues)):
        # Processes that qctl could not see may also serve these queues.
        raise UnreachableError(what, why="; ".join(remarks), hint=hint)
    if len(labels) == 1:
        return open_target(settings, labels.pop()), connections
    if labels and queues and then_restart:
        raise SeveralTargetsError(sorted(labels), queues)
    why = f"no managed process on this host holds a worker of {_listed(queues)}"
    if labels:
        why = f"several targets serve them: {', '.join(sorted(labels))}"
    elif not queues:
        why = "no managed process on this host holds a worker"
    raise UsageError(what, why=why, hint=hint)


class SeveralTargetsError(UsageError):
    """Several targets serve the named queues, and one drain restarts only one target.

    Args:
        labels: the targets, sorted.
    """

    def __init__(self, labels: Sequence[str], queues: Collection[QueueKeys]) -> None:
        super().__init__(
            f"several targets serve {_listed(queues)}: {', '.join(labels)}",
            hint=f"choose one with --target, for example --target {labels[0]}",
        )
        self.labels = tuple(labels)


def _served(
    target: Target, queues: Sequence[QueueKeys], serves: Collection[QueueKeys]
) -> Sequence[QueueKeys]:
    """Those of ``queues`` that the target serves; all of them if ``serves`` is empty (unknown)."""
    served = [keys for keys in queues if keys in serves or not serves]
    if queues and not served:
        raise RefusedError(
            f"{target.label} serves none of {_listed(queues)}",
            why=f"it serves {_listed(serves, queues)}",
            hint="leave this target out, or add the queues to its section [targets.NAME] in "
            "qctl.toml",
        )
    return served


def _no_queues(target: Target, serves: Collection[QueueKeys], then_restart: bool) -> UsageError:
    """The error for a target that serves no queue under the prefixes in force."""
    if serves:
        return under_other_prefixes(target, serves)
    # The hint names the target only for a restart: a drain alone needs no target.
    restart = ("--then-restart", "--target", target.label) if then_restart else ()
    return UsageError(
        f"it is not clear which queues {target.label} serves",
        why="none of its processes holds a worker connection that can be matched here",
        hint=f"name each of them: {command(None, 'drain', 'QUEUE', *restart)}",
    )


def _require_served(
    target: Target,
    connections: Connections,
    queues: Collection[QueueKeys],
    serves: Collection[QueueKeys],
) -> None:
    """Refuse to restart a target that does not serve every queue: it is probably the wrong target.

    Args:
        serves: the queues that the target serves, according to its connections or the config.
    """
    connected = connections.queues_of(target.processes)
    if connected and (strangers := set(queues).difference(serves)):
        raise RefusedError(
            f"{target.label} does not serve {_listed(strangers, queues)}",
            why=f"its workers are connected to {_listed(connected, queues)}",
            hint="name another --target, or add the queues to its section [targets.NAME] in "
            "qctl.toml",
        )


def require_workers(workers: Workers, queues: Collection[QueueKeys], hint: str) -> None:
    """Refuse a command if no worker is connected, because then no proof is possible."""
    if not any(worker.keys in queues for worker in workers):
        found = f"no worker of {_listed(queues)} is connected"
        why = "so nothing would show whether the command has restarted a worker"
        if workers.any_queue:
            found, why = f"Redis shows no worker of {_listed(queues)}", unnamed(workers.any_queue)
        raise RefusedError(found, why=why, hint=hint)


def _require_choice(what: str, choice: Choice, include_others: bool | None) -> None:
    """Refuse to restart workers that also serve other queues, if the operator did not decide."""
    foreign = choice.foreign
    shown = [_listed(choice.others, choice.queues)] if choice.others else []
    shown += foreign
    if shown and include_others is None:
        raise RefusedError(
            f"{what} {', '.join(shown)}",
            why="a restart would interrupt the jobs of those queues",
            hint="drain them too with --include-others"
            + (" (possible only for queues of this database)" if foreign else "")
            + ", or let their jobs be interrupted with --ignore-others",
        )
    if foreign and include_others:
        raise RefusedError(
            f"{what} {', '.join(foreign)}",
            why="they are in another database, and one drain can include only one database",
            hint="let their jobs be interrupted with --ignore-others",
        )


def _listed(queues: Collection[QueueKeys], others: Collection[QueueKeys] = ()) -> str:
    """Names of queues for a message.

    Args:
        others: the common prefix of these queues is left out of the names. If ``others`` is
            empty, the common prefix of ``queues`` is left out.
    """
    prefix = common_prefix(others or queues)
    order = queues if isinstance(queues, Sequence) else sorted(queues)
    return ", ".join(keys.label(prefix) for keys in order)
