"""PM2's answers made by hand: rows of its list, and frames over its socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from qctl.manage.pm2.rows import to_process
from qctl.manage.pm2.rpc import Decoder, encode
from qctl.manage.protocol import ManagedProcess

HIDDEN = "hunter2-secret"


def row(pm_id: int, name: str, **env: Any) -> dict[str, Any]:
    """A row as PM2 sends it, in short; the environment is in it twice."""
    return {
        "pid": 1000 + pm_id,
        "name": name,
        "pm_id": pm_id,
        "monit": {"memory": 2048, "cpu": 1.5},
        "pm2_env": {
            "name": name,
            "namespace": "default",
            "status": "online",
            "exec_mode": "fork_mode",
            "pm_exec_path": "/srv/app/worker.js",
            "pm_cwd": "/srv/app",
            "restart_time": 3,
            "pm_uptime": 1_700_000_000_000,
            "env": {"SECRET_TOKEN": HIDDEN},
            "SECRET_TOKEN": HIDDEN,
            "args": ["--token", HIDDEN],
            **env,
        },
    }


def processes(*rows: dict[str, Any]) -> list[ManagedProcess]:
    found = [to_process(item) for item in rows]
    return [process for process in found if process]


def read_request(connection: socket.socket) -> tuple[dict[str, object], bytes]:
    decoder = Decoder()
    while True:
        data = connection.recv(65536)
        if not data:
            raise OSError("the client went away")
        for frame in decoder.feed(data):
            return json.loads(frame[0][2:]), frame[1]


def answering(reply: object, pieces: int = 1) -> Callable[[socket.socket], None]:
    """Answers the request with a JSON value, cut into pieces."""

    def serve(connection: socket.socket) -> None:
        request_id = read_request(connection)[1]
        frame = encode(reply, request_id)
        step = max(1, len(frame) // pieces)
        for start in range(0, len(frame), step):
            connection.sendall(frame[start : start + step])

    return serve
