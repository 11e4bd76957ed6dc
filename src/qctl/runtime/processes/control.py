"""Answers requests to a master on its control socket; ``manage/qctl/state.py`` sends them.

``{"do": "state"}`` reads the state. ``{"do": "replace", "slot": N}`` replaces one process; null for
N replaces all. The answer comes after the last replacement, or after the first that fails.
``{"do": "stop"}`` stops the master; a second ``stop`` makes it give back its
unfinished jobs at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from qctl.private import bind
from qctl.runtime.processes.master import Master
from qctl.runtime.processes.slots import NotReadyError, Slot

_READ_TIMEOUT_S = 5.0


async def serve(master: Master, path: Path) -> asyncio.Server:
    """Answer requests on a socket that only this user may open."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    bind(listener, path)
    return await asyncio.start_unix_server(partial(answer, master), sock=listener)


async def answer(
    master: Master, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Read one request and answer it; ignore what is no JSON."""
    # asyncio logs a cancelled handler with a traceback. In the log of a master that fails, that
    # traceback would look like the reason.
    ignored = (OSError, ValueError, RecursionError, TimeoutError, asyncio.CancelledError)
    with contextlib.closing(writer), contextlib.suppress(*ignored):
        async with asyncio.timeout(_READ_TIMEOUT_S):
            request = json.loads(await reader.readline())
        reply = await _answer(master, request)
        writer.write(json.dumps(reply).encode() + b"\n")
        await writer.drain()


def state_of(master: Master) -> dict[str, Any]:
    """Return the answer to ``state``."""
    current = {slot.current for slot in master.slots}
    return {
        "pid": os.getpid(),
        "started_at_ms": master.started_at_ms,
        "ready": not master.why_not_ready(),
        "stopping": master.is_stopping,
        "grace_s": master.options.grace_s,
        "slots": [_slot_row(slot) for slot in master.slots],
        "leaving": [
            child.pid for child in master.children - current if child.done_fetching.is_set()
        ],
    }


def _slot_row(slot: Slot) -> dict[str, Any]:
    child = slot.current
    status = "launching"
    if child is not None and child.done_fetching.is_set():
        status = "stopping"
    elif slot.is_ready:
        status = "online"
    return {
        "slot": slot.number,
        "status": status,
        "pid": child.pid if child else None,
        "started_at_ms": child.started_at_ms if child else None,
        "restarts": slot.restarts,
        "busy": child.state.busy if child else 0,
        "done": child.state.done if child else 0,
        "rss_bytes": (child.state.rss_bytes or None) if child else None,
        "queues": sorted({worker.queue for worker in child.workers}) if child else [],
    }


async def _answer(master: Master, request: Any) -> dict[str, Any]:
    match request:
        case {"do": "state"}:
            return state_of(master)
        case {"do": "replace"}:
            return await _replace(master, request.get("slot"))
        case {"do": "stop"}:
            master.stop()
            return {"stopping": True}
    return {"error": "unknown request"}


async def _replace(master: Master, number: Any) -> dict[str, Any]:
    # Check the type, because 0.0 and False are equal to 0, the number of the first slot.
    is_number = type(number) is int
    slots = [s for s in master.slots if number is None or (is_number and s.number == number)]
    if not slots:
        return {"error": f"there is no process {number}"}
    try:
        replaced = await master.replace(slots, "requested")
    except NotReadyError as error:
        return {"error": error.what, "words": error.words}
    return {"replaced": [asdict(row) for row in replaced]}
