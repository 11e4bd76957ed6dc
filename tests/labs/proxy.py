"""TCP proxies before Redis: one loses packets, one rewrites them, one answers commands itself."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from qctl.wire.scripts import sha

STEP = sha("settle_and_fetch").encode()


class LossyProxy:
    """Forwards to a Redis on 127.0.0.1.

    Args:
        port: Redis' port.
        lose: what becomes of the worker's steps, by their number from 1: of ``"reply"`` Redis does
            the step and its reply is dropped, ``"request"`` never arrives; the connection breaks.
        step: what counts as a step: a packet with these bytes in it.

    Attributes:
        steps: how many there were.
    """

    def __init__(self, port: int, lose: Mapping[int, str], *, step: bytes = STEP) -> None:
        self._redis_port = port
        self._lose = lose
        self._step = step
        self.steps = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        redis, to_redis = await asyncio.open_connection("127.0.0.1", self._redis_port)
        loses_reply = False

        async def requests() -> None:
            nonlocal loses_reply
            while data := await client.read(1 << 20):
                if self._step in data:
                    self.steps += 1
                    what = self._lose.get(self.steps)
                    if what == "request":
                        return
                    loses_reply = loses_reply or what == "reply"
                to_redis.write(data)

        async def replies() -> None:
            while data := await redis.read(1 << 20):
                if loses_reply:
                    return
                to_client.write(data)

        ways = [asyncio.ensure_future(requests()), asyncio.ensure_future(replies())]
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            to_client.transport.abort()
            to_redis.transport.abort()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*ways, return_exceptions=True)


@contextlib.contextmanager
def proxy_in_thread(port: int, lose: Mapping[int, str], *, step: bytes) -> Iterator[LossyProxy]:
    """The same for tests without an event loop: the proxy runs on one in a thread."""
    proxy = LossyProxy(port, lose, step=step)
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with proxy:
            started.set()
            await stop.wait()
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


Rewrite = Callable[[bytes], bytes]


@contextlib.contextmanager
def rewriting_proxy(
    port: int, *, requests: Rewrite = bytes, replies: Rewrite = bytes
) -> Iterator[str]:
    """The URL of a proxy before a Redis on 127.0.0.1 that changes what passes through it.

    Args:
        requests, replies: what becomes of a packet; its length must stay the same.
    """

    def forward(source: socket.socket, target: socket.socket, rewrite: Rewrite) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                target.sendall(rewrite(data))
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as redis:
                sending = threading.Thread(target=forward, args=(self.request, redis, requests))
                sending.start()
                forward(redis, self.request, replies)
                sending.join()

    with _serving(Forward) as url:
        yield url


@contextlib.contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    """The URL of a server for a while; each connection gets a handler in a thread of its own."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            serving.join()


# The reply to a command: its words, and what asks Redis for its reply.
Answer = Callable[[Sequence[str], Callable[[], bytes]], bytes]


def bulk(text: str) -> bytes:
    """A text as a reply."""
    data = text.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


@contextlib.contextmanager
def answering_proxy(port: int, answer: Answer) -> Iterator[str]:
    """The URL of a proxy before a Redis on 127.0.0.1 that may answer commands in its place."""

    class Converse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with (
                contextlib.suppress(OSError, EOFError),
                socket.create_connection(("127.0.0.1", port)) as redis,
                redis.makefile("rb") as replies,
            ):
                while True:
                    request = _read_value(self.rfile)

                    def ask(request: bytes = request) -> bytes:
                        redis.sendall(request)
                        return _read_value(replies)

                    self.wfile.write(answer(_words(request), ask))

    with _serving(Converse) as url:
        yield url


def _read_value(stream: IO[bytes]) -> bytes:
    """One value in Redis' protocol, version 2, with all that is inside it."""
    line = stream.readline()
    if not line:
        raise EOFError
    kind, size = line[:1], line[1:-2]
    if kind == b"$" and size != b"-1":
        return line + stream.read(int(size) + 2)
    if kind == b"*":
        return line + b"".join(_read_value(stream) for _ in range(int(size)))
    return line


def _words(request: bytes) -> list[str]:
    stream = io.BytesIO(request)
    count = int(stream.readline()[1:])
    values = (_read_value(stream).partition(b"\r\n")[2] for _ in range(count))
    return [value[:-2].decode("utf-8", "surrogateescape") for value in values]
