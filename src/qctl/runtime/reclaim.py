"""Jobs that a lost reply fetched for us: they are active under our token, and nobody runs them."""

from __future__ import annotations

from collections.abc import Collection

from qctl.runtime.connection import AsyncConnection
from qctl.runtime.logs import Log
from qctl.wire import working
from qctl.wire.jobs import typed
from qctl.wire.keys import QueueKeys


async def reclaim(
    connection: AsyncConnection, keys: QueueKeys, owner: str, known: Collection[str], log: Log
) -> None:
    """Give back what is active under a token of ours that we do not know.

    Args:
        owner: what all our tokens begin with.
        known: the tokens of jobs that we do have.

    Raises:
        QctlError: Redis could not do it.
    """
    ids = await connection.call("LRANGE", keys("active"), 0, -1)
    tokens = await connection.pipeline([("GET", keys.lock(job_id)) for job_id in ids])
    lost = [
        (job_id, token)
        for job_id, reply in zip(ids, tokens, strict=True)
        if (token := typed(reply, None) or "").startswith(f"{owner}:") and token not in known
    ]
    if lost:
        log.warning("giving back jobs of a lost reply", count=len(lost))
        for start in range(0, len(lost), working.MAX_BATCH):
            chunk = lost[start : start + working.MAX_BATCH]
            await connection.run_call(working.give_back(keys, chunk))
