"""Which workers are connected, from CLIENT LIST (wire format 7.1)."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from qctl.config.prefixes import EVERY_PREFIX, Prefixes, only
from qctl.connection.address import Client
from qctl.errors import ReplyError, is_outage
from qctl.grouping import grouped
from qctl.wire.keys import QueueKeys
from qctl.wire.read.info import INFO_REPLICATION, is_master, read_upstream
from qctl.wire.replies import to_int

# This leaves out pub/sub and replication connections, with which no worker fetches jobs.
LIST_CLIENTS = ("CLIENT", "LIST", "TYPE", "normal")
# The command for servers that refuse TYPE.
_LIST_ALL_CLIENTS = ("CLIENT", "LIST")
# The command with which a worker waits for a job.
WAIT_COMMAND = "bzpopmin"
_NUMBERS = ("id", "db", "age", "idle")
# A worker's connection is called PFX:<base64>, or PFX:<base64>:w:<name> if the worker has a name.
# The pattern does not match PFX:<base64>:qe, a connection of QueueEvents. In a cluster, the Redis
# client of BullMQ puts ioredis-cluster(…): before the name for connections of its own.
_NAMED = ":w:"
_WORKER_NAME = re.compile(
    r"(?!ioredis-cluster\()(?!.+:[A-Za-z0-9+/]+={0,2}:qe$)"
    r"(?P<prefix>.+?):(?P<queue>[A-Za-z0-9+/]{2,}={0,2})(:w:(?P<worker>.*))?"
)


# Identifies a connection: its number, and the address of the worker's end. Each master of a
# cluster numbers its own connections, so the number alone may belong to several.
ConnectionId = tuple[int, str]


@dataclass(frozen=True, slots=True)
class WorkerClient:
    """A worker's blocking connection. A worker that shuts down closes this connection first.

    Args:
        keys: the queue that the worker serves.
        worker_name: the worker's own name, if it has one.
        client_id: the number of the connection on its master; use ``id`` to compare connections.
        address: ``ip:port`` of the worker's end, as Redis sees it.
        age_s: seconds since the worker connected.
        idle_s: seconds since the worker's last command.
        last_command: name of that command, ``WAIT_COMMAND`` while the worker waits for a job.
        node: the place of its master among all masters at this reading.
    """

    keys: QueueKeys
    worker_name: str | None
    client_id: int
    address: str
    age_s: int
    idle_s: int
    last_command: str = ""
    node: int = 0

    @property
    def queue(self) -> str:
        """The queue's name, for code that works under one prefix."""
        return self.keys.name

    @property
    def id(self) -> ConnectionId:
        """Identifies the connection on all masters."""
        return self.client_id, self.address


def worker_counts(workers: Iterable[WorkerClient]) -> Counter[QueueKeys]:
    """How many workers each queue has at least.

    In a cluster, a worker of BullMQ has one connection to the master that has its queue, once it
    has waited for a job, and often one to another master, over which it asks for the slots. So the
    connections of one host and one name are counted on the master that has most of them. Workers
    that have never waited, since they were busy from the start, may be missing.
    """
    on_node = Counter((w.keys, w.worker_name, host_of(w.address), w.node) for w in workers)
    most: dict[tuple[QueueKeys, str | None, str], int] = {}
    for (keys, name, host, _), count in on_node.items():
        most[keys, name, host] = max(count, most.get((keys, name, host), 0))
    found: Counter[QueueKeys] = Counter()
    for (keys, _, _), count in most.items():
        found[keys] += count
    return found


def host_of(address: str) -> str:
    """The IP address in the address of a connection, as CLIENT LIST shows it."""
    return address.rpartition(":")[0].strip("[]")


class Workers(list[WorkerClient]):
    """The connected workers whose connections have names.

    Args:
        any_queue: how many connections without a name wait for jobs as a worker does. Each may
            serve any queue.
        is_cluster: whether there are several masters. In a cluster, BullMQ before 5.80 does not
            name the connections of its workers.
    """

    def __init__(
        self, named: Iterable[WorkerClient] = (), *, any_queue: int = 0, is_cluster: bool = False
    ) -> None:
        super().__init__(named)
        self.any_queue = any_queue
        self._is_cluster = is_cluster
        self._by_queue = grouped(self, lambda worker: worker.keys)

    @property
    def all_named(self) -> bool:
        """Whether this has every connected worker, except those that ``is_listed`` excludes.

        If False, a worker that is missing here may be one of the connections without a name.
        """
        return not self.any_queue and not self._is_cluster

    def of(self, keys: QueueKeys, *, running: int) -> list[WorkerClient] | None:
        """The known workers of a queue: those whose connections have names.

        The result is None if no worker of the queue is known, but an unknown worker may serve it: a
        connection without a name may belong to such a worker.

        Args:
            running: how many active jobs of the queue have a lock: workers run these jobs.
        """
        found = self._by_queue.get(keys, [])
        is_unnamed = self.any_queue or (self._is_cluster and running) or not is_listed(keys.prefix)
        return None if not found and is_unnamed else found


@dataclass(frozen=True, slots=True, order=True)
class ForeignWorker:
    """A worker in another database or of an unknown queue; ``name`` is its connection's name."""

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
) -> Workers | None:
    """``list_workers_under`` for one prefix. Also None if ``is_listed`` is False for the prefix.

    Args:
        queues: known names of queues.
    """
    if not is_listed(prefix):
        return None
    return list_workers_under(client, only(prefix), [QueueKeys(prefix, q) for q in queues], db)


def list_workers_under(
    client: Client, prefixes: Prefixes, queues: Iterable[QueueKeys] = (), db: int = 0
) -> Workers | None:
    """Workers connected to queues of ``prefixes``; None if unknown (see ``why_unknown``).

    Under a prefix for which ``is_listed`` is False, Redis lists no worker.

    Args:
        queues: known queues. For these, a connection's name may also contain the queue's plain
            name, because the official Python port of BullMQ does not use base64.
        db: the database of the queues. Workers in another database serve other queues.
    """
    lists = _client_lists(client)
    found = None if lists is None else parse_workers(lists, prefixes, queues, db)
    return found if found or _is_master(client) else None


@dataclass(frozen=True, slots=True)
class Connected:
    """All workers that are connected to a Redis.

    Args:
        workers: the workers of the queues in one database, under any prefix.
        foreign: the address and the worker of each connection in another database, and of each
            connection whose name does not show the queue.
    """

    workers: Workers
    foreign: tuple[tuple[str, ForeignWorker], ...]


def list_all_workers(
    client: Client, queues: Iterable[QueueKeys] = (), db: int = 0
) -> Connected | None:
    """Every connected worker; None if unknown, as for ``list_workers_under``."""
    found = _connected(_client_lists(client), EVERY_PREFIX, queues, db)
    return found if found is None or found.workers or _is_master(client) else None


def why_unknown(prefix: str, client: Client | None = None) -> tuple[str, str]:
    """Two clauses: why ``list_workers`` returned None, and what would help.

    The first clause names a replica as the reason only if ``client`` is given.
    """
    above = None if client is None else read_upstream(client)
    if above is not None:
        return (
            f"this Redis is {above}; workers are connected to its master",
            "ask the master: --redis URL",
        )
    if is_listed(prefix):
        return (
            "this Redis user may not list clients, or this server leaves fields out of CLIENT LIST "
            "or INFO",
            "grant it: ACL SETUSER … +client|list +info",
        )
    return (
        f"Redis cannot list workers under the prefix {prefix!r}, because a connection's name must "
        "be printable ASCII without spaces",
        "use another prefix; until then, drain without --target and restart by hand",
    )


def unnamed(count: int) -> str:
    """A clause about ``count`` connections without a name that wait for jobs."""
    one = "1 connection without a name waits for jobs as a worker does, so its queue is unknown"
    many = f"{count:,} connections without a name wait for jobs as workers do, so their queues are"
    return one if count == 1 else f"{many} unknown"


def parse_workers(
    lists: Iterable[str], prefixes: Prefixes, queues: Iterable[QueueKeys] = (), db: int = 0
) -> Workers | None:
    """What ``list_workers_under`` returns, from each master's list of clients.

    None if a list is not complete. An empty result does not prove that there are no workers: the
    lists may come from a replica, and workers connect to the master.
    """
    found = _connected(lists, prefixes, queues, db)
    return None if found is None else found.workers


def _connected(
    lists: Iterable[str] | None, prefixes: Prefixes, queues: Iterable[QueueKeys], db: int
) -> Connected | None:
    """The workers in each master's list of clients; None if a list is missing or not complete."""
    rows = [_rows(text) for text in lists or ("",)]
    if not all(map(_is_complete, rows)):
        return None
    known = {*queues}
    served = _Served(prefixes, known)
    workers: dict[ConnectionId, WorkerClient] = {}
    foreign = []
    any_queue = 0
    for node, fields in ((node, fields) for node, clients in enumerate(rows) for fields in clients):
        name = fields["name"]
        worker = _parse(fields, served, db, node)
        if worker is not None and prefixes.needs_scan and worker.keys not in known:
            # If the decoded name is not printable, it was probably a plain name, not base64.
            worker = worker if worker.queue.isprintable() else None
        if worker is not None:
            workers[worker.id] = worker
        elif _WORKER_NAME.fullmatch(name):
            foreign.append((fields.get("addr", ""), ForeignWorker(name, to_int(fields["db"]) or 0)))
        elif not name and fields.get("cmd") == WAIT_COMMAND:
            any_queue += fields["db"] == str(db)
    found = Workers(workers.values(), any_queue=any_queue, is_cluster=len(rows) > 1)
    return Connected(found, (*foreign,))


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


def _is_master(client: Client) -> bool:
    """Whether this is a master. If so, an empty list of workers proves that there are none."""
    (role,) = client.masters()[0].pipeline([INFO_REPLICATION])
    return is_master(role)


def _client_lists(client: Client) -> list[str] | None:
    """Each master's list of clients; None if a master refuses."""
    try:
        return [_client_list(node) for node in client.masters()]
    except ReplyError as error:
        # The command is denied or not supported: each server words that error differently.
        if is_outage(error):
            raise
        return None


def _client_list(node: Client) -> str:
    try:
        return str(node.call(*LIST_CLIENTS))
    except ReplyError as error:
        if is_outage(error) or error.code == "NOPERM":
            raise
        return str(node.call(*_LIST_ALL_CLIENTS))


def _is_complete(clients: Sequence[Mapping[str, str]]) -> bool:
    """Whether this is a list of all clients with the fields that qctl needs.

    The connection that asks is always in the list, so an empty list is not a complete one.
    """
    return bool(clients) and all(
        {"db", "name"} <= fields.keys()
        and all(to_int(fields.get(name, 0)) is not None for name in _NUMBERS)
        for fields in clients
    )


class _Served:
    """Finds the queue in the name of a worker's connection."""

    def __init__(self, prefixes: Prefixes, queues: Iterable[QueueKeys] = ()) -> None:
        self._prefixes = prefixes
        known = [*queues]
        self._encoded = {client_name(keys.prefix, keys.name): keys for keys in known}
        self._plain = {f"{keys.prefix}:{keys.name}": keys for keys in known}
        self._max_length = max(map(len, (*self._encoded, *self._plain)), default=0)

    def find(self, name: str) -> tuple[QueueKeys, str | None] | None:
        """The queue and the worker's own name; None for other connections."""
        end = len(name)
        while end > 0:
            # Without this, a name of many parts would take quadratic time.
            if end <= self._max_length:
                start = name[:end]
                if keys := self._encoded.get(start) or self._plain.get(start):
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


def _parse(fields: Mapping[str, str], served: _Served, db: int, node: int) -> WorkerClient | None:
    found = served.find(fields.get("name", "")) if fields.get("db") == str(db) else None
    if found is None:
        return None
    keys, worker_name = found
    return WorkerClient(
        keys=keys,
        worker_name=worker_name,
        client_id=to_int(fields.get("id")) or 0,
        address=fields.get("addr", ""),
        age_s=to_int(fields.get("age")) or 0,
        idle_s=to_int(fields.get("idle")) or 0,
        last_command=fields.get("cmd", ""),
        node=node,
    )


def _rows(text: str) -> list[dict[str, str]]:
    """The fields of each client in a list of clients."""
    return [
        dict(part.split("=", 1) for part in line.split(" ") if "=" in part)
        for line in text.split("\n")
        if line.strip()
    ]
