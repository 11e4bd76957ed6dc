"""``/livez`` and ``/readyz`` over HTTP, for Kubernetes, Docker and load balancers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from qctl.errors import FailedError

_TIMEOUT_S = 5.0
_MAX_HEADERS = 100


async def serve(host: str, port: int, why_not_ready: Callable[[], str]) -> asyncio.Server:
    """Answer requests on a port; ``why_not_ready`` returns "" if the workers are ready.

    Raises:
        FailedError: the port cannot be used.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # See ``control.serve`` about CancelledError.
        ignored = (OSError, ValueError, TimeoutError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*ignored):
            async with asyncio.timeout(_TIMEOUT_S):
                words = (await reader.readline()).split()
                for _ in range(_MAX_HEADERS):
                    if not (await reader.readline()).strip():
                        break
                writer.write(_response(words, why_not_ready))
                await writer.drain()

    try:
        return await asyncio.start_server(answer, host, port)
    except OSError as error:
        raise FailedError(
            f"the health port {host}:{port} cannot be used",
            why=error.strerror or str(error),
            hint="choose another port: --health-port PORT",
        ) from None


def _response(words: list[bytes], why_not_ready: Callable[[], str]) -> bytes:
    path = words[1].partition(b"?")[0] if len(words) == 3 else b""
    body: dict[str, object]
    if not words or words[0] not in {b"GET", b"HEAD"}:
        status, body = "405 Method Not Allowed", {"error": "GET or HEAD only"}
    elif path == b"/livez":
        status, body = "200 OK", {"live": True}
    elif path == b"/readyz":
        why = why_not_ready()
        status = "503 Service Unavailable" if why else "200 OK"
        body = {"ready": not why, "why": why or None}
    else:
        status, body = "404 Not Found", {"error": "only /livez and /readyz exist"}
    text = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if words[:1] == [b"HEAD"] else text)
