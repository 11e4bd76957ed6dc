"""A Redis connection for the event loop: commands go out at once, replies come back in order.

Why not redis-py: its asyncio connections take one command at a time and spend more on each than a
whole batch of jobs costs here. This one hands replies to a callback without a task in between, so
that a worker's step pays one write and one read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import hiredis

from qctl.connection import slot_moves as moving
from qctl.connection.address import Address, Arg
from qctl.connection.socket_client import (
    CONNECT_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    encode,
    tls_context,
)
from qctl.errors import NOT_THE_MASTER, ReplyError, UnreachableError, UsageError
from qctl.runtime.loop.locate import locate
from qctl.wire.scripts import ScriptCall, sha, source

# Called with the reply, a ReplyError, or the UnreachableError of a connection that broke.
Callback = Callable[[Any], None]
MIN_RECONNECT_PAUSE_S, MAX_RECONNECT_PAUSE_S = 0.05, 3.0
_CHECK_S = 1.0
# Turns of the loop within which it reads what has arrived, and ends a connection that was closed.
_TURNS = 4
_LAST_WORDS = 4096
# A server that answers so is not, or no longer, the one that holds the queue.
_ELSEWHERE = NOT_THE_MASTER | {"MOVED", "CLUSTERDOWN"}


class _Link(asyncio.Protocol):
    """One TCP connection in an ``AsyncConnection``'s life; what an old one says is not heard."""

    def __init__(self, owner: AsyncConnection) -> None:
        self.owner: AsyncConnection | None = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked at run time: uvloop's transports are of another class.
        both_ways = cast("asyncio.Transport", transport)
        if self.owner is None:
            both_ways.abort()
        else:
            self.owner.attach(self, both_ways)

    def data_received(self, data: bytes) -> None:
        if self.owner is not None:
            self.owner.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.owner is not None:
            self.owner.hear_last_words()
        # What they were may have ended it already.
        if self.owner is not None:
            self.owner.drop(exc or ConnectionResetError("Redis closed the connection"))


class AsyncConnection:
    """One connection to the Redis server that holds a queue.

    Text in replies is ``str``; bytes that are not UTF-8 become lone surrogates. Connects on first
    use and again after a failure, a failover or a move of the queue's slot, each time to the server
    that sentinels or the cluster name then. While the slot moves, commands are refused; they are
    sent again for ``moving.PATIENCE_S``.

    Args:
        address: where Redis is.
        key: a key of the queue; tells which node of a cluster.
        name: the name that the connection gives itself (CLIENT SETNAME); "" for none.
        patience_s: without any reply for so long, on top of ``REPLY_TIMEOUT_S``, the connection
            counts as broken; at least as long as the longest blocking command.
    """

    def __init__(
        self, address: Address, *, key: str = "", name: str = "", patience_s: float = 0.0
    ) -> None:
        self.address = address
        self._key = key
        self._name = name
        self._patience_s = REPLY_TIMEOUT_S + patience_s
        self._link: _Link | None = None
        self._transport: asyncio.Transport | None = None
        self._is_let_in = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._is_new = False
        self._poll = select.poll()
        self._reader = hiredis.Reader()
        self._waiting: deque[Callback] = deque()
        self._heard_at = 0.0
        self._opening = asyncio.Lock()
        self._check: asyncio.TimerHandle | None = None
        self._is_closed = False
        # Redis' number of a connection that has a name; 0 when it cannot be told.
        self.client_id = 0

    @property
    def is_open(self) -> bool:
        """Whether commands may be sent: it is connected, let in, and in its database."""
        return self._is_let_in

    @property
    def is_closed(self) -> bool:
        """Whether it was closed for good."""
        return self._is_closed

    async def open(self) -> None:
        """Connect, unless it is connected.

        Raises:
            UnreachableError: nobody answers.
            ReplyError: Redis does not let us in.
            UsageError: it is open in another event loop or process.
        """
        if self._transport is not None:
            self._check_owner()
            if not self._waiting:
                await self._notice_end()
        async with self._opening:
            if not self._is_let_in and not self._is_closed:
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await self._connect()
                    self._is_let_in = self._transport is not None
                except (OSError, TimeoutError, UnicodeError) as error:
                    self.drop(error)
                    raise self._unreachable(error) from error
                except BaseException:
                    self.drop(ConnectionError("not let in"))
                    raise

    async def call(self, *command: Arg) -> Any:
        """One command, its reply.

        Raises:
            ReplyError: Redis answered with an error.
            UnreachableError: no connection, or it broke; whether the command was done is unknown.
        """
        pauses = moving.pauses()
        while True:
            await self.open()
            try:
                return _raised(await self._future(command))
            except ReplyError as error:
                pause_s = self._pause_s(error, pauses)
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Many commands in one write; ReplyErrors are returned in their place.

        Raises:
            UnreachableError: no connection, or it broke before the last reply.
        """
        replies: list[Any] = [None] * len(commands)
        pending: Sequence[int] = range(len(commands))
        pauses = moving.pauses()
        while True:
            await self.open()
            futures = [self._future(commands[index]) for index in pending]
            found = await asyncio.gather(*futures, return_exceptions=True)
            for index, reply in zip(pending, found, strict=True):
                if isinstance(reply, UnreachableError):
                    raise reply
                replies[index] = reply
            refused = [index for index in pending if moving.is_refusal(replies[index])]
            pause_s = self._pause_s(replies[refused[0]], pauses) if refused else None
            if pause_s is None:
                return replies
            pending = refused
            await asyncio.sleep(pause_s)

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
        """A transition of ``wire/lua``; its text is sent only when Redis does not know it yet.

        Raises:
            ReplyError: the script failed.
            UnreachableError: as for ``call``.
        """
        try:
            return await self.call("EVALSHA", sha(name), len(keys), *keys, *args)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self.call("EVAL", source(name), len(keys), *keys, *args)

    async def run_call(self, call: ScriptCall) -> Any:
        """``run`` of a prepared call."""
        return await self.run(call.name, call.keys, call.args)

    def send(self, command: tuple[Any, ...], callback: Callback) -> None:
        """The fast way: write a command now; ``callback`` gets the reply, an error included.

        Args:
            command: words of ``str``, ``bytes`` or ``int``.
        """
        if self._transport is None:
            callback(self._unreachable(ConnectionResetError("not connected")))
            return
        try:
            packed = hiredis.pack_command(command)
        except UnicodeEncodeError:
            packed = hiredis.pack_command(tuple(map(encode, command)))  # type: ignore[arg-type]
        if not self._waiting:
            self._heard_at = asyncio.get_running_loop().time()
        self._waiting.append(callback)
        self._transport.write(packed)

    def close_inherited(self) -> None:
        """In a forked child: close this process's copy of the descriptor, and nothing else."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None or (descriptor := sock.fileno()) < 0:
            return
        # Replaced, since whatever owns the number may close it once more.
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)

    async def close(self) -> None:
        """Close for good; calls that still wait fail."""
        self._is_closed = True
        self.drop(ConnectionAbortedError("closed here"))
        # The loop itself closes the socket, in its next turn.
        await asyncio.sleep(0)

    # Called by the link

    def attach(self, link: _Link, transport: asyncio.Transport) -> None:
        """The TCP connection is there."""
        self._link = link
        self._transport = transport
        self._reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
        self._loop = loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._is_new = True
        self._heard_at = loop.time()
        self._poll = select.poll()
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll.register(sock.fileno(), select.POLLIN)
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._check = loop.call_later(_CHECK_S, self._check_alive)

    def receive(self, data: bytes) -> None:
        """Hand the replies in ``data`` to those who wait for them."""
        self._heard_at = asyncio.get_running_loop().time()
        reader, elsewhere = self._reader, None
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    reply = ReplyError(str(reply), secret=self.address.password or "")
                    is_refused = self._is_new and reply.refuses_service
                    # A slot that moves is no reason to hang up.
                    is_refused = is_refused and not moving.is_refusal(reply)
                    if reply.code in _ELSEWHERE or is_refused:
                        elsewhere = reply
                    if not self._waiting:
                        # Why the server is about to hang up.
                        elsewhere = reply
                        break
                self._waiting.popleft()(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.drop(ConnectionError(f"no Redis protocol: {error}"))
        self._is_new = False
        if elsewhere is not None and reader is self._reader:
            self.drop(elsewhere)

    def hear_last_words(self) -> None:
        """Read why a server refused a new connection, if a failed write was noticed before that."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None and self._is_new and not self.address.tls:
            with contextlib.suppress(OSError):
                self.receive(os.read(sock.fileno(), _LAST_WORDS))

    def drop(self, error: BaseException) -> None:
        """Give the connection up; whoever waits for a reply is told."""
        transport, self._transport = self._transport, None
        self._is_let_in = False
        if self._link is not None:
            self._link.owner = None
            self._link = None
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if transport is not None:
            transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for callback in waiting:
            callback(self._unreachable(error))

    # Within

    def _pause_s(self, reply: Any, pauses: Iterator[float]) -> float | None:
        """How long to wait before a command is sent again whose slot moves; None to give it up.

        ASK is not followed: no script of a queue runs before the last key has moved.
        """
        is_worth_it = self.address.mode == "cluster" and moving.is_refusal(reply)
        return next(pauses, None) if is_worth_it else None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        address = await locate(self.address, self._key)
        link = _Link(self)
        try:
            if address.unix_path:
                await loop.create_unix_connection(lambda: link, address.unix_path)
            else:
                context = tls_context(address) if address.tls else None
                await loop.create_connection(lambda: link, address.host, address.port, ssl=context)
        except BaseException:
            # What still comes of it is not wanted any more.
            link.owner = None
            raise
        greetings: list[tuple[Arg, ...]] = []
        if address.password is not None:
            user = (address.username,) if address.username else ()
            greetings.append(("AUTH", *user, address.password))
        if address.db:
            greetings.append(("SELECT", address.db))
        for greeting in greetings:
            _raised(await self._future(greeting))
        if self._name:
            # Some services refuse CLIENT: then others do not see us, and all else is well.
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

    def _check_alive(self) -> None:
        """A connection that no longer answers looks the same as a slow one, but for the clock."""
        if self._transport is None:
            return
        loop = asyncio.get_running_loop()
        if self._waiting and loop.time() - self._heard_at > self._patience_s:
            self.drop(TimeoutError(f"no answer for {self._patience_s:g} s"))
            return
        self._check = loop.call_later(_CHECK_S, self._check_alive)

    def _check_owner(self) -> None:
        is_ours = self._pid == os.getpid() and self._loop is asyncio.get_running_loop()
        if not is_ours:
            raise UsageError(
                "a Redis connection is used in another event loop or process than it was opened in",
                hint="make one in each; an AsyncQueue without connection= does so by itself",
            )

    async def _notice_end(self) -> None:
        """Give up a connection that the server has closed while the loop did not run."""
        for _ in range(_TURNS):
            if not self._has_news():
                return
            await asyncio.sleep(0)
        if not self._waiting and self._has_news():
            self.drop(ConnectionResetError("Redis closed the connection"))

    def _has_news(self) -> bool:
        """Whether something has arrived that the loop has not read, or read as the end."""
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
            hint="check that it runs, and the URL",
        )


def reconnect_pauses() -> Iterator[float]:
    """How long to wait before each further attempt to reach Redis: 0.05, 0.1 … 3 seconds."""
    pause_s = MIN_RECONNECT_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, MAX_RECONNECT_PAUSE_S)


def _raised(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply
