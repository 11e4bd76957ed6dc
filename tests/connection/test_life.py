"""Connections that outlive what they were made for: idle ones, forks, failovers, lost replies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import ExitStatus, ReplyError, UnreachableError
from qctl.runtime.api.queue import Queue
from qctl.wire import scripts
from qctl.wire.write.adding import NewJob
from tests.labs.forks import add_own, exit_code, forked
from tests.labs.proxy import proxy_in_thread
from tests.labs.replicas import Pair
from tests.labs.servers import RedisServer, wait_until

WAIT = "bull:q:wait"


@contextlib.contextmanager
def opened(url: str) -> Iterator[Client]:
    with contextlib.closing(connect(url)[1]) as client:
        yield client


def clients_of(client: Client) -> int:
    return int(client.call("CLIENT", "LIST").count("\n"))


# Idle


def test_a_connection_that_the_server_closed_while_idle_is_replaced(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    with opened(server.url) as admin, Queue("q", redis_url=server.url) as queue:
        assert queue.add("a") == "1"
        # Between any two commands, as `timeout` does, and load balancers.
        for n in range(2, 12):
            admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert queue.add("a") == str(n)
        admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert len(queue.add_bulk([NewJob("b")] * 5)) == 5
        assert admin.call("LLEN", WAIT) == 16


def test_what_nobody_asked_for_is_not_taken_for_a_reply() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        two_sent = threading.Event()

        def serve() -> None:
            for answer in (b"+first\r\n+left over\r\n", b"+second\r\n"):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(100)
                    peer.sendall(answer)
                    two_sent.set()
                    # The client ends a connection with RST.
                    with contextlib.suppress(ConnectionResetError):
                        peer.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        with opened(url) as client:
            assert client.call("PING") == "first"
            assert client.call("PING") == "second"
        thread.join(10)


# Forks


def test_after_a_fork_each_child_gets_its_own_replies(redis_url: str, client: Client) -> None:
    """Four children and the parent use one ``Queue`` at once."""
    children, jobs = 4, 150
    with Queue("q", redis_url=redis_url) as queue:
        queue.add("warm", job_id="warm")
        before = clients_of(client)
        pids = [forked(partial(add_own, queue, f"child{n}", jobs)) for n in range(children)]
        assert add_own(queue, "parent", jobs) == 0
        assert [exit_code(pid) for pid in pids] == [0] * children
        # The children have not closed the parent's connection, nor left any of their own.
        assert queue.add("last", job_id="last") == "last"
        wait_until(lambda: clients_of(client) <= before, "the children's connections to go")
    assert client.call("LLEN", WAIT) == (children + 1) * 2 * jobs + 2


def test_a_lock_that_another_thread_holds_at_a_fork_does_not_block_the_child(
    start_redis: Callable[..., RedisServer],
) -> None:
    server = start_redis()
    with opened(server.url) as admin, Queue("q", redis_url=server.url) as queue:
        queue.add("x")
        admin.call("CLIENT", "PAUSE", 60_000, "WRITE")
        waits = threading.Thread(target=queue.add, args=("x",), kwargs={"job_id": "thread"})
        waits.start()
        wait_until(lambda: "cmd=evalsha" in admin.call("CLIENT", "LIST"), "the thread's add")
        pid = forked(lambda: int(queue.add("x", job_id="child") != "child"))
        wait_until(lambda: clients_of(admin) == 3, "the child's connection")
        admin.call("CLIENT", "UNPAUSE")
        assert exit_code(pid) == 0
        waits.join(10)
        assert {"thread", "child"} <= set(admin.call("LRANGE", WAIT, 0, -1))


def test_a_process_of_multiprocessing_gets_its_own_replies(redis_url: str) -> None:
    fork = multiprocessing.get_context("fork")
    with Queue("q", redis_url=redis_url) as queue:
        queue.add("warm")
        processes = [
            fork.Process(target=lambda n=n: os._exit(add_own(queue, f"p{n}", 100)))
            for n in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
        assert [process.exitcode for process in processes] == [0] * 3


# Too many clients


@pytest.mark.parametrize("password", ["", "pw"])
@pytest.mark.parametrize("pings", [1, 3_000])
def test_a_server_with_too_many_clients_says_so(
    start_redis: Callable[..., RedisServer], password: str, pings: int
) -> None:
    server = start_redis("--maxclients", "4", "--requirepass", password)
    url = server.url_for(password=password)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(opened(url)).call("PING")
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        one_too_many = stack.enter_context(opened(url))
        for _ in range(10):
            with pytest.raises(ReplyError) as caught:
                raise one_too_many.pipeline([("PING",)] * pings)[0]
            assert caught.value.exit_status == ExitStatus.UNREACHABLE
            assert "maxclients" in caught.value.what
            assert "maxclients" in caught.value.hint


# Passwords that occur in Redis' own words


@pytest.mark.parametrize("password", ["NO", "SCRIPT", "ERR", "WRONG", "NOSCRIPT", "e", "1"])
def test_a_password_may_be_a_part_of_redis_words(
    start_redis: Callable[..., RedisServer], password: str
) -> None:
    server = start_redis("--requirepass", password)
    with opened(server.url_for(password=password)) as client:
        client.call("SCRIPT", "FLUSH")
        with Queue("q", redis_url=server.url_for(password=password)) as queue:
            assert queue.add("a") == "1"
        client.call("SET", "text", "x")
        with pytest.raises(ReplyError) as caught:
            client.call("LPUSH", "text", "x")
        assert caught.value.code == "WRONGTYPE"
        assert "*" not in caught.value.message


def test_a_password_that_is_repeated_by_whatever_answers_is_hidden() -> None:
    for password in ("pw", "much longer than a word"):
        error = ReplyError(f"ERR what is '{password}'?", secret=password)
        assert (error.message, error.code) == ("ERR what is '***'?", "ERR")
        assert password not in f"{error} {error.what} {error.why} {error.hint}"


# Lost replies


@pytest.mark.parametrize("through", ["redis", "sentinel"])
def test_a_write_whose_reply_is_lost_is_not_sent_again(
    start_redis: Callable[..., RedisServer], through: str
) -> None:
    server = start_redis()
    add = scripts.sha("add").encode()
    with (
        opened(server.url) as admin,
        proxy_in_thread(server.port, {2: "reply", 4: "request"}, step=add) as proxy,
    ):
        url = proxy.url
        if through == "sentinel":
            sentinel = start_redis(sentinel_of={"main": ("127.0.0.1", proxy.port)})
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0"
        admin.call("SCRIPT", "LOAD", scripts.source("add"))
        with Queue("q", redis_url=url) as queue:
            assert queue.add("a") == "1"
            with pytest.raises(UnreachableError):
                queue.add("b")
            assert admin.call("LLEN", WAIT) == 2
            assert queue.add("c") == "3"
            with pytest.raises(UnreachableError):
                queue.add("d")
            assert queue.add("e") == "4"
        assert proxy.steps == 5
        assert admin.call("LLEN", WAIT) == 4


def test_after_a_failover_the_next_command_goes_to_the_new_master(pair: Pair) -> None:
    with (
        opened(pair.master.url) as old,
        opened(pair.replica.url) as new,
        opened(pair.url) as client,
    ):
        assert client.call("SET", "k", 1) == "OK"
        pair.fail_over()
        # As the sentinel would some seconds later; the connection stays, and is answered READONLY.
        old.call("REPLICAOF", "127.0.0.1", pair.replica.port)
        with contextlib.suppress(ReplyError, UnreachableError):
            client.call("SET", "k", 2)
        assert client.call("SET", "k", 3) == "OK"
        assert new.call("GET", "k") == "3"
