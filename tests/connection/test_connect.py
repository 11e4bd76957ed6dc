"""URLs, and the connection of the read path."""

# ruff: noqa: S106 - these passwords open nothing

from __future__ import annotations

import asyncio
import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.connection.address import Address, Client, parse_url
from qctl.connection.connect import connect
from qctl.connection.socket_client import MAX_PIPELINE, encode
from qctl.errors import ExitStatus, QctlError, ReplyError, UnreachableError, UsageError
from qctl.runtime.loop.connection import AsyncConnection
from tests.labs.servers import RedisServer, free_port

# URLs


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://h", Address(host="h"), "redis://h:6379/0"),
        ("redis://h:7000/3", Address(host="h", port=7000, db=3), "redis://h:7000/3"),
        ("redis://h/?db=2", Address(host="h", db=2), "redis://h:6379/2"),
        ("redis://:pw@h", Address(host="h", password="pw"), "redis://h:6379/0"),
        (
            "redis://ann:p%40%2F%3Aw@h:1/0",
            Address(host="h", port=1, username="ann", password="p@/:w"),
            "redis://ann@h:1/0",
        ),
        ("redis://[::1]:7000/1", Address(host="::1", port=7000, db=1), "redis://[::1]:7000/1"),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none",
            Address(
                host="h",
                tls=True,
                tls_options={"ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": "none"},
            ),
            "rediss://h:6379/0",
        ),
        (
            "unix:///run/my%20redis.sock?db=4",
            Address(unix_path="/run/my redis.sock", db=4),
            "unix:///run/my redis.sock?db=4",
        ),
        (
            "redis+sentinel://:pw@a:1,b/mymaster/2",
            Address(
                mode="sentinel",
                password="pw",
                nodes=(("a", 1), ("b", 26379)),
                master_name="mymaster",
                db=2,
            ),
            "redis+sentinel://a:1,b:26379/mymaster/2",
        ),
        (
            "redis+cluster://a:7000,b:7001",
            Address(mode="cluster", host="a", port=7000, nodes=(("a", 7000), ("b", 7001))),
            "redis+cluster://a:7000,b:7001",
        ),
    ],
)
def test_urls(url: str, expected: Address, shown: str) -> None:
    assert parse_url(url) == expected
    assert str(expected) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://h",
        "redis:h",
        "redis://:s3cretive@h:port",
        "redis://:s3cretive@h:99999",
        "redis://:s3cretive@h/zero",
        "redis://:s3cretive@[::1",
        "redis+sentinel://:s3cretive@h:1",
        # Characters that should have been written as %XX.
        "redis://:s3cretive/x@h",
        "redis://:12#s3cretive@h/0",
        "redis://ann:12?s3cretive@h",
        "redis+cluster://:12/s3cretive@h:1",
        "redis+sentinel://ann:12#s3cretive@h:1/m",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(url)
    error = caught.value
    assert error.exit_status == ExitStatus.USAGE
    assert error.hint
    assert "s3cretive" not in f"{error.what} {error.why} {error.hint}"
    # Nor with --debug, where the causes are shown as well.
    shown = "".join(traceback.format_exception(error))
    assert "s3cretive" not in shown


@given(
    scheme=st.sampled_from(["redis", "rediss", "redis+sentinel", "redis+cluster", "unix"]),
    user=st.text(max_size=8),
    password=st.text(min_size=1),
)
def test_any_password_is_understood_and_never_shown(scheme: str, user: str, password: str) -> None:
    secret = f"s3cretive{password}"
    credentials = f"{quote(user, safe='')}:{quote(secret, safe='')}"
    rest = {"redis+sentinel": "h:1/m", "unix": "/run/r.sock"}.get(scheme, "h:1")
    address = parse_url(f"{scheme}://{credentials}@{rest}")
    assert address.password == secret
    assert address.username == (user or None)
    assert "s3cretive" not in f"{address} {address!r}"


@given(st.binary())
def test_bytes_from_redis_go_back_unchanged(raw: bytes) -> None:
    assert encode(raw) == raw
    assert encode(raw.decode("utf-8", "surrogateescape")) == raw


@given(st.text(st.characters(codec=None)), st.integers())
def test_every_argument_can_be_sent(text: str, number: int) -> None:
    assert isinstance(encode(text), bytes)
    assert encode(number) == str(number).encode()


# Connections


def open_client(url: str) -> contextlib.closing[Client]:
    return contextlib.closing(connect(url)[1])


def test_nothing_is_sent_before_the_first_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def is_called() -> bool:
            return bool(select.select([listener], [], [], 0)[0])

        with open_client(f"redis://127.0.0.1:{port}/0"):
            assert not is_called()
        # A connection would have been seen.
        with socket.create_connection(("127.0.0.1", port)):
            assert is_called()


def test_replies_are_plain(client: Client) -> None:
    assert client.call("SET", "k", "ü") == "OK"
    assert client.call("GET", b"k") == "ü"
    assert client.call("GET", "missing") is None
    assert client.call("INCRBY", "n", 5) == 5
    assert client.call("RPUSH", "l", "a", b"\xff") == 2
    assert client.call("LRANGE", "l", 0, -1) == ["a", "\udcff"]
    assert client.masters() == [client]


def test_a_pipeline_returns_errors_in_their_place(client: Client) -> None:
    client.call("SET", "k", "v")
    got, failed, pong = client.pipeline([("GET", "k"), ("LLEN", "k"), ("PING",)])
    assert (got, pong) == ("v", "PONG")
    assert isinstance(failed, ReplyError)
    assert failed.code == "WRONGTYPE"
    assert failed.what.endswith("(LLEN k)")


def test_a_long_pipeline(client: Client) -> None:
    count = MAX_PIPELINE * 2 + 1
    assert client.pipeline([("ECHO", n) for n in range(count)]) == [str(n) for n in range(count)]


def test_an_error_keeps_values_out_of_its_text(client: Client) -> None:
    client.call("LPUSH", "list", "x")
    with pytest.raises(ReplyError) as caught:
        client.call("SETRANGE", "list", 0, "s3cretive")
    assert "s3cretive" not in f"{caught.value.what} {caught.value.why}"


def test_databases(redis_url: str, client: Client) -> None:
    with open_client(redis_url.removesuffix("/0") + "/3") as third:
        third.call("SET", "k", "v")
        assert third.call("DBSIZE") == 1
    assert client.call("DBSIZE") == 0


def test_a_database_that_does_not_exist(redis_url: str) -> None:
    with open_client(redis_url.removesuffix("/0") + "/99") as client:
        with pytest.raises(ReplyError) as caught:
            client.call("PING")
        assert "out of range" in caught.value.why


def test_passwords(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--requirepass", "s3cretive p@ss")
    with open_client(server.url_for(password=quote("s3cretive p@ss"))) as client:
        assert client.call("PING") == "PONG"
    for url, code in (
        (server.url, "NOAUTH"),
        (server.url_for(password="s3cretive2"), "WRONGPASS"),
        (server.url_for("nobody", "s3cretive3"), "WRONGPASS"),
    ):
        with open_client(url) as client, pytest.raises(ReplyError) as caught:
            client.call("PING")
        assert caught.value.code == code
        assert caught.value.exit_status == ExitStatus.UNREACHABLE
        assert "s3cretive" not in "".join(traceback.format_exception(caught.value))
    # Redis refuses a long command before it looks for the password.
    for command in (("MGET", *"abcdefghijkl"), ("SET", "a", "b" * 3_000_000)):
        with open_client(server.url) as client, pytest.raises(ReplyError, match="for a password"):
            client.call(*command)


def test_a_unix_socket(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    start_redis("--unixsocket", str(path))
    with open_client(f"unix://{path}?db=2") as client:
        client.call("SET", "k", "v")
        assert client.call("INFO", "keyspace").count("db2:keys=1") == 1
    with open_client(f"unix://{tmp_path}/none.sock") as client:
        with pytest.raises(UnreachableError) as caught:
            client.call("PING")
        assert "none.sock" in caught.value.what


def test_nobody_listens() -> None:
    url = f"redis://:s3cretive@127.0.0.1:{free_port()}/0"
    with open_client(url) as client:
        with pytest.raises(UnreachableError) as caught:
            client.call("PING")
        error = caught.value
    assert error.exit_status == ExitStatus.UNREACHABLE
    assert "127.0.0.1" in error.what
    assert "refused" in error.why
    assert error.hint
    assert "s3cretive" not in "".join(traceback.format_exception(error))


def test_it_connects_again_after_a_restart(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis()
    with open_client(server.url) as client:
        client.call("PING")
        server.kill()
        with pytest.raises(UnreachableError):
            client.call("PING")
        with pytest.raises(UnreachableError):
            client.pipeline([("PING",), ("PING",)])
        server.start()
        assert client.call("PING") == "PONG"


def test_a_killed_connection_does_not_mix_up_replies(client: Client, redis_url: str) -> None:
    with open_client(redis_url) as other:
        number = other.call("CLIENT", "ID")
        client.call("CLIENT", "KILL", "ID", number)
        assert other.pipeline([("ECHO", n) for n in range(100)]) == [str(n) for n in range(100)]
        assert other.call("ECHO", "mine") == "mine"


@contextlib.contextmanager
def server_that_answers(reply: bytes) -> Iterator[int]:
    """A server that sends ``reply`` to whatever comes, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1024)
                    peer.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
    thread.join(10)


@pytest.mark.parametrize("reply", [b"", b"$10\r\nhalf"])
def test_a_reply_that_breaks_off(reply: bytes) -> None:
    with server_that_answers(reply) as port, open_client(f"redis://127.0.0.1:{port}") as client:
        with pytest.raises(UnreachableError) as caught:
            client.call("PING")
        assert "closed" in caught.value.why


def test_a_server_that_is_no_redis() -> None:
    page = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with (
        server_that_answers(page) as port,
        open_client(f"redis://127.0.0.1:{port}") as client,
        pytest.raises(QctlError),
    ):
        client.call("PING")


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    if not shutil.which("openssl"):
        pytest.fail("the TLS tests need the openssl command: install openssl", pytrace=False)
    subprocess.run(
        (
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=qctl test", "-keyout", "key.pem"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", "cert.pem"),
        ),
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture
def tls_port(certificate: Path, redis_server: RedisServer) -> Iterator[int]:
    """TLS in front of the shared Redis, for one connection at a time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), raw:
                    forward(context, raw, redis_server.port)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def forward(context: ssl.SSLContext, raw: socket.socket, port: int) -> None:
    """One request, one reply, until the client hangs up."""
    with (
        context.wrap_socket(raw, server_side=True) as peer,
        socket.create_connection(("127.0.0.1", port)) as redis,
    ):
        while request := peer.recv(65_536):
            redis.sendall(request)
            peer.sendall(redis.recv(65_536))


def test_tls(tls_port: int, certificate: Path) -> None:
    with open_client(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}") as client:
        assert client.call("PING") == "PONG"
    with open_client(f"rediss://127.0.0.1:{tls_port}/0?ssl_cert_reqs=none") as client:
        assert client.call("PING") == "PONG"
        # What TLS itself sends later does not count as the end of a connection.
        assert len({client.call("CLIENT", "ID") for _ in range(5)}) == 1


def test_tls_on_an_event_loop(tls_port: int, certificate: Path) -> None:
    async def main() -> set[int]:
        url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}"
        connection = AsyncConnection(parse_url(url))
        await connection.open()
        found = {await connection.call("CLIENT", "ID") for _ in range(5)}
        await connection.close()
        return found

    assert len(asyncio.run(main())) == 1


def test_an_unknown_certificate_is_refused(tls_port: int) -> None:
    with open_client(f"rediss://127.0.0.1:{tls_port}/0") as client:
        with pytest.raises(UnreachableError) as caught:
            client.call("PING")
        assert "certificate" in caught.value.why.lower()


def test_tls_to_a_server_without_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Redis waits for the rest of what it takes for a command.
    monkeypatch.setattr("qctl.connection.socket_client.CONNECT_TIMEOUT_S", 0.3)
    url = redis_server.url.replace("redis://", "rediss://")
    with open_client(url) as client, pytest.raises(UnreachableError):
        client.call("PING")
