"""The stalled check: brings back jobs of workers that are gone (wire format 5.13)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from qctl.errors import QctlError
from qctl.runtime.logs import Log
from qctl.runtime.loop.connection import AsyncConnection
from qctl.runtime.loop.options import WorkerOptions
from qctl.wire.keys import QueueKeys
from qctl.wire.write import worker_calls


async def check_stalled(
    keys: QueueKeys,
    connection: AsyncConnection,
    options: WorkerOptions,
    log: Log,
    on_found: Callable[[], None],
) -> None:
    """Check at once and then at every interval, until cancelled.

    All workers of a queue take turns: Redis lets one of them check in an interval.

    Args:
        on_found: called when jobs went back to wait.
    """
    interval_ms = round(options.stalled_interval_s * 1000)
    while True:
        now_ms = int(time.time() * 1000)
        call = worker_calls.stalled_check(keys, now_ms, interval_ms, options.max_stalled_count)
        try:
            ids, _ = await connection.run_call(call)
            if ids:
                log.warning("stalled jobs brought back", jobs=",".join(ids))
                on_found()
        except QctlError as error:
            log.warning("stalled check failed", why=error.why or error.what)
        await asyncio.sleep(options.stalled_interval_s)
