"""A small synchronous Redis connection: a socket and hiredis' parser.

qctl does not use redis-py: ``import redis`` loads asyncio and costs 110-150 ms, more than the rest
of ``qctl status``. And redis-py sends a command again when the reply is lost, so the command may be
applied twice. This client sends a command once. The caller decides whether to try again (see
``errors.is_outage``): only the caller knows whether applying the command twice does harm.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import hiredis

from qctl.errors import NOT_THE_MASTER, ReplyError, UnreachableError, UsageError

if TYPE_CHECKING:
    import ssl

    from qctl.connection.address import Address, Arg, Client

# How many commands to send at most before reading: Redis keeps unread replies in memory.
MAX_PIPELINE = 25_000
# How long a reply may take, on top of a blocking command's own timeout.
REPLY_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
_READ_SIZE = 65_536
# For SO_LINGER: on, and 0 s.
_LINGER_0_S = struct.pack("ii", 1, 0)


def encode(arg: Arg) -> bytes:
    """The bytes of one argument. For text that came from Redis, these are the bytes in Redis."""
    if isinstance(arg, bytes):
        return arg
    if isinstance(arg, str):
        try:
            return arg.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return arg.encode("utf-8", "surrogatepass")
    return b"%d" % arg


def _describe(command: Sequence[Arg]) -> str:
    """Command and key, for error messages. Values may be secrets, so they are left out."""
    name, *rest = (encode(arg).decode("utf-8", "replace") for arg in command[:2])
    # In these commands, the second word is not a key: it may be a password or a whole script.
    hides_key = name in {"AUTH", "EVAL", "EVALSHA", "SCRIPT"}
    return name if hides_key else " ".join([name, *rest])


def _pack(commands: Sequence[Sequence[Arg]]) -> bytes:
    return b"".join(map(_pack_one, commands))


def _pack_one(command: Sequence[Arg]) -> bytes:
    words: Any = tuple(command)
    try:
        packed: bytes = hiredis.pack_command(words)
    except (UnicodeEncodeError, TypeError):
        # hiredis cannot encode lone surrogates, which stand for bytes that are not UTF-8.
        words = tuple(map(encode, command))
        packed = hiredis.pack_command(words)
    return packed


_IS_OFF = "start it, or name another Redis with --redis URL or QCTL_REDIS_URL"
_IS_SILENT = (
    "check that it runs, and that no network or firewall between here and there drops packets; or "
    "name another Redis with --redis URL"
)


def no_answer(limit_s: float) -> TimeoutError:
    """The error after a time limit."""
    return TimeoutError(f"no answer for {limit_s:g} s")


def _reason(error: OSError | UnicodeError) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason[0].upper() + reason[1:]


class SocketClient:
    """One connection to one Redis server. Connects on first use, and again after a failure.

    Connects again, too, if the server closed the idle connection, or is no longer the master. A
    forked process gets its own connection: it must not read its parent's replies. Not thread-safe.

    Text in replies is ``str``; bytes that are not UTF-8 become lone surrogates and go back
    unchanged when sent as an argument.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        self._reader = self._new_reader()
        self._poll = select.poll()
        self._pid = 0
        # True until the first commands on this connection have been answered.
        self._is_new = False
        # The error with which the server refused this new connection, if any.
        self._refusal: ReplyError | None = None
        self._is_master = True

    def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
        """Send one command and return its reply.

        Args:
            command: the words of the command.
            timeout_s: how long a blocking command may block, in seconds.

        Raises:
            ReplyError: Redis answered with an error.
            UnreachableError: there is no connection, or it broke.
            UsageError: a certificate file cannot be read.
        """
        reply = self._exchange([command], timeout_s)[0]
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Send many commands, 25,000 per round trip. Error replies are returned, not raised."""
        replies: list[Any] = []
        for start in range(0, len(commands), MAX_PIPELINE):
            replies += self._exchange(commands[start : start + MAX_PIPELINE], 0.0)
        return replies

    def masters(self) -> list[Client]:
        """This one server, which has all keys."""
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
        limit_s = CONNECT_TIMEOUT_S
        try:
            sock = self._usable_socket() or self._connect()
            limit_s = REPLY_TIMEOUT_S + timeout_s
            sock.settimeout(limit_s)
            sock.sendall(_pack(commands))
            get = self._reader.gets
            replies = [
                # Most replies have arrived already. Taking them here saves slow calls of _read.
                reply
                if (reply := get()) is not False and not isinstance(reply, hiredis.ReplyError)
                else self._read(sock, command, reply)
                for command in commands
            ]
        except (OSError, UnicodeError) as error:
            # Python raises UnicodeError for a host name that is not valid in DNS.
            refusal = self._read_refusal()
            self.close()
            is_silent = isinstance(error, TimeoutError)
            raise refusal or UnreachableError(
                f"Redis at {self.address} cannot be reached",
                why=str(no_answer(limit_s)) if is_silent else _reason(error),
                hint=_IS_SILENT if is_silent else _IS_OFF,
            ) from error
        except (hiredis.ProtocolError, MemoryError, TypeError) as error:
            # MemoryError: the answer claims to have a billion parts. TypeError: the answer has a
            # set of lists. Redis never sends this to qctl, because qctl does not ask for RESP3.
            self.close()
            raise self._not_a_redis() from error
        except BaseException:
            # A reply may be half read: do not use this connection again.
            self.close()
            raise
        self._is_new, self._refusal = False, None
        if not self._is_master:
            self.close()
        return replies

    def _usable_socket(self) -> socket.socket | None:
        """The open socket, or None. Closes a socket that must not be used any more."""
        if self._socket is not None:
            is_forked = self._pid != os.getpid()
            # If there is data to read, the server closed the idle connection or sent a stray reply.
            if is_forked or self._poll.poll(0) or self._reader.has_data():
                self.close()
        return self._socket

    def _read_refusal(self) -> ReplyError | None:
        """The error that the server sent before it closed a new connection, or None."""
        sock = self._socket
        if sock is None or not self._is_new:
            return None
        with contextlib.suppress(OSError, hiredis.ProtocolError, MemoryError, TypeError):
            sock.settimeout(0)
            while self._refusal is None and (chunk := sock.recv(_READ_SIZE)):
                self._reader.feed(chunk)
                reply = self._reader.gets()
                if isinstance(reply, hiredis.ReplyError):
                    self._refusal = self._reply_error(str(reply), "")
        return self._refusal

    def _reply_error(self, message: str, command: str) -> ReplyError:
        # A server that is not a Redis may send the password back: hide it.
        error = ReplyError(message, command=command, secret=self.address.password or "")
        if error.code in NOT_THE_MASTER:
            self._is_master = False
        if self._is_new and error.refuses_service:
            self._refusal = error
        return error

    def _read(self, sock: socket.socket, command: Sequence[Arg], reply: Any = False) -> Any:
        """The next reply. ``reply`` is what the parser returned last: a reply, or False if none."""
        while reply is False and (reply := self._reader.gets()) is False:
            chunk = sock.recv(_READ_SIZE)
            if not chunk:
                raise ConnectionResetError("Redis closed the connection")
            self._reader.feed(chunk)
        if isinstance(reply, hiredis.ReplyError):
            return self._reply_error(str(reply), _describe(command))
        return reply

    def _connect(self) -> socket.socket:
        address = self.address
        self._reader = self._new_reader()
        self._is_new, self._refusal, self._is_master = True, None, True
        # If anything fails, the caller closes ``self._socket``.
        if address.unix_path:
            self._socket = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_TIMEOUT_S)
            sock.connect(address.unix_path)
        else:
            sock = socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S)
            self._socket = sock
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                set_up_tcp(sock)
        if address.tls:
            self._socket = sock = self._wrap_tls(sock)
        self._pid = os.getpid()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        for reply in self._ask(sock, address.greeting()):
            if reply != "OK":
                raise self._not_a_redis()
        return sock

    def _wrap_tls(self, sock: socket.socket) -> socket.socket:
        try:
            context = tls_context(self.address)
            return context.wrap_socket(sock, server_hostname=server_name(self.address))
        except OSError as error:
            raise UnreachableError(
                f"no TLS connection to Redis at {self.address}",
                why=_reason(error),
                hint="without TLS use redis://; for a private CA add ?ssl_ca_certs=FILE",
            ) from error

    def _ask(self, sock: socket.socket, commands: Sequence[Sequence[Arg]]) -> Iterator[Any]:
        """Send commands while connecting; yields the replies, and raises the first error reply."""
        sock.settimeout(CONNECT_TIMEOUT_S)
        sock.sendall(_pack(commands))
        for command in commands:
            reply = self._read(sock, command)
            if isinstance(reply, ReplyError):
                raise reply
            yield reply

    def _not_a_redis(self) -> UnreachableError:
        return UnreachableError(
            f"the server at {self.address} is not a Redis",
            why="its answer is not in Redis' protocol",
            hint="check the host and port in --redis URL or QCTL_REDIS_URL; "
            "a Redis with TLS needs rediss://",
        )


def set_up_tcp(sock: Any) -> None:
    """Set the options of a TCP connection to Redis.

    When the socket is closed, or its process dies, the system must discard what it has not sent.
    Otherwise, after a network partition, Redis would carry out a command long after the caller got
    an error: for example, a pause that arrives after the resume.

    Args:
        sock: a socket, or asyncio's wrapper of one.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def tls_context(address: Address) -> ssl.SSLContext:
    """The TLS context for an address, from the ``ssl_…`` parameters of its URL.

    Raises:
        UsageError: a certificate file cannot be read.
    """
    import ssl  # noqa: PLC0415 - 10 ms, only for TLS

    options = address.tls_options
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if options.get("ssl_cert_reqs") == "none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate := options.get("ssl_certfile"):
            # If no passphrase is given, not even an empty one, OpenSSL asks for it on the terminal.
            password = options.get("ssl_password", "")
            context.load_cert_chain(certificate, options.get("ssl_keyfile"), lambda: password)
    except OSError as error:
        raise UsageError(
            "a certificate file of the Redis URL cannot be read",
            why=_reason(error),
            hint="check the files and the key's passphrase: ssl_ca_certs, ssl_certfile, "
            "ssl_keyfile, ssl_password in the URL, or [redis.tls] of the config",
        ) from error
    return context


def server_name(address: Address) -> str:
    """The name that the server's certificate must have; it is also sent to the server (SNI)."""
    return address.tls_options.get("ssl_server_name") or address.host
