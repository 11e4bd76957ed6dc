"""A Redis that is down, loading, read-only, full or guarded: a clear error, and no loss."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ReplyError
from tests.labs.cli import Ran, run
from tests.labs.servers import RedisServer, free_port, hang_up, wait_until

PASSWORD = "s3cretive"  # noqa: S105 - a test value
READING = (["status"], ["queues"], ["jobs", "list", "q", "--state", "waiting"], ["events", "q"])
WRITING = (
    ["pause", "q"],
    ["resume", "q"],
    ["drain", "q"],
    ["jobs", "retry-stalled", "q", "--yes"],
    ["jobs", "add", "q", "n"],
)


def qctl(url: str, *words: str) -> Ran:
    ran = run(*words, QCTL_REDIS_URL=url, PM2_HOME="/nonexistent")
    assert PASSWORD not in ran.out + ran.err
    return ran


def explained(ran: Ran, code: int, text: str) -> None:
    """It failed with this code, said why in these words, and left stdout to data."""
    assert ran.code == code, ran.err
    assert any(line.startswith("error: ") for line in ran.err.splitlines())
    assert text in ran.err
    assert ran.out == ""


def fill(client: Client) -> None:
    """A queue with one waiting and one stalled job."""
    for job_id, place in (("1", "wait"), ("2", "active")):
        client.call("HSET", f"bull:q:{job_id}", "name", "n", "data", "{}", "timestamp", 1)
        client.call("LPUSH", f"bull:q:{place}", job_id)
    client.call("HSET", "bull:q:meta", "opts.maxLenEvents", "10000")


def content(client: Client) -> list[object]:
    return [
        client.call("LRANGE", "bull:q:wait", 0, -1),
        client.call("LRANGE", "bull:q:active", 0, -1),
        client.call("HGETALL", "bull:q:meta"),
        sorted(client.call("KEYS", "*")),
    ]


@pytest.mark.parametrize("words", [*READING, *WRITING])
def test_down(words: list[str]) -> None:
    explained(qctl(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}", *words), 6, "cannot be reached")


def test_loading() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"-LOADING Redis is loading the dataset in memory\r\n" * 100)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        explained(qctl(f"redis://127.0.0.1:{port}", "status", "q"), 6, "still loading")
        thread.join()


def test_a_password_is_asked_for(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--requirepass", "another")
    for words in (*READING, *WRITING):
        explained(qctl(server.url, *words), 6, "asks for a password")
        wrong = f"redis://:{PASSWORD}@127.0.0.1:{server.port}"
        explained(qctl(wrong, *words), 6, "does not accept")


def test_a_replica_is_read_and_never_written(start_redis: Callable[..., RedisServer]) -> None:
    master = start_redis("--repl-diskless-sync-delay", "0")
    replica = start_redis("--replicaof", f"127.0.0.1 {master.port}")
    client = connect(master.url)[1]
    fill(client)
    client.call("WAIT", 1, 10_000)
    before = content(client)
    for words in READING:
        assert qctl(replica.url, *words).code == 0
    for words in WRITING:
        done = qctl(replica.url, *words)
        explained(done, 1, "replica")
    assert content(client) == before
    client.close()


def test_a_user_who_may_only_read(client: Client, redis_server: RedisServer) -> None:
    fill(client)
    before = content(client)
    rules = ("on", f">{PASSWORD}", "~*", "+@read", "+ping", "+scan", "+client|list", "+info")
    client.call("ACL", "SETUSER", "reader", "reset", *rules)
    try:
        url = f"redis://reader:{PASSWORD}@127.0.0.1:{redis_server.port}"
        for words in READING:
            assert qctl(url, *words).code == 0
        for words in WRITING:
            # A pause and a drain must be able to end, too, and are refused before.
            code = 5 if words[0] in {"drain", "pause"} else 1
            explained(qctl(url, *words), code, "may not")
    finally:
        client.call("ACL", "DELUSER", "reader")
    assert content(client) == before


def test_no_memory_left(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--maxmemory-policy", "noeviction")
    client = connect(server.url)[1]
    fill(client)
    before = content(client)
    client.call("CONFIG", "SET", "maxmemory", 1)
    for words in READING:
        assert qctl(server.url, *words).code == 0
    for words in (["pause", "q"], ["drain", "q"]):
        explained(qctl(server.url, *words), 1, "no memory left")
    assert content(client) == before
    client.close()


def test_a_key_of_the_wrong_type(client: Client, redis_url: str) -> None:
    fill(client)
    client.call("DEL", "bull:q:wait")
    client.call("SET", "bull:q:wait", "not a list")
    client.call("HSET", "bull:other:meta", "opts.maxLenEvents", "10000")
    explained(qctl(redis_url, "status", "q"), 1, "bull:q:wait")
    everything = qctl(redis_url, "status")
    assert everything.code == 7
    assert "other" in everything.out
    assert client.call("GET", "bull:q:wait") == "not a list"


@contextlib.contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """The port of a server that sends ``reply`` to whoever asks anything, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65_536)
                        connection.sendall(reply)
                        hang_up(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a Redis"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is not a Redis"),
        (b"\x15\x03\x01\x00\x02\x02", "is not a Redis"),
        (b"$-1\r\n" * 20, "is not a Redis"),
        (b"", "closed the connection"),
        (b"+OK\r\n+OK\r\n$10\r\nhalf", "closed the connection"),
        (b"-ERR max number of clients reached\r\n", "no more connections"),
        (b"-DENIED Redis is running in protected mode\r\n", "own host only"),
        (b"-ERR \x1b[31mevil\xe2\x80\xae\r\n", r"\x1b[31mevil\u202e"),
    ],
)
def test_what_answers_is_no_redis_or_breaks_off(reply: bytes, text: str) -> None:
    with answering(reply) as port:
        done = qctl(f"redis://:{PASSWORD}@127.0.0.1:{port}/1", "status", "q")
    explained(done, 6, text)
    assert "\x1b" not in done.err
    assert "\u202e" not in done.err


def test_what_accepts_and_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("REPLY_TIMEOUT_S", "CONNECT_TIMEOUT_S"):
        monkeypatch.setattr(f"qctl.connection.socket_client.{limit}", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ran = run("status", "--redis", f"redis://:{PASSWORD}@127.0.0.1:{port}")
        silent = run("status", "q", "--redis", f"redis://127.0.0.1:{port}")
    for done in (ran, silent):
        assert done.code == 6
        assert "no answer for 0.3 s" in done.err
        assert "firewall" in done.err
        assert PASSWORD not in done.err


def test_tls_to_a_server_without(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    # Redis waits for the rest of what it takes for a command.
    monkeypatch.setattr("qctl.connection.socket_client.CONNECT_TIMEOUT_S", 0.5)
    ran = run("status", "--redis", f"rediss://:{PASSWORD}@127.0.0.1:{redis_server.port}")
    assert ran.code == 6
    assert "no TLS connection" in ran.err
    assert "redis://" in ran.err.splitlines()[-1]
    assert PASSWORD not in ran.err


def test_other_ways_to_a_server(start_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    server = start_redis("--bind", "127.0.0.1", "::1", "--unixsocket", str(path))
    with contextlib.closing(connect(server.url)[1]) as client:
        fill(client)
    for url in (f"redis://[::1]:{server.port}", f"unix://{path}"):
        done = qctl(url, "status")
        assert done.code == 0, done.err
        assert url in done.out
    explained(qctl(f"redis://127.0.0.1:{server.port}/99", "status"), 2, "no database")
    explained(qctl(f"redis://127.0.0.1:{server.port}/5", "status"), 3, "database number")
    with_password = f"redis://:{PASSWORD}@127.0.0.1:{server.port}"
    explained(qctl(with_password, "status"), 6, "has no password")
    explained(qctl(f"unix://{tmp_path}/none.sock", "status"), 6, "No such file")
    explained(qctl(f"redis://{'a' * 100}.example", "status"), 6, "cannot be reached")
    explained(qctl(f"rediss://h?ssl_ca_certs={tmp_path}/none", "status"), 6, "reached")
    tls = f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={tmp_path}/none"
    explained(qctl(tls, "status"), 2, "certificate file")


@pytest.mark.parametrize(
    "rules", [("~bull:*", "+@all"), ("~*", "+@all", "-evalsha", "-eval"), ("~*", "+@read", "+scan")]
)
def test_a_user_who_may_not_change_queues(
    client: Client, redis_server: RedisServer, rules: tuple[str, ...]
) -> None:
    fill(client)
    client.call("HSET", "bull:q:meta", "paused", "1")
    client.call("SET", "qctl:paused:bull:q", '{"owner": "x", "user": "ada", "verb": "pause"}')
    before = content(client)
    client.call("ACL", "SETUSER", "limited", "reset", "on", f">{PASSWORD}", *rules)
    try:
        url = f"redis://limited:{PASSWORD}@127.0.0.1:{redis_server.port}"
        for words in READING:
            assert qctl(url, *words).code == 0
        for words in (["resume", "q"], ["drain", "q"], ["pause", "q"]):
            # A pause and a drain must be able to end, too, and are refused before.
            code = 5 if words[0] in {"drain", "pause"} else 1
            explained(qctl(url, *words), code, "may not")
        if rules[0] == "~bull:*":
            # It has access to the queue's own keys, and that is all which bringing jobs back needs.
            assert qctl(url, "jobs", "retry-stalled", "q", "--dry-run").code == 0
        else:
            explained(qctl(url, "jobs", "retry-stalled", "q", "--yes"), 1, "may not")
    finally:
        client.call("ACL", "DELUSER", "limited")
    assert content(client) == before


def test_a_disk_that_cannot_be_written(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis("--save", "3600 1000000", "--dbfilename", "no.rdb")
    with contextlib.closing(connect(server.url)[1]) as client:
        fill(client)
        before = content(client)
        # The snapshot's temporary file lies in the folder, which has gone.
        server.folder.rename(server.folder.with_name("gone"))
        server.folder.with_name("gone").joinpath("redis.log").unlink()
        server.folder.with_name("gone").rmdir()
        with contextlib.suppress(ReplyError):
            client.call("BGSAVE")
        wait_until(
            lambda: "rdb_last_bgsave_status:err" in client.call("INFO", "persistence"), "a failure"
        )
        assert qctl(server.url, "status").code == 0
        for words in WRITING:
            explained(qctl(server.url, *words), 1, "cannot save to disk")
        assert content(client) == before
        client.call("CONFIG", "SET", "save", "")


@pytest.mark.parametrize(
    "url",
    [
        *("http://x", "localhost", "redis://[::1", "redis://h/x", "redis://h:0", "redis://h:99999"),
        *(f"redis://:{PASSWORD}@h:port", f"redis://:12#{PASSWORD}@h", f"redis://:12?{PASSWORD}@h"),
        *(f"redis://:12/{PASSWORD}@h", f"redis+sentinel://:{PASSWORD}@h:1", "redis://h\u2100st"),
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    explained(qctl(url, "status"), 2, "URL")


def test_a_password_is_in_no_process_list(start_redis: Callable[..., RedisServer]) -> None:
    import psutil  # noqa: PLC0415

    server = start_redis("--requirepass", PASSWORD)
    url = server.url_for(password=PASSWORD)
    client = connect(url)[1]
    fill(client)
    client.call("SET", "bull:q:2:lock", "somebody")
    drain = subprocess.Popen(
        [sys.executable, "-m", "qctl", "drain", "q", "--output", "ndjson"],
        env={**os.environ, "QCTL_REDIS_URL": url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert drain.stdout is not None
    assert any('"waiting"' in line for line in iter(drain.stdout.readline, ""))
    family = [psutil.Process(drain.pid), *psutil.Process(drain.pid).children()]
    assert any("qctl.ops.drain.watchdog" in process.cmdline() for process in family)
    assert not any(PASSWORD in word for process in family for word in process.cmdline())
    client.call("DEL", "bull:q:2:lock")
    out, err = drain.communicate(timeout=30)
    assert drain.returncode == 0, err
    assert PASSWORD not in out + err
    client.close()
