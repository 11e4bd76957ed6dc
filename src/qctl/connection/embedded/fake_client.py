"""fakeredis, through redis-py, behind the same ``Client`` protocol as ``socket_client.py``.

Nothing here reaches a server: redis-py sends a command again when its reply is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
import redis.exceptions

from qctl.connection.address import Arg, Client
from qctl.connection.socket_client import encode
from qctl.errors import ReplyError, UnreachableError


class FakeRedisClient:
    """Wraps a ``fakeredis.FakeRedis`` with raw replies.

    Args:
        client: the redis-py client, created without ``decode_responses``.
        where: how to name the server in an error.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where
        # redis-py turns some replies into dicts, booleans and dates; we read the wire's own form.
        client.response_callbacks.clear()

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:  # noqa: ARG002
        # No qctl command blocks for longer than the socket's own timeout, so ``timeout_s`` is moot.
        with self._errors(str(command[0])):
            return _plain(self._client.execute_command(*_words(command)))

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        with self._errors("a pipeline"):
            pipe = self._client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*_words(command))
            return [_plain(reply) for reply in pipe.execute(raise_on_error=False)]

    def masters(self) -> Sequence[Client]:
        return [self]

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _errors(self, command: str) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.ResponseError as error:
            # Without its cause, whose text may repeat the values of the command.
            raise ReplyError(_message(error), command=command) from None
        except redis.exceptions.RedisError as error:
            raise UnreachableError(f"Redis at {self._where} failed", why=str(error)) from error


# redis-py drops the error code of the classes it knows; put it back.
_CODES: dict[type[Exception], str] = {
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.NoScriptError: "NOSCRIPT",
    redis.exceptions.OutOfMemoryError: "OOM",
}


def _message(error: Exception) -> str:
    code = _CODES.get(type(error), "")
    text = str(error)
    return text if not code or text.startswith(code) else f"{code} {text}"


def _words(command: Sequence[Arg]) -> tuple[str | bytes, ...]:
    """The command's name stays text: redis-py looks some of them up by it."""
    return str(command[0]), *map(encode, command[1:])


def _plain(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "surrogateescape")
    if isinstance(reply, list):
        return [_plain(item) for item in reply]
    if isinstance(reply, redis.exceptions.ResponseError):
        return ReplyError(_message(reply))
    if isinstance(reply, Exception):
        raise reply
    return reply
