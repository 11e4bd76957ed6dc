"""URLs, and what a server sends that may not be a Redis: an answer, or a QctlError."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from qctl.connection.address import Address, parse_url
from qctl.connection.socket_client import SocketClient
from qctl.errors import QctlError, UsageError
from qctl.output.text import visible, without_passwords
from qctl.runtime.loop.connection import AsyncConnection
from tests.fuzz.cases import answering
from tests.labs.fuzzing import ANY_TEXT, TEXT, assert_clean, fuzz

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "valkey", "postgres")
URLS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(SCHEMES),
    st.sampled_from(("", "u:p@", ":p@", "a@b@", "u:%zz@")) | TEXT,
    st.sampled_from(("h", "h:1", "[::1]:5", "[::1", "h:99999", "h:²", "h1:1,h2:x", "")) | TEXT,
    st.sampled_from(("", "/0", "/m/1", "/-1", "/²", "/" + "9" * 5000, "//", "/x/y/z")) | TEXT,
    st.sampled_from(("", "?db=x", "?db=1&db=2", "?ssl_password=s", "#f", "?%00=%ff")) | TEXT,
)


@fuzz(url=URLS | ANY_TEXT)
def test_urls(url: str) -> None:
    try:
        address = parse_url(url)
    except UsageError as error:
        assert_clean(*map(visible, error.lines))
        return
    assert_clean(visible(str(address)))
    assert address.greeting() is not None


@fuzz(text=ANY_TEXT | URLS | st.lists(URLS, max_size=3).map(" ".join))
def test_passwords_are_masked_soon(text: str) -> None:
    masked = without_passwords(text)
    assert without_passwords(masked) == masked


def assert_explained(error: QctlError) -> None:
    assert_clean(*map(visible, error.lines))
    assert "s3cret" not in str(error)


REPLIES = st.lists(
    st.sampled_from(
        (
            *(b"+OK\r\n", b"-ERR no\r\n", b":1\r\n", b"$2\r\nab\r\n", b"$-1\r\n", b"*-1\r\n"),
            *(
                b"*2\r\n",
                b"*1\r\n" * 5000,
                b"*2147483647\r\n",
                b"$2147483647\r\n",
                b"*99999999\r\n",
            ),
            *(
                b"%1\r\n*0\r\n",
                b"~1\r\n",
                b"~1\r\n*0\r\n",
                b">1\r\n",
                b"_\r\n",
                b"#t\r\n",
                b",inf\r\n",
            ),
            *(
                b"(99999999999999999999\r\n",
                b"=3\r\ntxt\r\n",
                b"!3\r\nERR\r\n",
                b"|1\r\n",
                b"HTTP/1.1",
            ),
            *(b"$3\r\n\xff\xfe\x1b\r\n", b"-MOVED 1 x:y\r\n", b"-LOADING\r\n", b"-\x1b[31m\r\n"),
            *(b":x\r\n", b"$x\r\n", b"*x\r\n", b"-NOAUTH\r\n", b"-READONLY x\r\n", b"\r\n", b"+"),
        )
    )
    | st.binary(max_size=9),
    max_size=8,
).map(b"".join)
COMMANDS = (("GET", "x"), ("INFO",), ("SET", "a", "\udcff"))


@fuzz(data=REPLIES, password=st.none() | st.just("s3cret"))
def test_replies_to_commands(data: bytes, password: str | None) -> None:
    with TemporaryDirectory() as folder, answering(Path(folder) / "s", data):
        client = SocketClient(Address(unix_path=f"{folder}/s", password=password))
        try:
            for reply in (client.call("GET", "x"), *client.pipeline(COMMANDS)):
                assert reply is not False or b"#f" in data
        except QctlError as error:
            assert_explained(error)
        finally:
            client.close()


@fuzz(data=REPLIES, password=st.none() | st.just("s3cret"))
def test_replies_in_an_event_loop(data: bytes, password: str | None) -> None:
    async def ask(path: str) -> None:
        connection = AsyncConnection(Address(unix_path=path, password=password), name="n")
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        try:
            async with asyncio.timeout(5):
                await connection.call("GET", "x")
                await connection.pipeline(COMMANDS)
        except QctlError as error:
            assert_explained(error)
        finally:
            await connection.close()
        # A map with a list as its key, which no Redis sends, ends the connection in another way.
        assert all("unhashable" in str(fault["exception"]) for fault in faults)

    with TemporaryDirectory() as folder, answering(Path(folder) / "s", data):
        asyncio.run(ask(f"{folder}/s"))
