"""The stalled check: brings back jobs of workers that are gone (wire format 5.13)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from qctl.errors import QctlError
from qctl.wire.write import worker_calls as working

if TYPE_CHECKING:
    from qctl.runtime.loop.engine import Engine


async def check_stalled(engine: Engine) -> None:
    """Check at once and then at every interval, until cancelled.

    All workers of a queue check by turns: Redis lets one through in an interval.
    """
    options, log = engine.options, engine.log
    interval_ms = round(options.stalled_interval_s * 1000)
    while True:
        now_ms = int(time.time() * 1000)
        call = working.stalled_check(engine.keys, now_ms, interval_ms, options.max_stalled_count)
        try:
            ids, _ = await engine.connection.run_call(call)
            if ids:
                log.warning("stalled jobs brought back", jobs=",".join(ids))
                engine.may_be_more()
        except QctlError as error:
            log.warning("stalled check failed", why=error.why or error.what)
        await asyncio.sleep(options.stalled_interval_s)
