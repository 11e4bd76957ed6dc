"""Redis Cluster: one plain connection to each master; a command goes to the master of its key.

qctl does not use redis-py's cluster client: if a connection breaks, redis-py sends the pipeline
again, so a command may be applied twice (measured: one INCR counted 2). This client sends a command
again only if a node refused it. qctl uses few commands, whose keys are easy to find.
"""

from __future__ import annotations

import binascii
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qctl.connection import slot_moves
from qctl.connection.address import Address, Arg, Client
from qctl.connection.socket_client import SocketClient, encode
from qctl.errors import ReplyError, UnreachableError

SLOTS = 16_384
# Seconds between two polls of streams. XREAD BLOCK is not used: it would wait on a single node.
POLL_S = 0.02
_Node = tuple[str, int]
_KEYLESS = frozenset(
    (
        *("ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "FLUSHALL", "INFO"),
        *("PING", "ROLE", "SCAN", "SCRIPT", "TIME"),
    )
)
_KEY_IS_SECOND = frozenset({"MEMORY", "OBJECT", "XINFO"})


def key_slot(key: bytes) -> int:
    """The slot of a key. The slot of ``a{tag}b`` is that of ``tag``."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return binascii.crc_hqx(key[start + 1 : end] if end > start + 1 else key, 0) % SLOTS


def _first_key(command: Sequence[Arg]) -> bytes | None:
    name = str(command[0]).upper()
    if name in _KEYLESS or len(command) < 2:
        return None
    if name in {"EVAL", "EVALSHA"}:
        return encode(command[3]) if int(command[2]) else None
    if name in _KEY_IS_SECOND:
        return encode(command[2]) if len(command) > 2 else None
    if name == "XREAD":
        return encode(command[[str(word).upper() for word in command].index("STREAMS") + 1])
    return encode(command[1])


class ClusterClient:
    """A cluster as one ``Client``. Looks up the slots at first use, and when they may have moved.

    A command without a key goes to one of the masters; use ``masters()`` to reach all of them. If
    the connection breaks, the command is not sent again, because it may have been applied. If a
    node refuses a command because a slot is moving, the client retries the command for up to 10 s.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._clients: dict[_Node, SocketClient] = {}
        self._owners: dict[int, _Node] = {}

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        """Send one command and return its reply. Raises like ``SocketClient.call``."""
        if str(command[0]).upper() == "XREAD":
            return self._read_streams(command, timeout_s)
        reply = self.pipeline([command])[0]
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """See ``Client``; takes one round trip per node, or more if slots move."""
        replies: list[Any] = [None] * len(commands)
        pending: Sequence[int] = range(len(commands))
        delays_s = slot_moves.retry_delays_s()
        while True:
            for node, indices in self._by_node(commands, pending).items():
                batch = [commands[index] for index in indices]
                for index, reply in zip(indices, self._send(node, batch), strict=True):
                    replies[index] = self._follow_ask(commands[index], reply)
            pending = [index for index in pending if slot_moves.is_refusal(replies[index])]
            delay_s = next(delays_s, None) if pending else None
            if delay_s is None:
                return replies
            self._owners.clear()
            time.sleep(delay_s)

    def masters(self) -> Sequence[Client]:
        """A connection to each master that owns slots.

        Nodes that are giving away a slot come first: a scan in this order finds each moving key on
        its old node or its new node. Without the right to CLUSTER NODES, a scan may miss keys.
        """
        self._owners.clear()
        nodes = sorted(set(self._slot_owners().values()))
        clients = [self._client(node) for node in nodes]
        return sorted(clients, key=lambda client: not _is_giving_slots(client))

    def node_of(self, key: str) -> tuple[str, int]:
        """Host and port of the master that owns the key's slot; any master if none does."""
        owners = self._slot_owners()
        return owners.get(key_slot(encode(key)), next(iter(owners.values())))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._owners.clear()

    # Slots and nodes

    def _by_node(
        self, commands: Sequence[Sequence[Arg]], indices: Sequence[int]
    ) -> dict[_Node, list[int]]:
        owners = self._slot_owners()
        any_node = next(iter(owners.values()))
        groups: dict[_Node, list[int]] = {}
        for index in indices:
            key = _first_key(commands[index])
            # For a slot without an owner, any node answers that the cluster is down.
            node = any_node if key is None else owners.get(key_slot(key), any_node)
            groups.setdefault(node, []).append(index)
        return groups

    def _slot_owners(self) -> dict[int, _Node]:
        if not self._owners:
            self._owners = self._ask_slots()
        return self._owners

    def _ask_slots(self) -> dict[int, _Node]:
        failure: UnreachableError | None = None
        for node in dict.fromkeys([*self.address.nodes, *self._clients]):
            try:
                ranges = self._client(node).call("CLUSTER", "SLOTS")
            except UnreachableError as error:
                failure = failure or error
                continue
            owners: dict[int, _Node] = {}
            for first, last, master, *_ in ranges:
                # A node that does not know its own host sends "": use the host that was asked.
                owner = (master[0] or node[0], int(master[1]))
                owners |= dict.fromkeys(range(first, last + 1), owner)
            if owners:
                return owners
        raise failure or UnreachableError(
            f"the Redis cluster at {self.address} has no slots",
            why="no node owns a slot",
            hint="check `redis-cli cluster slots`",
        )

    def _client(self, node: _Node) -> SocketClient:
        if node not in self._clients:
            host, port = node
            address = replace(self.address, mode="standalone", host=host, port=port, nodes=())
            self._clients[node] = SocketClient(address)
        return self._clients[node]

    def _send(self, node: _Node, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        try:
            return self._client(node).pipeline(commands)
        except UnreachableError:
            # A replica may become the master: look up the slots again before the next command.
            self._owners.clear()
            raise

    def _follow_ask(self, command: Sequence[Arg], reply: Any) -> Any:
        """The reply; if it is an ASK error, the reply of the node to which the slot is moving."""
        if not isinstance(reply, ReplyError) or reply.code != "ASK":
            return reply
        host, _, port = reply.raw.split()[2].rpartition(":")
        return self._send((host or self.address.host, int(port)), [("ASKING",), command])[1]

    # Streams

    def _read_streams(self, command: Sequence[Arg], timeout_s: float) -> list[Any] | None:
        """Split an XREAD into one per stream, and poll instead of blocking."""
        words = [str(word).upper() for word in command]
        start = words.index("STREAMS") + 1
        options = list(command[1 : start - 1])
        if "BLOCK" in words[:start]:
            # ``options`` does not contain the first word, XREAD.
            block_at = words.index("BLOCK") - 1
            del options[block_at : block_at + 2]
        middle = start + (len(command) - start) // 2
        reads = [
            ("XREAD", *options, "STREAMS", key, last_id)
            for key, last_id in zip(command[start:middle], command[middle:], strict=True)
        ]
        deadline = time.monotonic() + timeout_s
        while True:
            replies = self.pipeline(reads)
            for reply in replies:
                if isinstance(reply, ReplyError):
                    raise reply
            found = [stream for reply in replies for stream in reply or ()]
            if found or time.monotonic() >= deadline:
                return found or None
            time.sleep(POLL_S)


def _is_giving_slots(client: SocketClient) -> bool:
    try:
        return bool(open_slots(client)[0])
    except ReplyError:
        return False


def open_slots(node: Client) -> tuple[set[int], set[int]]:
    """The slots that are moving away from this node, and the slots that are moving to it.

    Raises:
        ReplyError: this user may not call CLUSTER NODES.
    """
    # Only the node's own line lists these slots, as [93->-ID] and [93-<-ID].
    nodes = node.call("CLUSTER", "NODES")
    leaving, arriving = (re.findall(rf"\[(\d+)-{way}-", nodes) for way in "><")
    return set(map(int, leaving)), set(map(int, arriving))
