"""Sentinel, through redis-py, behind the same ``Client`` protocol as ``resp.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
import redis.exceptions
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from qctl.connect import Address, Arg, Client
from qctl.errors import ReplyError, UnreachableError
from qctl.resp import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, encode


class RedisPyClient:
    """Wraps a ``redis.Redis`` with raw replies.

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
        except redis.exceptions.AuthenticationError as error:
            raise ReplyError(f"NOAUTH {error}", command="AUTH") from None
        except redis.sentinel.MasterNotFoundError as error:
            # The rest of its text, and the error itself, show the connections with all settings.
            found_none = str(error).partition(" : ")[0]
            raise UnreachableError(
                f"no sentinel names the master of {self._where}",
                why=f"{found_none}: no sentinel answers, or none that does knows it",
                hint="check the sentinels' addresses and the master's name in the URL",
            ) from None
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            raise UnreachableError(
                f"Redis at {self._where} cannot be reached",
                why=str(error),
                hint="start it, or name another one with --redis URL or QCTL_REDIS_URL",
            ) from error
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


def open_client(address: Address) -> Client:
    """A client for the master that sentinels name. Nothing is sent before the first command."""
    master = _sentinel(address).master_for(address.master_name, db=address.db)
    return RedisPyClient(master, str(address))


def find_master(address: Address) -> tuple[str, int]:
    """Host and port of the master that sentinels name.

    Raises:
        UnreachableError: no sentinel answers, or none knows it.
    """
    try:
        host, port = _sentinel(address).discover_master(address.master_name)
    except redis.exceptions.RedisError as error:
        found_none = str(error).partition(" : ")[0]
        raise UnreachableError(
            f"no sentinel names the master of {address}",
            why=found_none,
            hint="check the sentinels' addresses and the master's name in the URL",
        ) from None
    return str(host), int(port)


def _sentinel(address: Address) -> Any:
    options: dict[str, Any] = {
        "socket_timeout": REPLY_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "protocol": 2,
        # Whoever calls decides whether to try again.
        "retry": Retry(NoBackoff(), 1),
    }
    if address.tls:
        options |= {"ssl": True, **address.tls_options}
    return redis.sentinel.Sentinel(
        list(address.nodes),
        # The sentinels themselves are asked without a password.
        sentinel_kwargs=options,
        username=address.username,
        password=address.password,
        **options,
    )
