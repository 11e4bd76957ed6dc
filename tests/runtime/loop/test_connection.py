"""The event loop's own Redis connection: order, errors, breaks, and nobody left waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from qctl.connection.address import Client, parse_url
from qctl.connection.socket_client import SocketClient
from qctl.errors import ReplyError, UnreachableError
from qctl.runtime.loop import connection as module
from qctl.runtime.loop.connection import AsyncConnection
from qctl.wire.scripts import ScriptCall
from tests.labs.servers import RedisServer, free_port


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[AsyncConnection]:
    connection = AsyncConnection(parse_url(url), **options)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def server_that(*answers: bytes) -> AsyncIterator[str]:
    """A server that gives one answer to each piece it reads and then closes; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(65_536)
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def test_replies_come_back_in_order(redis_url: str) -> None:
    async def main() -> None:
        async with connected(redis_url) as connection:
            answers = await asyncio.gather(*(connection.call("ECHO", str(n)) for n in range(500)))
            assert answers == [str(n) for n in range(500)]
            long = "x" * 3_000_000
            assert await connection.call("ECHO", long) == long

    asyncio.run(main())


def test_text_of_any_kind_comes_back_as_it_went(redis_url: str) -> None:
    async def main() -> None:
        async with connected(redis_url) as connection:
            for text in ("", "ü", "\x00\r\n", b"\xff\xfe".decode("utf-8", "surrogateescape")):
                await connection.call("SET", "key", text)
                assert await connection.call("GET", "key") == text

    asyncio.run(main())


def test_errors_are_raised_by_a_call_and_returned_by_a_pipeline(redis_url: str) -> None:
    async def main() -> None:
        async with connected(redis_url) as connection:
            with pytest.raises(ReplyError) as caught:
                await connection.call("LPUSH", "key")
            assert "wrong number of arguments" in caught.value.message
            commands = [("SET", "a", 1), ("LPUSH", "a", 1), ("GET", "a")]
            first, error, last = await connection.pipeline(commands)
            assert (first, last) == ("OK", "1")
            assert isinstance(error, ReplyError)
            assert error.code == "WRONGTYPE"

    asyncio.run(main())


def test_a_script_is_sent_when_redis_does_not_know_it(redis_url: str, client: Client) -> None:
    call = ScriptCall("update_job", ("bull:q:",), ("1", "progress", "5", ""))

    async def main() -> None:
        async with connected(redis_url) as connection:
            for _ in range(2):
                client.call("SCRIPT", "FLUSH")
                assert await connection.run_call(call) == -1
                assert await connection.run_call(call) == -1

    asyncio.run(main())


def test_it_connects_again_after_a_break(redis_url: str, client: Client) -> None:
    async def main() -> None:
        async with connected(redis_url, name="a-name") as connection:
            for _ in range(3):
                number = await connection.call("CLIENT", "ID")
                assert await connection.call("CLIENT", "GETNAME") == "a-name"
                waiting = asyncio.ensure_future(connection.call("BLPOP", "nothing", 0))
                await asyncio.sleep(0.02)
                client.call("CLIENT", "KILL", "ID", number)
                with pytest.raises(UnreachableError):
                    await waiting
                assert not connection.is_open

    asyncio.run(main())


def test_a_move_fails_no_other_command_in_flight() -> None:
    served: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        if len(served) == 1:
            for _ in range(2):
                await reader.readuntil(b"key\r\n")
            writer.write(b"-MOVED 1 127.0.0.1:1\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(b"+old\r\n")
        else:
            await reader.readuntil(b"key\r\n")
            writer.write(b"+new\r\n")
        # The client ends a connection with RST.
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connected(f"redis://127.0.0.1:{port}") as connection:
                moved, other = (asyncio.ensure_future(connection.call("GET", "key")) for _ in "12")
                with pytest.raises(ReplyError) as caught:
                    await moved
                assert (caught.value.code, connection.is_open) == ("MOVED", False)
                assert await asyncio.gather(connection.call("GET", "key"), other) == ["new", "old"]
            await asyncio.gather(*filter(None, served))

    asyncio.run(main())
    assert len(served) == 2


def test_what_a_closed_connection_has_not_sent_is_discarded(redis_url: str) -> None:
    """See ``set_up_tcp``; what it is for, ``tests/chaos/test_partition.py`` shows."""

    def linger(sock: Any) -> tuple[int, ...]:
        return struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))

    async def main() -> None:
        async with connected(redis_url) as connection:
            await connection.open()
            assert connection._transport is not None
            assert linger(connection._transport.get_extra_info("socket")) == (1, 0)

    asyncio.run(main())
    with contextlib.closing(SocketClient(parse_url(redis_url))) as client:
        client.call("PING")
        assert linger(client._socket) == (1, 0)


BROKEN = {
    "closes at once": (b"",),
    "closes in the middle of a reply": (b"$10\r\nhalf",),
    "closes after one of many": (b"+OK\r\n",),
    "speaks something else": (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    "answers too much": (b"+OK\r\n" * 20,),
}


@pytest.mark.parametrize("how", BROKEN)
def test_commands_fail_when_the_server_dies(how: str) -> None:
    async def main() -> None:
        async with server_that(*BROKEN[how]) as url, connected(url) as connection:
            await connection.open()
            answers: list[Any] = []
            for _ in range(5):
                connection.send(("PING",), answers.append)
            async with asyncio.timeout(5):
                while len(answers) < 5 or connection.is_open:
                    await asyncio.sleep(0.01)
            assert len(answers) == 5
            good = [answer for answer in answers if answer == "OK"]
            assert len(good) + sum(isinstance(a, UnreachableError) for a in answers) == 5

    asyncio.run(main())


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLY_TIMEOUT_S", 0.1)

    async def main() -> None:
        async with server_that(b"", b"", b"") as url, connected(url, max_block_s=0.1) as connection:
            with pytest.raises(UnreachableError) as caught:
                async with asyncio.timeout(5):
                    await connection.call("PING")
            assert "no answer for 0.2 s" in caught.value.why

    asyncio.run(main())


def test_what_is_sent_without_a_connection_fails_at_once(redis_url: str) -> None:
    answers: list[Any] = []

    async def main() -> None:
        connection = AsyncConnection(parse_url(redis_url))
        connection.send(("PING",), answers.append)
        await connection.open()
        await connection.close()
        for _ in range(2):
            with pytest.raises(UnreachableError):
                await connection.call("PING")
        assert connection.is_closed

    asyncio.run(main())
    assert isinstance(answers[0], UnreachableError)


def test_commands_in_flight_fail_when_it_is_closed(redis_url: str) -> None:
    async def main() -> None:
        connection = AsyncConnection(parse_url(redis_url))
        waiting = [asyncio.ensure_future(connection.call("BLPOP", "no", 0)) for _ in range(3)]
        await asyncio.sleep(0.05)
        await connection.close()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [UnreachableError] * 3

    asyncio.run(main())


def test_a_caller_that_gives_up_leaves_the_replies_in_order(redis_url: str) -> None:
    async def main() -> None:
        async with connected(redis_url) as connection:
            await connection.open()
            given_up = asyncio.ensure_future(connection.call("ECHO", "one"))
            await asyncio.sleep(0)
            given_up.cancel()
            assert await connection.call("ECHO", "two") == "two"

    asyncio.run(main())


def test_passwords_databases_and_what_is_refused(
    start_redis: Callable[..., RedisServer],
) -> None:
    right, wrong = "s3cret", "wr0ng"
    server = start_redis("--requirepass", right, "--rename-command", "CLIENT", "")

    async def main() -> None:
        # A service without CLIENT: the connection has no name, and works.
        async with connected(server.url_for(password=right, db=3), name="me") as connection:
            await connection.call("SET", "key", 1)
            await connection.call("SELECT", 0)
            assert await connection.call("GET", "key") is None
        async with connected(server.url_for(password=wrong)) as connection:
            with pytest.raises(ReplyError) as caught:
                await connection.call("PING")
            assert wrong not in f"{caught.value} {caught.value.message}"
            assert not connection.is_open

    asyncio.run(main())


def test_a_server_that_does_not_run(tmp_path: Any) -> None:
    async def main() -> None:
        for url in (f"redis://127.0.0.1:{free_port()}", f"unix://{tmp_path}/no.sock"):
            async with connected(url) as connection:
                for _ in range(2):
                    with pytest.raises(UnreachableError, match="cannot be reached"):
                        await connection.call("PING")

    asyncio.run(main())
