"""A container as `docker inspect` shows it in the form that qctl asks for."""

from __future__ import annotations

from typing import Any

ROW: dict[str, Any] = {
    "id": "c0ffee" * 10 + "0123",
    "name": "/shop-worker-2",
    "status": "running",
    "pid": 0,
    "started": "2026-11-30T16:14:35.128448393Z",
    "finished": "0001-01-01T00:00:00Z",
    "exit_code": 0,
    "restarts": 0,
    "policy": "unless-stopped",
    "max_restarts": 0,
    "stop_signal": "",
    "stop_timeout": None,
    "entrypoint": None,
    "command": ["node", "worker.js"],
    "project": "shop",
    "service": "worker",
    "number": "2",
    "oneoff": "False",
    "addresses": ["172.18.0.3", "", ""],
}
