"""A Redis that is down, loading, read-only, full or guarded: a clear error, and no loss."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from qctl.connect import Client, connect
from tests.servers import RedisServer, free_port

PASSWORD = "s3cretive"  # noqa: S105 - a test value
READING = (["status"], ["queues"], ["jobs", "list", "q", "--state", "waiting"])
WRITING = (
    ["pause", "q"],
    ["resume", "q"],
    ["drain", "q"],
    ["jobs", "retry-stalled", "q", "--yes"],
)


def qctl(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "QCTL_REDIS_URL": url, "PM2_HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-m", "qctl", *words],
        env=env, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done


def explained(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    """It failed with this code, said why in these words, and left stdout to data."""
    assert done.returncode == code, done.stderr
    assert any(line.startswith("error: ") for line in done.stderr.splitlines())
    assert text in done.stderr
    assert done.stdout == ""


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
    master = start_redis()
    replica = start_redis("--replicaof", f"127.0.0.1 {master.port}")
    client = connect(master.url)[1]
    fill(client)
    client.call("WAIT", 1, 10_000)
    before = content(client)
    for words in READING:
        assert qctl(replica.url, *words).returncode == 0
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
            assert qctl(url, *words).returncode == 0
        for words in WRITING:
            explained(qctl(url, *words), 1, "may not")
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
        assert qctl(server.url, *words).returncode == 0
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
    assert everything.returncode == 7
    assert "other" in everything.stdout
    assert client.call("GET", "bull:q:wait") == "not a list"


@pytest.mark.parametrize(
    "url", ["http://x", f"redis://:{PASSWORD}@h:port", "localhost", "redis://[::1", "redis://h/x"]
)
def test_a_url_that_is_none(url: str) -> None:
    explained(qctl(url, "status"), 2, "URL")


def test_a_password_is_in_no_process_list(start_redis: Callable[..., RedisServer]) -> None:
    import psutil  # noqa: PLC0415

    server = start_redis("--requirepass", PASSWORD)
    url = server.url_for(password=PASSWORD)
    client = connect(url)[1]
    fill(client)
    client.call("SET", "bull:q:2:lock", "somebody", "PX", 3000)
    drain = subprocess.Popen(
        [sys.executable, "-m", "qctl", "drain", "q", "--output", "ndjson"],
        env={**os.environ, "QCTL_REDIS_URL": url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert drain.stdout is not None
    while '"waiting"' not in drain.stdout.readline():
        pass
    family = [psutil.Process(drain.pid), *psutil.Process(drain.pid).children()]
    assert any("qctl.ops.watchdog" in process.cmdline() for process in family)
    assert not any(PASSWORD in word for process in family for word in process.cmdline())
    out, err = drain.communicate(timeout=30)
    assert drain.returncode == 0, err
    assert PASSWORD not in out + err
    client.close()
