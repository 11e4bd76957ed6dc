"""The server of metrics against clients that ask for too much."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from qctl.output import metrics_server
from tests.labs.servers import free_port, wait_until


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[], bytes]], int]]:
    ends = []

    def start(text: Callable[[], bytes]) -> int:
        port = free_port()
        ends.append(metrics_server.serve("127.0.0.1", port, text))
        return port

    yield start
    for end in ends:
        end()


def ask(port: int, path: str = "/metrics") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, 30)) as client:
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read()


def is_answered(port: int) -> bool:
    try:
        return ask(port)[0] == 200
    except OSError:
        # Closed at once, and what was asked unread: that can overtake the 503.
        return False


def test_idle_connections_take_a_bounded_number_of_threads(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "MOST_CONNECTIONS", 3)
    port = start(lambda: b"x 1\n")
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            for _ in range(12)
        ]
        # The first three are held open; the others are told at once and closed.
        for connection in idle[3:]:
            said = b"".join(iter(lambda c=connection: c.recv(4096), b""))
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert f"Content-Length: {len(body)}".encode() in head
        assert threading.active_count() <= before + 3
    wait_until(lambda: is_answered(port), "the places to be free again")


def test_texts_made_at_the_same_time_are_bounded(
    start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "MOST_AT_ONCE", 1)
    begun, go_on = threading.Event(), threading.Event()

    def text() -> bytes:
        begun.set()
        assert go_on.wait(30)
        return b"x 1\n"

    port = start(text)
    answers: list[tuple[int, bytes]] = []
    slow = threading.Thread(target=lambda: answers.append(ask(port)))
    slow.start()
    assert begun.wait(30)
    assert ask(port) == (503, b"too many requests at once\n")
    assert ask(port, "/")[0] == 200
    go_on.set()
    slow.join()
    assert answers == [(200, b"x 1\n")]
