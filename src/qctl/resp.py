"""A small synchronous Redis connection: a socket and hiredis' parser.

Why not redis-py here: ``import redis`` loads asyncio and costs 110-150 ms, more than all the rest
of ``qctl status`` together. One node, one connection, commands in and replies out is all that the
read path needs; sentinel and cluster go through redis-py (``redis_py.py``), behind the same
``Client`` protocol.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import hiredis

from qctl.errors import ReplyError, UnreachableError, UsageError

if TYPE_CHECKING:
    import ssl

    from qctl.connect import Address, Arg, Client

# Commands sent before their replies are read. Bounds what Redis must buffer for us.
MAX_PIPELINE = 25_000
# A reply may take this long, on top of a blocking command's own timeout.
REPLY_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
_READ_SIZE = 65_536


def encode(arg: Arg) -> bytes:
    """The bytes of one argument; text that came from Redis as bytes goes back unchanged."""
    if isinstance(arg, bytes):
        return arg
    if isinstance(arg, str):
        try:
            return arg.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return arg.encode("utf-8", "surrogatepass")
    return b"%d" % arg


def _describe(command: Sequence[Arg]) -> str:
    """Command and key, for error messages. Values stay out: they may be secrets."""
    name, *rest = (encode(arg).decode("utf-8", "replace") for arg in command[:2])
    hides_key = name in {"AUTH", "EVAL", "EVALSHA", "SCRIPT"}
    return name if hides_key else " ".join([name, *rest])


def _pack(commands: Sequence[Sequence[Arg]]) -> bytes:
    return b"".join(map(_pack_one, commands))


def _pack_one(command: Sequence[Arg]) -> bytes:
    words: Any = tuple(command)
    try:
        packed: bytes = hiredis.pack_command(words)
    except (UnicodeEncodeError, TypeError):
        # Bytes that came from Redis as text, which hiredis does not know; this is slower.
        words = tuple(map(encode, command))
        packed = hiredis.pack_command(words)
    return packed


def _reason(error: OSError | UnicodeError) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason[0].upper() + reason[1:]


class SocketClient:
    """One connection to one Redis server. Connects on first use and again after a failure.

    Text in replies is ``str``; bytes that are not UTF-8 become lone surrogates and go back
    unchanged when sent as an argument.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        self._reader = self._new_reader()

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        """One command, its reply.

        Args:
            command: the words of the command.
            timeout_s: how long a blocking command may block, in seconds.

        Raises:
            ReplyError: Redis answered with an error.
            UnreachableError: no connection, or it broke.
        """
        reply = self._exchange([command], timeout_s)[0]
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Many commands in one round trip (one per 25,000); errors are returned in their place."""
        replies: list[Any] = []
        for start in range(0, len(commands), MAX_PIPELINE):
            replies += self._exchange(commands[start : start + MAX_PIPELINE], 0.0)
        return replies

    def masters(self) -> list[Client]:
        """The nodes that together hold all keys: this one."""
        return [self]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # The connection itself

    @staticmethod
    def _new_reader() -> hiredis.Reader:
        return hiredis.Reader(encoding="utf-8", errors="surrogateescape")

    def _exchange(self, commands: Sequence[Sequence[Arg]], timeout_s: float) -> list[Any]:
        try:
            sock = self._socket or self._connect()
            sock.settimeout(REPLY_TIMEOUT_S + timeout_s)
            sock.sendall(_pack(commands))
            get = self._reader.gets
            return [
                # Most replies are there already; a call of our own for each takes longer than they.
                reply
                if (reply := get()) is not False and not isinstance(reply, hiredis.ReplyError)
                else self._read(sock, command, reply)
                for command in commands
            ]
        except (OSError, UnicodeError) as error:
            # Python raises the latter for a host name that no DNS can hold.
            self.close()
            raise self._unreachable(error) from error
        except hiredis.ProtocolError as error:
            self.close()
            raise self._no_redis() from error
        except BaseException:
            # A reply may be half read: this connection cannot be used again.
            self.close()
            raise

    def _read(self, sock: socket.socket, command: Sequence[Arg], reply: Any = False) -> Any:
        """The next reply, which may be there already as far as the parser is concerned."""
        while reply is False and (reply := self._reader.gets()) is False:
            chunk = sock.recv(_READ_SIZE)
            if not chunk:
                raise ConnectionResetError("Redis closed the connection")
            self._reader.feed(chunk)
        if isinstance(reply, hiredis.ReplyError):
            message = str(reply)
            if self.address.password:
                # What answers may be no Redis, and may repeat what it was sent.
                message = message.replace(self.address.password, "***")
            return ReplyError(message, command=_describe(command))
        return reply

    def _connect(self) -> socket.socket:
        address = self.address
        self._reader = self._new_reader()
        if address.unix_path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_TIMEOUT_S)
            try:
                sock.connect(address.unix_path)
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if address.tls:
            sock = self._wrap_tls(sock)
        self._socket = sock
        try:
            self._greet(sock)
        except BaseException:
            self.close()
            raise
        return sock

    def _wrap_tls(self, sock: socket.socket) -> socket.socket:
        try:
            context = tls_context(self.address)
            return context.wrap_socket(sock, server_hostname=self.address.host)
        except OSError as error:
            sock.close()
            raise UnreachableError(
                f"no TLS connection to Redis at {self.address}",
                why=_reason(error),
                hint="for a Redis without TLS the URL begins with redis://; for a certificate of "
                "your own, add ?ssl_ca_certs=FILE",
            ) from error
        except BaseException:
            sock.close()
            raise

    def _greet(self, sock: socket.socket) -> None:
        commands: list[Sequence[Arg]] = []
        if self.address.password is not None:
            user = (self.address.username,) if self.address.username else ()
            commands.append(("AUTH", *user, self.address.password))
        if self.address.db:
            # Not sent for database 0: a user with only @read may not SELECT.
            commands.append(("SELECT", self.address.db))
        if not commands:
            return
        sock.settimeout(CONNECT_TIMEOUT_S)
        sock.sendall(_pack(commands))
        for command in commands:
            reply = self._read(sock, command)
            if isinstance(reply, ReplyError):
                raise reply
            if reply != "OK":
                raise self._no_redis()

    def _no_redis(self) -> UnreachableError:
        return UnreachableError(
            f"what answers at {self.address} is not a Redis",
            why="its answer is not in Redis' protocol",
            hint="check the host and port in --redis URL or QCTL_REDIS_URL; "
            "a Redis with TLS needs rediss://",
        )

    def _unreachable(self, error: OSError | UnicodeError) -> UnreachableError:
        return UnreachableError(
            f"Redis at {self.address} cannot be reached",
            why=_reason(error),
            hint="start it, or name another one with --redis URL or QCTL_REDIS_URL",
        )


def tls_context(address: Address) -> ssl.SSLContext:
    """The TLS settings of an address.

    Raises:
        UsageError: a certificate file cannot be read.
    """
    import ssl  # noqa: PLC0415 - 10 ms that only TLS users pay

    options = address.tls_options
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if options.get("ssl_cert_reqs") == "none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate := options.get("ssl_certfile"):
            context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    except OSError as error:
        raise UsageError(
            "a certificate file that the Redis URL names cannot be read",
            why=_reason(error),
            hint="check ssl_ca_certs, ssl_certfile and ssl_keyfile in the URL",
        ) from error
    return context
