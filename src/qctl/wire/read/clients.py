"""Which workers are connected, from CLIENT LIST (wire format 7.1)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qctl.connection.address import Client
from qctl.errors import ReplyError, is_outage
from qctl.wire.read.info import read_upstream

# This leaves out pub/sub and replication connections, with which no worker fetches jobs.
LIST_CLIENTS = ("CLIENT", "LIST", "TYPE", "normal")
# A worker's connection: PFX:<base64>, or PFX:<base64>:w:<name> if the worker has a name. Not
# PFX:<base64>:qe, a connection of QueueEvents.
_WORKER_NAME = re.compile(
    r"(?!.+:[A-Za-z0-9+/]+={0,2}:qe$)(?P<prefix>.+?):(?P<queue>[A-Za-z0-9+/]{2,}={0,2})(:w:.*)?"
)


@dataclass(frozen=True, slots=True)
class WorkerClient:
    """A worker's blocking connection. A worker that shuts down closes this connection first.

    Args:
        worker_name: the worker's own name, if it has one.
        client_id: Redis' number of the connection; later connections have higher numbers.
        address: ``ip:port`` of the worker's end, as Redis sees it.
        age_s: seconds since the worker connected.
        idle_s: seconds since the worker's last command.
        last_command: name of that command, ``bzpopmin`` while the worker waits for a job.
    """

    queue: str
    worker_name: str | None
    client_id: int
    address: str
    age_s: int
    idle_s: int
    last_command: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ForeignWorker:
    """A worker under another prefix or in another database; ``name`` is its connection's name."""

    name: str
    db: int

    @property
    def place(self) -> tuple[str, str, int] | None:
        """Prefix, queue and database; None if the connection's name does not show the queue.

        The prefix ends at the last colon before the queue, because base64 has no colon.
        """
        match = _WORKER_NAME.fullmatch(self.name)
        queue = _queue_name(match["queue"], frozenset()) if match else None
        if match is None or queue is None or not queue.isprintable():
            return None
        return match["prefix"], queue, self.db

    def __str__(self) -> str:
        if self.place is None:
            return f"{self.name} (database {self.db})"
        prefix, queue, db = self.place
        return f"{queue} (prefix {prefix}, database {db})"


def list_workers(
    client: Client, prefix: str, queues: Iterable[str] = (), db: int = 0
) -> list[WorkerClient] | None:
    """Workers connected to queues of ``prefix``; None if that is unknown (see ``why_unknown``).

    Args:
        queues: known names of queues. They distinguish base64 from the plain names that the
            official Python port of BullMQ uses.
        db: the database of the queues. Workers in another database serve other queues.
    """
    if not is_listed(prefix):
        return None
    try:
        lists = [str(node.call(*LIST_CLIENTS)) for node in client.masters()]
    except ReplyError as error:
        # The command is denied or not supported: each server words that error differently.
        if is_outage(error):
            raise
        return None
    found = parse_workers(lists, prefix, queues, db)
    # On a replica, an empty list proves nothing: workers are connected to the replica's master.
    return found if found or read_upstream(client) is None else None


def why_unknown(prefix: str, client: Client | None = None) -> tuple[str, str]:
    """Why ``list_workers`` returned None, and what would help: two clauses.

    Without ``client``, a replica is not noticed.
    """
    above = None if client is None else read_upstream(client)
    if above is not None:
        return (
            f"this Redis is {above}; workers are connected to its master",
            "ask the master: --redis URL",
        )
    if is_listed(prefix):
        return (
            "this Redis user may not list clients, or this Redis has no CLIENT LIST TYPE",
            "grant it: ACL SETUSER … +client|list",
        )
    return (
        f"Redis cannot list workers under the prefix {prefix!r}, because a connection's name must "
        "be printable ASCII without spaces",
        "use another prefix; until then, drain without --target and restart by hand",
    )


def parse_workers(
    lists: Iterable[str], prefix: str, queues: Iterable[str] = (), db: int = 0
) -> list[WorkerClient] | None:
    """What ``list_workers`` returns, from the reply of each master to ``LIST_CLIENTS``.

    None only if Redis cannot list workers with this prefix; a replica is not noticed.
    """
    if not is_listed(prefix):
        return None
    known = frozenset(queues)
    workers: dict[tuple[str, int], WorkerClient] = {}
    for line in (line for text in lists for line in text.split("\n")):
        worker = _parse(line, prefix, known, db)
        if worker is not None:
            workers[worker.address, worker.client_id] = worker
    return list(workers.values())


def list_foreign(client: Client, prefix: str, db: int = 0) -> list[tuple[str, ForeignWorker]]:
    """The address and the worker of each connection that serves another prefix or database."""
    found = []
    for node in client.masters():
        for line in str(node.call(*LIST_CLIENTS)).split("\n"):
            fields = _fields(line)
            name = fields.get("name", "")
            is_worker = _WORKER_NAME.fullmatch(name) is not None
            if is_worker and _parse(line, prefix, frozenset(), db) is None:
                foreign = ForeignWorker(name, int(fields.get("db", 0)))
                found.append((fields.get("addr", ""), foreign))
    return found


def client_name(prefix: str, queue: str, worker_name: str | None = None) -> str:
    """The name that a worker gives its blocking connection."""
    encoded = base64.b64encode(queue.encode("utf-8", "surrogateescape")).decode()
    return f"{prefix}:{encoded}" + (f":w:{worker_name}" if worker_name else "")


def is_listed(name: str) -> bool:
    """Whether CLIENT LIST shows workers with this name or prefix.

    The name of a connection must be printable ASCII without spaces. If it is not, a BullMQ worker
    connects without a name.
    """
    return all("!" <= char <= "~" for char in name)


def is_absent(name: str | None, workers: Sequence[WorkerClient] | None) -> bool:
    """Whether a worker is certainly not connected.

    Args:
        name: the worker's name, or None. A worker without a name may be any connected worker.
        workers: the workers connected to the worker's queue; None if unknown.
    """
    if workers is None:
        return False
    if not workers:
        return True
    connected = {worker.worker_name for worker in workers}
    return name is not None and None not in connected and name not in connected


def _parse(line: str, prefix: str, known: frozenset[str], db: int) -> WorkerClient | None:
    fields = _fields(line)
    name = fields.get("name", "")
    if not name.startswith(f"{prefix}:") or fields.get("db") != str(db):
        return None
    encoded, _, role = name[len(prefix) + 1 :].partition(":")
    if role and not role.startswith("w:"):
        return None
    queue = _queue_name(encoded, known)
    if queue is None:
        return None
    return WorkerClient(
        queue=queue,
        worker_name=role[2:] or None,
        client_id=int(fields.get("id", 0)),
        address=fields.get("addr", ""),
        age_s=int(fields.get("age", 0)),
        idle_s=int(fields.get("idle", 0)),
        last_command=fields.get("cmd", ""),
    )


def _fields(line: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in line.split(" ") if "=" in part)


def _queue_name(encoded: str, known: frozenset[str]) -> str | None:
    try:
        decoded = base64.b64decode(encoded, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return encoded if encoded in known else None
    if encoded in known and decoded not in known:
        return encoded
    return decoded or None
