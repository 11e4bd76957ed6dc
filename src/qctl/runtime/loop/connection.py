"""A Redis connection for the event loop: commands go out at once, replies come back in order.

Why not redis-py: its asyncio connection sends one command at a time, and spends more CPU time on
one command than this module on a batch of jobs. ``AsyncConnection`` passes each reply to a
callback, without a task in between, so a worker's step costs one write and one read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import hiredis

from qctl.connection import slot_moves
from qctl.connection.address import Address, Arg
from qctl.connection.socket_client import (
    CONNECT_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    encode,
    no_answer,
    server_name,
    set_up_tcp,
    tls_context,
)
from qctl.errors import NOT_THE_MASTER, ReplyError, UnreachableError, UsageError
from qctl.wire.scripts import ScriptCall, sha, source

# Called with the reply, a ReplyError, or the UnreachableError of a connection that broke.
Callback = Callable[[Any], None]
MIN_RECONNECT_PAUSE_S, MAX_RECONNECT_PAUSE_S = 0.05, 3.0
# Within this many turns, an event loop reads data that has arrived, and notices a disconnect.
_MAX_TURNS = 4
_MAX_REFUSAL_BYTES = 4096
# Error codes of a server that does not have the queue, or no longer has it.
_WRONG_SERVER = NOT_THE_MASTER | {"CLUSTERDOWN"}


class _SocketEvents(asyncio.Protocol):
    """Passes a socket's events to an ``AsyncConnection``, until ``drop`` closes the socket."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection: AsyncConnection | None = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since ``isinstance`` would refuse the transports of uvloop.
        both_ways = cast("asyncio.Transport", transport)
        if self.connection is None:
            both_ways.abort()
        else:
            self.connection.attach(self, both_ways)

    def data_received(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is not None:
            self.connection.read_refusal()
        # ``read_refusal`` may have dropped the connection.
        if self.connection is not None:
            self.connection.drop(exc or ConnectionResetError("Redis closed the connection"))


class AsyncConnection:
    """One connection to the Redis server that has a queue.

    Text in replies is ``str``; bytes that are not UTF-8 become lone surrogates. The connection is
    made on first use. It is made again after a failure, a failover or a move of the queue's slot,
    each time to the server that sentinels or the cluster report. While the slot moves, Redis
    refuses commands: all methods except ``send`` repeat them for ``slot_moves.PATIENCE_S``.

    Args:
        key: any key of the queue; its slot decides the node of a cluster.
        name: the connection's name, set with CLIENT SETNAME; "" for none.
        max_block_s: the longest time that a blocking command may take. If a reply takes
            ``REPLY_TIMEOUT_S`` longer than this, the connection counts as broken.

    Attributes:
        is_open: whether commands may be sent: connected, authenticated, and the database selected.
        is_closed: whether ``close`` was called; the connection is then never made again.
        client_id: Redis' id of the connection; 0 without a ``name``, or if CLIENT is not allowed.
    """

    def __init__(
        self, address: Address, *, key: str = "", name: str = "", max_block_s: float = 0.0
    ) -> None:
        self.address = address
        self._key = key
        self._name = name
        self._max_silence_s = REPLY_TIMEOUT_S + max_block_s
        self._events: _SocketEvents | None = None
        self._transport: asyncio.Transport | None = None
        self.is_open = False
        # The process and the event loop in which the connection was opened.
        self._opened_in: tuple[int, asyncio.AbstractEventLoop] | None = None
        # True until Redis sends its first reply on this connection.
        self._is_new = False
        self._poll = select.poll()
        self._reader = hiredis.Reader()
        self._unanswered: deque[Callback] = deque()
        self._heard_at = 0.0
        self._opening = asyncio.Lock()
        # Cleared after MOVED, until the old server has sent all replies that it still owes.
        self._owes_nothing = asyncio.Event()
        self._owes_nothing.set()
        self._silence_check: asyncio.TimerHandle | None = None
        self.is_closed = False
        self.client_id = 0

    async def open(self) -> None:
        """Connect if there is no connection. After ``close``, do nothing.

        Raises:
            UnreachableError: no server answers.
            ReplyError: Redis refuses the connection, for example a wrong password.
            UsageError: the connection is open in another event loop or process.
        """
        if self._transport is not None:
            if self._opened_in != (os.getpid(), asyncio.get_running_loop()):
                raise UsageError(
                    "a Redis connection is used outside the event loop or process that opened it",
                    hint="open a connection in each; an AsyncQueue without connection= does so",
                )
            await self._owes_nothing.wait()
            if not self._unanswered:
                await self._notice_end()
        async with self._opening:
            if not self.is_open and not self.is_closed:
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await self._connect()
                    self.is_open = self._transport is not None
                except (OSError, TimeoutError, UnicodeError) as error:
                    is_silent = isinstance(error, TimeoutError)
                    why = no_answer(CONNECT_TIMEOUT_S) if is_silent else error
                    self.drop(why)
                    raise self._unreachable(why) from error
                except BaseException:
                    self.drop(ConnectionError("the connection was not accepted"))
                    raise

    async def call(self, *command: Arg) -> Any:
        """Send one command and return its reply.

        Raises:
            ReplyError: Redis answered with an error.
            UnreachableError: there is no connection, or it broke. If it broke, Redis may have run
                the command.
            UsageError: as for ``open``.
        """
        pauses = slot_moves.retry_delays_s()
        while True:
            await self.open()
            try:
                return await self._future(command)
            except ReplyError as error:
                pause_s = self._pause_s(error, pauses)
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Send many commands at once. The reply to a command that fails is a ReplyError.

        Raises:
            UnreachableError: there is no connection, or it broke before the last reply.
            ReplyError, UsageError: as for ``open``.
        """
        replies: list[Any] = [None] * len(commands)
        pending: Sequence[int] = range(len(commands))
        pauses = slot_moves.retry_delays_s()
        while True:
            await self.open()
            futures = [self._future(commands[index]) for index in pending]
            found = await asyncio.gather(*futures, return_exceptions=True)
            for index, reply in zip(pending, found, strict=True):
                if isinstance(reply, UnreachableError):
                    raise reply
                replies[index] = reply
            refused = [index for index in pending if slot_moves.is_refusal(replies[index])]
            pause_s = self._pause_s(replies[refused[0]], pauses) if refused else None
            if pause_s is None:
                return replies
            pending = refused
            await asyncio.sleep(pause_s)

    async def run_call(self, call: ScriptCall) -> Any:
        """Run a script; its text is sent only if Redis does not know the script.

        Raises:
            ReplyError: the script failed.
            UnreachableError, UsageError: as for ``call``.
        """
        words = (len(call.keys), *call.keys, *call.args)
        try:
            return await self.call("EVALSHA", sha(call.name), *words)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self.call("EVAL", source(call.name), *words)

    def send(self, command: tuple[Any, ...], callback: Callback) -> None:
        """Write a command at once, without the checks of ``call``.

        Args:
            command: words of ``str``, ``bytes`` or ``int``.
            callback: gets the reply or the error; without a connection, it is called at once.
        """
        if self._transport is None:
            callback(self._unreachable(ConnectionResetError("not connected")))
            return
        try:
            packed = hiredis.pack_command(command)
        except UnicodeEncodeError:
            packed = hiredis.pack_command(tuple(map(encode, command)))  # type: ignore[arg-type]
        if not self._unanswered:
            self._heard_at = asyncio.get_running_loop().time()
        self._unanswered.append(callback)
        self._transport.write(packed)

    def close_inherited(self) -> None:
        """Close only this process's copy of the socket, in a forked child."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None or (descriptor := sock.fileno()) < 0:
            return
        # The transport may close this descriptor later. Until then, no other file may get the
        # descriptor's number, so the descriptor is pointed at /dev/null.
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)

    async def close(self) -> None:
        """Close the connection for ever. Commands without a reply fail."""
        self.is_closed = True
        self.drop(ConnectionAbortedError("closed here"))
        # The loop closes the socket in its next turn.
        await asyncio.sleep(0)

    # Called by the socket's events

    def attach(self, events: _SocketEvents, transport: asyncio.Transport) -> None:
        """Use a socket that has just connected."""
        self._events = events
        self._transport = transport
        self._reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
        loop = asyncio.get_running_loop()
        self._opened_in = os.getpid(), loop
        self._is_new = True
        self._heard_at = loop.time()
        self._poll = select.poll()
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll.register(sock.fileno(), select.POLLIN)
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            set_up_tcp(sock)
        self._silence_check = loop.call_later(self._max_silence_s, self._check_silence)

    def receive(self, data: bytes) -> None:
        """Hand the replies in ``data`` to their callbacks."""
        self._heard_at = asyncio.get_running_loop().time()
        reader, reason = self._reader, None
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    reply = ReplyError(str(reply), secret=self.address.password or "")
                    if reply.code == "MOVED":
                        # Redis may have run the commands in flight: wait for their replies.
                        self.is_open = False
                        self._owes_nothing.clear()
                    elif reply.code in _WRONG_SERVER or (
                        # A server that refuses because a slot moves is the right server.
                        self._is_new and reply.refuses_service and not slot_moves.is_refusal(reply)
                    ):
                        reason = reply
                    if not self._unanswered:
                        # All commands have their replies, so this error says why the server is
                        # about to disconnect.
                        reason = reply
                        break
                self._unanswered.popleft()(reply)
        except (hiredis.ProtocolError, IndexError, MemoryError) as error:
            # IndexError: a reply came, but no command waits for one. MemoryError: a reply claims to
            # have a billion parts.
            self.drop(ConnectionError(f"not the Redis protocol: {error}"))
        self._is_new = False
        if reader is not self._reader:
            # The connection has been made again meanwhile, and these replies came on the old one.
            return
        if reason is not None:
            self.drop(reason)
        elif not self._owes_nothing.is_set() and not self._unanswered:
            self.drop(ConnectionResetError("the queue has moved"))

    def read_refusal(self) -> None:
        """Read why the server refused a new connection.

        After a failed write, asyncio disconnects without reading what the server has sent.
        """
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None and self._is_new and not self.address.tls:
            with contextlib.suppress(OSError):
                self.receive(os.read(sock.fileno(), _MAX_REFUSAL_BYTES))

    def drop(self, error: BaseException) -> None:
        """Close the socket. Commands without a reply fail, with ``error`` as the reason."""
        transport, self._transport = self._transport, None
        self._owes_nothing.set()
        self.is_open = False
        if self._events is not None:
            self._events.connection = None
            self._events = None
        if self._silence_check is not None:
            self._silence_check.cancel()
            self._silence_check = None
        if transport is not None:
            transport.abort()
        unanswered, self._unanswered = self._unanswered, deque()
        for callback in unanswered:
            callback(self._unreachable(error))

    def _pause_s(self, reply: Any, pauses: Iterator[float]) -> float | None:
        """Return how long to wait before a refused command is sent again; None to give up.

        ASK is not followed: a script cannot run before all keys of its queue have moved.
        """
        is_temporary = self.address.mode == "cluster" and slot_moves.is_refusal(reply)
        return next(pauses, None) if is_temporary else None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        address = self.address
        if address.mode != "standalone":
            address = await asyncio.to_thread(_find_server, address, self._key)
        events = _SocketEvents(self)
        try:
            if address.unix_path:
                await loop.create_unix_connection(lambda: events, address.unix_path)
            else:
                context = tls_context(address) if address.tls else None
                name = server_name(address) if address.tls else None
                await loop.create_connection(
                    lambda: events, address.host, address.port, ssl=context, server_hostname=name
                )
        except BaseException:
            # The socket may still connect later: then ``connection_made`` closes it.
            events.connection = None
            raise
        for command in address.greeting():
            await self._future(command)
        if self._name:
            # Some Redis services refuse CLIENT: then CLIENT LIST does not show the worker's name.
            with contextlib.suppress(ReplyError):
                await self._future(("CLIENT", "SETNAME", self._name))
                self.client_id = int(await self._future(("CLIENT", "ID")))

    def _future(self, command: Sequence[Arg]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def deliver(reply: Any) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.send(tuple(command), deliver)
        return future

    def _check_silence(self) -> None:
        """Drop a connection on which a reply is overdue."""
        if self._transport is None:
            return
        loop = asyncio.get_running_loop()
        # If no command waits for a reply, check again after the full time: a reply to a command
        # that is sent from now on cannot be overdue earlier.
        since = self._heard_at if self._unanswered else loop.time()
        left_s = since + self._max_silence_s - loop.time()
        if left_s <= 0:
            self.drop(no_answer(self._max_silence_s))
            return
        self._silence_check = loop.call_later(left_s, self._check_silence)

    async def _notice_end(self) -> None:
        """Drop a connection that the server closed while the event loop was not running."""
        for _ in range(_MAX_TURNS):
            if not self._has_unread():
                return
            await asyncio.sleep(0)
        if not self._unanswered and self._has_unread():
            self.drop(ConnectionResetError("Redis closed the connection"))

    def _has_unread(self) -> bool:
        """Whether data or a disconnect has arrived, and the event loop has not read it yet."""
        if self._transport is None:
            return False
        return self._transport.is_closing() or bool(self._poll.poll(0))

    def _unreachable(self, error: BaseException) -> UnreachableError:
        if isinstance(error, ReplyError):
            return UnreachableError(error.what, why=error.why, hint=error.hint)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UnreachableError(
            f"Redis at {self.address} cannot be reached",
            why=str(reason),
            hint="check that Redis runs and that the URL is right",
        )


def reconnect_pauses() -> Iterator[float]:
    """Yield the pauses between attempts to reach Redis: 0.05 s, doubled each time up to 3 s."""
    pause_s = MIN_RECONNECT_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, MAX_RECONNECT_PAUSE_S)


def _find_server(address: Address, key: str) -> Address:
    """Return the address of the sentinels' master, or of the cluster's node that has ``key``.

    Raises:
        UnreachableError: no sentinel or no node answers.
    """
    if address.mode == "cluster":
        from qctl.connection.cluster import ClusterClient  # noqa: PLC0415 - only cluster users

        with contextlib.closing(ClusterClient(address)) as client:
            host, port = client.node_of(key)
    else:
        from qctl.connection.sentinel import find_master  # noqa: PLC0415 - only sentinel users

        host, port = find_master(address)
    return replace(address, mode="standalone", host=host, port=port, nodes=())
