"""Redis refuses: connections, writes, or one command to qctl's user."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from random import Random

from qctl.connection.address import Client
from qctl.errors import QctlError
from qctl.wire.acl import OPERATE
from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import ALONE, LOCK_S, QCTL_USER, Stage
from tests.labs.drains import Running
from tests.labs.servers import wait_until

# Does it with an admin's connection; how to undo it, as a command.
Refuse = Callable[[Client, Random], tuple[str, ...]]


def _for_a_while(refuse: Refuse, *, whose: str) -> Inject:
    """Redis refuses something, and takes it back before locks run out.

    Args:
        whose: processes that may be unable to end their jobs meanwhile.
    """

    def inject(stage: Stage, _: Running, chance: Random) -> Hit:
        # A Redis that starts anew would not refuse any more.
        with stage.redis_turn, stage.admin() as client:
            began = time.time()
            with _undone(client, refuse(client, chance)):
                time.sleep(chance.uniform(0.2, 1.5))
        return Hit(began, time.time() + (LOCK_S if whose else 0), whose=whose, refuses=bool(whose))

    return inject


@contextlib.contextmanager
def _undone(client: Client, undo: tuple[str, ...]) -> Iterator[None]:
    """Undo it at the end, even if this connection was cut and new ones are refused for a moment."""

    def is_undone() -> bool:
        with contextlib.suppress(QctlError):
            client.call(*undo)
            return True
        return False

    try:
        yield
    finally:
        wait_until(is_undone, f"Redis to accept {' '.join(undo)}")


def _set(client: Client, option: str, value: object) -> tuple[str, ...]:
    before = client.call("CONFIG", "GET", option)[1]
    client.call("CONFIG", "SET", option, value)
    return ("CONFIG", "SET", option, before)


def _connections(client: Client, _: Random) -> tuple[str, ...]:
    """It is at its limit of clients."""
    present = str(client.call("INFO", "clients")).partition("connected_clients:")[2].split()[0]
    return _set(client, "maxclients", present)


def _memory(client: Client, _: Random) -> tuple[str, ...]:
    """It uses more memory than it may, and evicts nothing."""
    return _set(client, "maxmemory", 1)


def _writes(client: Client, chance: Random) -> tuple[str, ...]:
    """It is a replica of a master that is not there; or it needs replicas and has none."""
    if chance.random() < 0.5:
        return _set(client, "min-replicas-to-write", 1)
    client.call("REPLICAOF", "127.0.0.1", 1)
    return ("REPLICAOF", "NO", "ONE")


def _command(client: Client, chance: Random) -> tuple[str, ...]:
    """qctl's user may not use one of the commands that qctl needs; workers have another user."""
    client.call("ACL", "SETUSER", QCTL_USER, f"-{chance.choice(OPERATE.commands)}")
    return ("ACL", "SETUSER", QCTL_USER, "+@all")


FAULTS: dict[str, Fault] = {
    "max-clients": Fault(_for_a_while(_connections, whose=""), redis=ALONE),
    # What ends a job, and what renews its lock, is refused.
    "out-of-memory": Fault(_for_a_while(_memory, whose="all"), redis=ALONE),
    "read-only": Fault(_for_a_while(_writes, whose="all"), redis=ALONE),
    "acl": Fault(_for_a_while(_command, whose=""), redis=ALONE),
}
