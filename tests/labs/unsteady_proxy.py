"""A TCP proxy before Redis whose connections can be cut, half closed, delayed, or go silent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["requests", "replies"]


@dataclass(eq=False)
class _Pair:
    """A client's connection, and the one to Redis that belongs to it.

    Args:
        silent: ways on which nothing passes any more.
    """

    client: socket.socket
    redis: socket.socket
    silent: set[Way] = field(default_factory=set)

    def cut(self) -> None:
        for each in (self.client, self.redis):
            with contextlib.suppress(OSError):
                # The peer gets a reset.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)


class UnsteadyProxy:
    """Forwards to a Redis on 127.0.0.1 until it is closed.

    Args:
        port: Redis' port.
    """

    def __init__(self, port: int) -> None:
        self._redis_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._delay_s = 0.0
        self._goes_silent: Way | None = None
        self._silenced = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> int:
        """Cut all connections; how many there were."""
        pairs = self._all()
        for pair in pairs:
            pair.cut()
        return len(pairs)

    def half_close(self) -> int:
        """Tell all clients that no reply will come any more, and go on to take their commands."""
        pairs = self._all()
        for pair in pairs:
            with contextlib.suppress(OSError):
                pair.client.shutdown(socket.SHUT_WR)
        return len(pairs)

    @contextlib.contextmanager
    def delayed(self, by_s: float) -> Iterator[None]:
        """Let each packet wait, in both directions."""
        self._delay_s = by_s
        try:
            yield
        finally:
            self._delay_s = 0.0

    def swallow(self, way: Way, patience_s: float, silence_s: float) -> bool:
        """Lose the next packet of any connection, and all after it; cut the connection in the end.

        Args:
            patience_s: how long to wait for a packet.
            silence_s: how long the connection stays.

        Returns:
            whether a packet came.
        """
        self._silenced.clear()
        self._goes_silent = way
        came = self._silenced.wait(patience_s)
        self._goes_silent = None
        if came:
            time.sleep(silence_s)
        for pair in self._all():
            if pair.silent:
                pair.cut()
        return came

    def _all(self) -> list[_Pair]:
        with self._lock:
            return list(self._pairs)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._redis_port)) as redis,
        ):
            pair = _Pair(client, redis)
            with self._lock:
                self._pairs.add(pair)
            back = threading.Thread(target=self._forward, args=(pair, "replies"), daemon=True)
            back.start()
            self._forward(pair, "requests")
            # Redis closes its side when it has answered what it was sent.
            with contextlib.suppress(OSError):
                redis.shutdown(socket.SHUT_WR)
            back.join()
            with self._lock:
                self._pairs.discard(pair)

    def _forward(self, pair: _Pair, way: Way) -> None:
        source, target = (
            (pair.client, pair.redis) if way == "requests" else (pair.redis, pair.client)
        )
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self._delay_s:
                    time.sleep(self._delay_s)
                if self._goes_silent == way:
                    self._goes_silent = None
                    pair.silent.add(way)
                    self._silenced.set()
                if way not in pair.silent:
                    target.sendall(data)
        if way == "replies":
            with contextlib.suppress(OSError):
                # Also ends the other direction: Redis is gone.
                pair.client.shutdown(socket.SHUT_RDWR)
