"""fakeredis, used through redis-py, as a ``Client``.

For fakeredis only, never for a server: redis-py sends a command again when its reply is lost.
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
    """A ``fakeredis.FakeRedis`` with raw replies.

    Args:
        client: the redis-py client, created without ``decode_responses``.
        where: the server's name in errors.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where
        # redis-py converts some replies to dicts, booleans and dates; a ``Client`` has raw replies.
        client.response_callbacks.clear()

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:  # noqa: ARG002
        # ``timeout_s`` has no use: no command of qctl blocks longer than the socket's own timeout.
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
            # Not chained: the text of the cause may repeat the command's values.
            raise ReplyError(_message(error), command=command) from None
        except redis.exceptions.RedisError as error:
            raise UnreachableError(f"Redis at {self._where} failed", why=str(error)) from error


# redis-py removes the error code from errors of these classes; restore it.
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
    """The command with its name as text: redis-py looks up some commands by name."""
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
