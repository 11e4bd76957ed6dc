"""Serves ``/metrics``, and nothing else, in threads of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from qctl.errors import FailedError

# Texts made at the same time; Prometheus and its like ask for one every few seconds.
MOST_AT_ONCE = 8
# Each has a thread; one more is told so and closed.
MOST_CONNECTIONS = 64
# A connection on which nothing is asked for so long is closed.
_IDLE_S = 30
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\n"
    b"too many connections\n"
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], text: Callable[[], bytes]) -> None:
        self.text = text
        self.places = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.address_family = _family(address[0])
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, if there is one to be had."""
        if not self._connections.acquire(blocking=False):
            with contextlib.suppress(OSError):
                # It may not be read, and must not be waited for.
                request.setblocking(False)
                request.send(_FULL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The whole life of one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up in the middle is no event."""


def _family(host: str) -> int:
    import socket  # noqa: PLC0415

    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    # Head and text are two packets, and the second would wait until the first is acknowledged.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/":
            self._answer(200, b"the metrics are at /metrics\n")
        else:
            self._answer(404, b"there is only /metrics\n")

    do_HEAD = do_GET  # noqa: N815

    def _metrics(self) -> None:
        if not self.server.places.acquire(blocking=False):
            self._answer(503, b"too many requests at once\n")
            return
        try:
            text = self.server.text()
        finally:
            self.server.places.release()
        self._answer(200, text, CONTENT_TYPE_LATEST)

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nobody reads a log of scrapes."""


def serve(host: str, port: int, text: Callable[[], bytes]) -> Callable[[], None]:
    """Serve until the function that is returned is called.

    Args:
        text: the metrics; called in the thread of each request.

    Raises:
        FailedError: the address cannot be had.
    """
    try:
        server = _Server((host, port), text)
    except OSError as error:
        raise FailedError(
            f"{host}:{port} cannot be listened on",
            why=error.strerror or str(error),
            hint="name another one: --serve :9121",
        ) from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
