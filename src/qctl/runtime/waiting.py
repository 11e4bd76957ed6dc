"""Waits for the first of several events."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def wait_first(*waits: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> None:
    """Return when one of ``waits`` has ended or after the timeout; cancel the unfinished waits."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
