"""Which workers are connected, from CLIENT LIST (wire format 7.1)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from qctl.config.prefixes import EVERY_PREFIX, Prefixes, only
from qctl.connection.address import Client
from qctl.errors import ReplyError, is_outage
from qctl.wire.keys import QueueKeys
from qctl.wire.read.info import read_upstream

# This leaves out pub/sub and replication connections, with which no worker fetches jobs.
LIST_CLIENTS = ("CLIENT", "LIST", "TYPE", "normal")
# A worker's connection: PFX:<base64>, or PFX:<base64>:w:<name> if the worker has a name. Not
# PFX:<base64>:qe, a connection of QueueEvents.
_NAMED = ":w:"
_WORKER_NAME = re.compile(
    r"(?!.+:[A-Za-z0-9+/]+={0,2}:qe$)"
    r"(?P<prefix>.+?):(?P<queue>[A-Za-z0-9+/]{2,}={0,2})(:w:(?P<worker>.*))?"
)


@dataclass(frozen=True, slots=True)
class WorkerClient:
    """A worker's blocking connection. A worker that shuts down closes this connection first.

    Args:
        keys: the queue that the worker serves.
        worker_name: the worker's own name, if it has one.
        client_id: Redis' number of the connection; later connections have higher numbers.
        address: ``ip:port`` of the worker's end, as Redis sees it.
        age_s: seconds since the worker connected.
        idle_s: seconds since the worker's last command.
        last_command: name of that command, ``bzpopmin`` while the worker waits for a job.
    """

    keys: QueueKeys
    worker_name: str | None
    client_id: int
    address: str
    age_s: int
    idle_s: int
    last_command: str = ""

    @property
    def queue(self) -> str:
        """The queue's name, for what works under one prefix."""
        return self.keys.name


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
        keys, _ = _decoded(self.name) or (None, None)
        return None if keys is None or not keys.name.isprintable() else (*astuple(keys), self.db)

    def __str__(self) -> str:
        if self.place is None:
            return f"{self.name} (database {self.db})"
        prefix, queue, db = self.place
        return f"{queue} (prefix {prefix}, database {db})"


def list_workers(
    client: Client, prefix: str, queues: Iterable[str] = (), db: int = 0
) -> list[WorkerClient] | None:
    """``list_workers_under`` for one prefix; also None if Redis cannot list its workers.

    Args:
        queues: known names of queues.
    """
    if not is_listed(prefix):
        return None
    return list_workers_under(client, only(prefix), [QueueKeys(prefix, q) for q in queues], db)


def list_workers_under(
    client: Client, prefixes: Prefixes, queues: Iterable[QueueKeys] = (), db: int = 0
) -> list[WorkerClient] | None:
    """Workers connected to queues of ``prefixes``; None if that is unknown (see ``why_unknown``).

    Under a prefix for which ``is_listed`` is False, Redis lists no worker.

    Args:
        queues: known queues. They distinguish base64 from the plain names that the official Python
            port of BullMQ uses.
        db: the database of the queues. Workers in another database serve other queues.
    """
    try:
        lists = [str(node.call(*LIST_CLIENTS)) for node in client.masters()]
    except ReplyError as error:
        # The command is denied or not supported: each server words that error differently.
        if is_outage(error):
            raise
        return None
    found = parse_workers(lists, prefixes, queues, db)
    # On a replica, an empty list proves nothing: workers are connected to the replica's master.
    return found if found or read_upstream(client) is None else None


@dataclass(frozen=True, slots=True)
class Connected:
    """All workers that are connected to a Redis.

    Args:
        workers: those of the queues in one database, whatever their prefix.
        foreign: the address and the worker of each connection in another database, and of each
            connection whose name does not show the queue.
    """

    workers: tuple[WorkerClient, ...]
    foreign: tuple[tuple[str, ForeignWorker], ...]


def list_all_workers(
    client: Client, queues: Iterable[QueueKeys] = (), db: int = 0
) -> Connected | None:
    """Every connected worker; None if that is unknown, as for ``list_workers_under``."""
    try:
        lists = [str(node.call(*LIST_CLIENTS)) for node in client.masters()]
    except ReplyError as error:
        if is_outage(error):
            raise
        return None
    known = {*queues}
    served = _Served(EVERY_PREFIX, known)
    workers: dict[tuple[str, int], WorkerClient] = {}
    foreign = []
    for line in (line for text in lists for line in text.split("\n")):
        fields = _fields(line)
        name = fields.get("name", "")
        worker = _parse(fields, served, db)
        # If the queue's name is not printable, it is probably not base64 but a plain name.
        if worker is not None and (worker.keys in known or worker.queue.isprintable()):
            workers[worker.address, worker.client_id] = worker
        elif _WORKER_NAME.fullmatch(name):
            of_db = int(fields.get("db", 0))
            foreign.append((fields.get("addr", ""), ForeignWorker(name, of_db)))
    found = Connected((*workers.values(),), (*foreign,))
    return found if workers or read_upstream(client) is None else None


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
    lists: Iterable[str], prefixes: Prefixes, queues: Iterable[QueueKeys] = (), db: int = 0
) -> list[WorkerClient]:
    """The workers in the reply of each master to ``LIST_CLIENTS``; see ``list_workers_under``."""
    served = _Served(prefixes, queues)
    workers: dict[tuple[str, int], WorkerClient] = {}
    for line in (line for text in lists for line in text.split("\n")):
        worker = _parse(_fields(line), served, db)
        if worker is not None:
            workers[worker.address, worker.client_id] = worker
    return list(workers.values())


def list_foreign(client: Client, prefix: str, db: int = 0) -> list[tuple[str, ForeignWorker]]:
    """The address and the worker of each connection that serves another prefix or database."""
    found = []
    served = _Served(only(prefix))
    for node in client.masters():
        for line in str(node.call(*LIST_CLIENTS)).split("\n"):
            fields = _fields(line)
            name = fields.get("name", "")
            is_worker = _WORKER_NAME.fullmatch(name) is not None
            if is_worker and _parse(fields, served, db) is None:
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


class _Served:
    """Finds the queue in the name of a worker's connection."""

    def __init__(self, prefixes: Prefixes, queues: Iterable[QueueKeys] = ()) -> None:
        self._prefixes = prefixes
        known = [*queues]
        self._encoded = {client_name(keys.prefix, keys.name): keys for keys in known}
        self._plain = {f"{keys.prefix}:{keys.name}": keys for keys in known}

    def find(self, name: str) -> tuple[QueueKeys, str | None] | None:
        """The queue and the worker's own name; None for other connections."""
        end = len(name)
        while end > 0:
            if keys := self._encoded.get(name[:end]) or self._plain.get(name[:end]):
                return keys, name[end + len(_NAMED) :] or None
            end = name.rfind(_NAMED, 0, end)
        found = _decoded(name)
        return found if found and self._prefixes.include(found[0].prefix, found[0].name) else None


def _decoded(name: str) -> tuple[QueueKeys, str | None] | None:
    """The queue and the worker's own name, if the queue's name is in base64."""
    match = _WORKER_NAME.fullmatch(name)
    if match is None:
        return None
    try:
        queue = base64.b64decode(match["queue"], validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    return (QueueKeys(match["prefix"], queue), match["worker"] or None) if queue else None


def _parse(fields: Mapping[str, str], served: _Served, db: int) -> WorkerClient | None:
    found = served.find(fields.get("name", "")) if fields.get("db") == str(db) else None
    if found is None:
        return None
    keys, worker_name = found
    return WorkerClient(
        keys=keys,
        worker_name=worker_name,
        client_id=int(fields.get("id", 0)),
        address=fields.get("addr", ""),
        age_s=int(fields.get("age", 0)),
        idle_s=int(fields.get("idle", 0)),
        last_command=fields.get("cmd", ""),
    )


def _fields(line: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in line.split(" ") if "=" in part)
