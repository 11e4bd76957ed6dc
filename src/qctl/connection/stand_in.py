"""Serves fakeredis on a unix socket, for an app's own tests. Keeps data in memory only.

fakeredis' own TCP server closes the connection after each error reply, and has no INFO, which
BullMQ needs. This server answers INFO and CLIENT itself, and passes all other commands to
fakeredis' client, which is a redis-py client.
"""

from __future__ import annotations

import itertools
import os
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

import fakeredis  # type: ignore[import-untyped,unused-ignore]
import hiredis
from redis import exceptions

from qctl.private import bind

# The Redis that fakeredis imitates.
_REDIS_VERSION = "7.0.0"
# These commands send more than one reply, or switch to protocol 3.
_REFUSED = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "HELLO"}
_READ_SIZE = 65_536
# redis-py removes the error codes of these exceptions; ``encode_reply`` puts them back.
_CODES: dict[type[Exception], str] = {
    exceptions.NoPermissionError: "NOPERM",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
}


class StandIn:
    """A fakeredis server in threads of this process.

    Args:
        socket: the path to listen on.
    """

    def __init__(self, socket: Path) -> None:
        socket.unlink(missing_ok=True)
        self._server = _Server(str(socket))
        # The server checks every 0.05 s whether ``shutdown`` was called.
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening, and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        Path(str(self._server.server_address)).unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str) -> None:
        self.data = fakeredis.FakeServer()
        self.ids = itertools.count(1)
        self.connections: dict[int, _Connection] = {}
        super().__init__(path, _Connection)

    def server_bind(self) -> None:
        bind(self.socket, Path(str(self.server_address)))


class _Connection(socketserver.BaseRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.id = next(self.server.ids)
        self.name = ""
        self.db = 0
        self.began_at = self.used_at = time.monotonic()
        self.client = fakeredis.FakeRedis(
            server=self.server.data, protocol=2, single_connection_client=True
        )
        # redis-py would convert some replies to dicts, booleans and dates.
        self.client.response_callbacks.clear()
        self.server.connections[self.id] = self

    def handle(self) -> None:
        reader = hiredis.Reader()
        try:
            while chunk := self.request.recv(_READ_SIZE):
                reader.feed(chunk)
                replies = bytearray()
                while (command := reader.gets()) is not False:
                    replies += encode_reply(self._answer(command))
                self.request.sendall(replies)
        except (OSError, hiredis.ProtocolError):
            return

    def finish(self) -> None:
        del self.server.connections[self.id]
        self.client.close()

    def _answer(self, words: list[bytes]) -> Any:
        self.used_at = time.monotonic()
        # redis-py looks up some commands by name, so the name must be text.
        name = _text(words[0]).upper()
        try:
            return self._run(name, words[1:])
        except exceptions.ResponseError as error:
            return error
        except exceptions.RedisError as error:
            return exceptions.ResponseError(f"ERR fakeredis failed: {error}")

    def _run(self, name: str, words: list[bytes]) -> Any:
        if name in _REFUSED:
            raise exceptions.ResponseError(f"ERR unknown command '{name}'")
        if name == "INFO":
            return self._info()
        if name == "CLIENT":
            return self._client_command([_text(word) for word in words])
        reply = self.client.execute_command(name, *words)
        if name == "SELECT":
            self.db = int(words[0])
        return reply

    def _info(self) -> str:
        fields = {
            "redis_version": _REDIS_VERSION,
            "redis_mode": "standalone",
            "process_id": os.getpid(),
            "role": "master",
            "maxmemory": 0,
            "maxmemory_policy": "noeviction",
            "loading": 0,
        }
        return "".join(f"{key}:{value}\r\n" for key, value in fields.items())

    def _client_command(self, words: list[str]) -> Any:
        match [words[0].upper() if words else "", *words[1:]]:
            case ["SETNAME", name]:
                self.name = name
                return "OK"
            case ["GETNAME"]:
                return self.name
            case ["ID"]:
                return self.id
            case ["SETINFO", *_]:
                return "OK"
            case ["LIST", *_]:
                return "".join(each.line() for each in list(self.server.connections.values()))
        raise exceptions.ResponseError("ERR unknown subcommand of CLIENT")

    def line(self) -> str:
        """This connection as a line of CLIENT LIST."""
        now = time.monotonic()
        return (
            f"id={self.id} addr={self.server.server_address!s}:0 name={self.name}"
            f" age={now - self.began_at:.0f} idle={now - self.used_at:.0f} flags=N db={self.db}\n"
        )


def encode_reply(value: Any) -> bytes:
    """A reply in Redis' protocol, version 2."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, Exception):
        code, text = _CODES.get(type(value), ""), str(value).replace("\r\n", " ")
        return b"-%s\r\n" % _bytes(text if text.startswith(code) else f"{code} {text}")
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(encode_reply, value))
    data = value if isinstance(value, bytes) else _bytes(str(value))
    return b"$%d\r\n%s\r\n" % (len(data), data)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")
