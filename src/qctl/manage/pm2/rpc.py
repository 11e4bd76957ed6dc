"""Calls to the PM2 daemon over its own socket.

A frame is one byte ``0x10 | argc``, then for each argument its length (uint32, big endian) and the
payload: ``s:`` and text, ``j:`` and JSON, or raw bytes. A request is ``[j:{"type": "call",
"method": …, "args": […]}, s:id]``; its reply is ``[j:{"args": […]} or j:{"error": …}, s:id]``.

Replies contain the apps' whole environment, including secrets. Therefore, an exception quotes
nothing of a reply except PM2's error message. A parser's exception contains the text of the reply:
it must not become the context of our exception, so ours is raised outside the ``except`` block.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

from qctl.errors import ManagerUnreachableError

_VERSION = 1
# Enough for thousands of apps: each takes 10 to 20 KB.
MAX_FRAME_BYTES = 64 * 1024 * 1024
# The time limit for connecting, and for PM2's answer.
TIMEOUT_S = 10.0
_MAX_MESSAGE = 300
_CHUNK = 256 * 1024
_ids = itertools.count(1)


class RpcError(Exception):
    """PM2 answered a call with an error; the text is PM2's message, shortened."""


class UnknownMethodError(RpcError):
    """This PM2 does not have the method."""


class NotUnderstoodError(Exception):
    """The reply has an unknown form; the error's text never quotes the reply."""


def encode(*args: object) -> bytes:
    """A frame of these arguments: text as ``s:``, bytes unchanged, all others as ``j:`` JSON."""
    frame = bytearray([_VERSION << 4 | len(args)])
    for arg in args:
        if isinstance(arg, bytes):
            payload = arg
        elif isinstance(arg, str):
            payload = b"s:" + arg.encode()
        else:
            payload = b"j:" + json.dumps(arg).encode()
        frame += struct.pack(">I", len(payload)) + payload
    return bytes(frame)


class Decoder:
    """Splits a stream of bytes into frames of at most ``MAX_FRAME_BYTES``."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The frames that ``data`` completes, each a list of payloads.

        Raises:
            NotUnderstoodError: the bytes are not PM2's protocol, or a frame is too long.
        """
        self._buffer += data
        frames = []
        while (frame := self._take()) is not None:
            frames.append(frame)
        return frames

    def _take(self) -> list[bytes] | None:
        # While the frame is incomplete, only its lengths are read, so that each call is cheap.
        if not self._buffer:
            return None
        version, argc = self._buffer[0] >> 4, self._buffer[0] & 0x0F
        if version != _VERSION or argc == 0:
            raise NotUnderstoodError("this is not PM2's protocol")
        spans = []
        offset = 1
        for _ in range(argc):
            if offset + 4 > len(self._buffer):
                return None
            (length,) = struct.unpack_from(">I", self._buffer, offset)
            offset += 4
            if offset + length > MAX_FRAME_BYTES:
                raise NotUnderstoodError(f"a message of more than {MAX_FRAME_BYTES} bytes")
            spans.append((offset, offset + length))
            offset += length
        if offset > len(self._buffer):
            return None
        frame = [bytes(self._buffer[start:end]) for start, end in spans]
        del self._buffer[:offset]
        return frame


class Call:
    """One request to the daemon, sent on its own connection; its reply is fetched later.

    Args:
        path: PM2's ``rpc.sock``. Connecting never starts a daemon.
        method: the remote method.
        args: its arguments as JSON values; PM2's methods need at least one, e.g. ``{}``.
        timeout_s: the time limit for connecting and sending.

    Raises:
        UnreachableError: no daemon listens there, or this user may not connect.
    """

    def __init__(
        self, path: Path, method: str, *args: object, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._path = path
        self._method = method
        self._id = f"qctl-{next(_ids)}"
        self._decoder = Decoder()
        self._answer: list[Any] | None = None
        self._socket = connect(path, timeout_s)
        request = {"type": "call", "method": method, "args": list(args)}
        try:
            self._socket.sendall(encode(request, self._id))
        except OSError as error:
            self.close()
            raise ManagerUnreachableError(
                "PM2 does not take requests", why=f"{path}: {error}", hint=_HINT
            ) from error

    def poll(self, wait_s: float = 0.0) -> list[Any] | None:
        """The reply's arguments; None until the whole reply has arrived.

        Args:
            wait_s: how long to wait for more bytes; 0 does not wait.

        Raises:
            RpcError: PM2 refused (``UnknownMethodError``: it has no such method).
            NotUnderstoodError: the reply has an unknown form.
            UnreachableError: the connection ended without a reply.
        """
        if self._answer is not None:
            return self._answer
        self._socket.settimeout(wait_s)
        try:
            data = self._socket.recv(_CHUNK)
            trouble = "" if data else "end of file"
        except (BlockingIOError, TimeoutError):
            return None
        except OSError as error:
            data, trouble = b"", str(error)
        if trouble:
            raise ManagerUnreachableError(
                "PM2 closed the connection without an answer",
                why=f"{self._path}: {trouble}",
                hint=_HINT,
            )
        for frame in self._decoder.feed(data):
            if len(frame) == 2 and frame[1] == b"s:" + self._id.encode():
                self._answer = _reply(frame[0], self._method)
        return self._answer

    def close(self) -> None:
        """Stop listening; PM2 continues with the request."""
        self._socket.close()


def call(path: Path, method: str, *args: object, timeout_s: float = TIMEOUT_S) -> list[Any]:
    """Call a method and wait for its reply, at most ``timeout_s`` seconds in all.

    Raises:
        UnreachableError: PM2 does not answer in time. Also raises what ``Call`` and ``poll`` raise.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(Call(path, method, *args, timeout_s=timeout_s)) as request:
        while (left := deadline - time.monotonic()) > 0:
            answer = request.poll(left)
            if answer is not None:
                return answer
    raise ManagerUnreachableError(
        f"PM2 does not answer within {timeout_s:g} s",
        why=f"{path} accepts connections, but no reply to {method} came",
        hint=f"see PM2's log: {path.with_name('pm2.log')}",
    )


_HINT = (
    "run `pm2 ls` as the user whose apps these are, or set PM2_HOME to the .pm2 folder of that user"
)


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A connection to the daemon's socket; the caller closes it.

    Raises:
        UnreachableError: no daemon listens there, or this user may not connect.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        if isinstance(error, FileNotFoundError):
            what, why = "PM2 does not run here", f"there is no socket {path}"
        elif isinstance(error, ConnectionRefusedError):
            what, why = "PM2 does not run here", f"nothing listens on {path}"
        elif isinstance(error, PermissionError):
            what, why = "this PM2 belongs to another user", f"{path}: {error.strerror}"
        else:
            what, why = "PM2 cannot be reached", f"{path}: {error.strerror or error}"
        raise ManagerUnreachableError(what, why=why, hint=_HINT) from error
    return connection


def _reply(payload: bytes, method: str) -> list[Any]:
    reply: object = None
    # Drop the parser's exceptions: they contain the text of the reply.
    with contextlib.suppress(ValueError, RecursionError):
        reply = json.loads(payload[2:]) if payload.startswith(b"j:") else None
    if isinstance(reply, dict) and reply.get("error") is not None:
        message = _message(reply["error"])
        if message == f'method "{method}" does not exist':
            raise UnknownMethodError(message)
        raise RpcError(message)
    args = reply.get("args") if isinstance(reply, dict) else None
    if not isinstance(args, list):
        raise NotUnderstoodError(f"the reply to {method} has an unknown form")
    return args


def _message(error: object) -> str:
    if isinstance(error, dict):
        error = error.get("msg") or error.get("message")
    text = error.strip() if isinstance(error, str) else ""
    return text[:_MAX_MESSAGE] or "PM2 reported an error without saying which"
