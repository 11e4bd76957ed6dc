"""A real Redis with TLS that asks for the client's certificate, and sentinels with a password."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qctl.connection.address import parse_url
from qctl.connection.connect import connect
from qctl.errors import QctlError, UnreachableError, UsageError
from qctl.output.text import without_passwords
from qctl.runtime.loop.connection import AsyncConnection
from tests.labs.cli import run
from tests.labs.servers import RedisServer, free_port

PASSPHRASE = "p@ss & phrase"  # noqa: S105 - a test value
NAME = "redis.internal"


@dataclass(frozen=True)
class TlsServer:
    """A Redis that accepts clients only over TLS and with a certificate; its own is for ``NAME``.

    Args:
        folder: has ``ca.pem``, ``client.pem`` and ``client.key``, which is encrypted.
    """

    port: int
    folder: Path

    def url(self, scheme: str = "rediss", **parameters: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"{scheme}://127.0.0.1:{self.port}/0?{query}"

    def full_url(self, scheme: str = "rediss", **parameters: str) -> str:
        return self.url(
            scheme,
            ssl_ca_certs=f"{self.folder}/ca.pem",
            ssl_certfile=f"{self.folder}/client.pem",
            ssl_keyfile=f"{self.folder}/client.key",
            **{"ssl_password": "p%40ss%20%26%20phrase", "ssl_server_name": NAME, **parameters},
        )


def openssl(folder: Path, *words: str) -> None:
    if not shutil.which("openssl"):
        pytest.fail("the TLS tests need the openssl command: install openssl", pytrace=False)
    subprocess.run(("openssl", *words), cwd=folder, check=True, capture_output=True, timeout=60)


def sign(folder: Path, name: str, *options: str) -> None:
    """A key and a certificate that the authority in ``folder`` has signed."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", f"{name}.key")
    signer = ("-CA", "ca.pem", "-CAkey", "ca.key")
    subject = ("-x509", "-days", "2", "-subj", f"/CN={name}", "-out", f"{name}.pem")
    openssl(folder, "req", *subject, *key, *options, *(() if name == "ca" else signer))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    sign(folder, "ca", "-nodes")
    sign(folder, "server", "-nodes", "-addext", f"subjectAltName=DNS:{NAME}")
    sign(folder, "client", "-passout", f"pass:{PASSPHRASE}")
    (folder / "passphrase").write_text(PASSPHRASE)
    (folder / "passphrase").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def server(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> TlsServer:
    port = free_port()
    redis = RedisServer(
        tmp_path_factory.mktemp("redis"),
        *("--tls-port", str(port), "--tls-auth-clients", "yes"),
        *("--tls-ca-cert-file", f"{certificates}/ca.pem"),
        *("--tls-cert-file", f"{certificates}/server.pem"),
        *("--tls-key-file", f"{certificates}/server.key"),
    ).start()
    yield TlsServer(port, certificates)
    redis.stop()


def ping(url: str) -> str:
    with contextlib.closing(connect(url)[1]) as client:
        return str(client.call("PING"))


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_mutual_tls_with_an_encrypted_key_and_another_name(server: TlsServer, scheme: str) -> None:
    assert ping(server.full_url(scheme)) == "PONG"


def test_mutual_tls_of_a_worker(server: TlsServer) -> None:
    async def main() -> str:
        connection = AsyncConnection(parse_url(server.full_url()))
        await connection.open()
        reply = await connection.call("PING")
        await connection.close()
        return str(reply)

    assert asyncio.run(main()) == "PONG"


@pytest.mark.parametrize("passphrase", ["wrong", ""])
def test_a_wrong_passphrase(server: TlsServer, passphrase: str) -> None:
    """It never asks on the terminal."""
    with pytest.raises(UsageError) as caught:
        ping(server.full_url(ssl_password=passphrase))
    assert "passphrase" in caught.value.hint


def test_the_name_in_the_certificate_counts(server: TlsServer) -> None:
    with pytest.raises(UnreachableError, match="no TLS connection"):
        ping(server.full_url(ssl_server_name="other.internal"))


def test_no_client_certificate(server: TlsServer) -> None:
    with pytest.raises(QctlError):
        ping(server.url(ssl_ca_certs=f"{server.folder}/ca.pem", ssl_server_name=NAME))


def test_settings(server: TlsServer, tmp_path: Path) -> None:
    folder = tmp_path / "qctl"
    folder.mkdir()
    (folder / "config.toml").write_text(
        f"""
[contexts.prod.redis]
url = "rediss://127.0.0.1:{server.port}/0"
[contexts.prod.redis.tls]
ca_file = "{server.folder}/ca.pem"
cert_file = "{server.folder}/client.pem"
key_file = "{server.folder}/client.key"
key_password_file = "{server.folder}/passphrase"
server_name = "{NAME}"
"""
    )
    ran = run(
        "jobs", "add", "q", "n", "--create", "--context", "prod", XDG_CONFIG_HOME=f"{tmp_path}"
    )
    assert ran.code == 0, ran.err
    ran = run("config", "view", "--json", "--context", "prod", XDG_CONFIG_HOME=f"{tmp_path}")
    assert f"{server.folder}/client.key" in ran.out
    assert PASSPHRASE not in ran.out + ran.err


def test_variables(server: TlsServer) -> None:
    ran = run(
        *("queues", "--all-prefixes"),
        QCTL_REDIS_URL=f"rediss://127.0.0.1:{server.port}/0",
        QCTL_REDIS_TLS_CA_FILE=f"{server.folder}/ca.pem",
        QCTL_REDIS_TLS_CERT_FILE=f"{server.folder}/client.pem",
        QCTL_REDIS_TLS_KEY_FILE=f"{server.folder}/client.key",
        QCTL_REDIS_TLS_KEY_PASSWORD_FILE=f"{server.folder}/passphrase",
        QCTL_REDIS_TLS_SERVER_NAME=NAME,
    )
    assert ran.code in {0, 3}, ran.err


def test_secrets_in_a_url_are_masked(server: TlsServer) -> None:
    shown = without_passwords(f"at {server.full_url()}&sentinel_password=hidden")
    assert "hidden" not in shown
    assert "phrase" not in shown
    address = parse_url(server.full_url())
    assert "phrase" not in repr(address)
    ran = run("config", "view", "--redis", server.full_url(), "--json")
    assert "phrase" not in ran.out
    assert "every user of this machine can read" in ran.out


def test_sentinels_with_a_user_and_password_of_their_own(
    start_redis: Callable[..., RedisServer],
) -> None:
    master = start_redis("--requirepass", "data")
    watcher = start_redis(
        *("--requirepass", "watch", "--sentinel", "auth-pass", "main", "data"),
        sentinel_of={"main": ("127.0.0.1", master.port)},
    )
    url = f"redis+sentinel://:data@127.0.0.1:{watcher.port}/main/0"
    assert ping(f"{url}?sentinel_username=default&sentinel_password=watch") == "PONG"
    with pytest.raises(UnreachableError):
        ping(f"{url}?sentinel_password=data")


def test_settings_of_tls_for_a_url_without_it(redis_url: str, certificates: Path) -> None:
    ran = run("queues", QCTL_REDIS_URL=redis_url, QCTL_REDIS_TLS_CA_FILE=f"{certificates}/ca.pem")
    assert (ran.code, "without TLS" in ran.err) == (2, True)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_url_of_postgresql(scheme: str) -> None:
    ran = run("status", "--redis", f"{scheme}://u:s3cret@h/db")
    assert (ran.code, "PostgreSQL" in ran.err, "s3cret" in ran.err) == (2, True, False)


def test_a_url_of_valkey(redis_url: str) -> None:
    assert ping(redis_url.replace("redis://", "valkey://")) == "PONG"
