"""The table of ``qctl worker list``."""

from __future__ import annotations

from collections.abc import Sequence

from qctl.ops.masters.listing import Master
from qctl.output.console import Cell, Column, Value
from qctl.output.text import short_duration, size

_COLUMNS = (
    Column("PROCESS", keep_end=True),
    Column("STATUS"),
    Column("PID", right=True),
    Column("UPTIME", right=True),
    Column("RESTARTS", right=True, short="RST"),
    Column("MEMORY", right=True, short="MEM"),
    Column("BUSY", right=True),
    Column("DONE", right=True),
    Column("QUEUES"),
)


def masters_table(
    masters: Sequence[Master], now_s: float
) -> tuple[Sequence[Column], list[list[Value]]]:
    """Columns and rows for ``console.table``: one row per process, or one for a master without any.

    Args:
        now_s: uptimes are relative to this; epoch seconds.
    """
    rows: list[list[Value]] = []
    for master in masters:
        for process in master.processes:
            started_ms, rss = process.started_at_ms, process.rss_bytes
            up = None if started_ms is None else short_duration(max(now_s - started_ms / 1000, 0))
            pid = process.pid
            rows.append(
                [
                    Cell(f"{master.target}/{process.slot}", "bold"),
                    _status(process.status),
                    None if pid is None else str(pid),
                    up,
                    process.restarts,
                    None if rss is None else size(rss),
                    process.busy,
                    process.done,
                    ", ".join(process.queues) or None,
                ]
            )
        if not master.processes:
            rest: list[Value] = [None] * (len(_COLUMNS) - 2)
            rows.append([Cell(master.target, "bold"), _status(master.status), *rest])
    return _COLUMNS, rows


def _status(status: str) -> Cell:
    return Cell(status, "green" if status == "online" else "yellow")
