"""Turns a row of PM2's list into a ``ManagedProcess``.

A row contains the app's whole environment, secrets included: pick fields by name, then drop the
row at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qctl.manage.numbers import MAX_NUMBER, whole_number
from qctl.manage.protocol import ManagedProcess

# PM2's defaults; a row has these fields only if the app sets them.
_KILL_TIMEOUT_MS = 1600
_LISTEN_TIMEOUT_MS = 3000
_MIN_UPTIME_MS = 1000
_MAX_RESTARTS = 16
# PM2 may take this long to start a process after a command, in addition to the time in which the
# old process stops.
_START_MS = 10_000
# PM2's default. PM2_KILL_SIGNAL in the daemon's environment changes it, but neither a row nor a
# harmless call shows the change.
STOP_SIGNAL = "SIGINT"


def to_process(row: object) -> ManagedProcess | None:
    """The process of a row; None if the row is PM2's own module, or has no pm_id or no name."""
    if not isinstance(row, dict):
        return None
    env = row.get("pm2_env")
    env = env if isinstance(env, dict) else {}
    pm_id = whole_number(row.get("pm_id", env.get("pm_id")))
    name = _text(row.get("name")) or _text(env.get("name"))
    if pm_id is None or not name or env.get("pmx_module"):
        return None
    pid = whole_number(row.get("pid")) or None
    monit = row.get("monit")
    monit = monit if pid and isinstance(monit, dict) else {}
    log = _text(env.get("pm_err_log_path"))
    listen_timeout_ms = whole_number(env.get("listen_timeout")) or _LISTEN_TIMEOUT_MS
    return ManagedProcess(
        target=f"pm2:{name}",
        key=str(pm_id),
        name=name,
        namespace=_text(env.get("namespace")) or "default",
        status=_text(env.get("status")) or "unknown",
        pid=pid,
        started_at_ms=whole_number(env.get("pm_uptime")) if pid else None,
        restarts=whole_number(env.get("restart_time")),
        mode="cluster" if env.get("exec_mode") == "cluster_mode" else "fork",
        stop_signal="message" if env.get("shutdown_with_message") else STOP_SIGNAL,
        # PM2 treats 0 as unset.
        kill_timeout_ms=whole_number(env.get("kill_timeout")) or _KILL_TIMEOUT_MS,
        ready_timeout_ms=listen_timeout_ms if env.get("wait_ready") else 0,
        cpu_percent=_percent(monit.get("cpu")),
        rss_bytes=whole_number(monit.get("memory")),
        last_start_ms=whole_number(env.get("pm_uptime")),
        starts_again=_starts_again(env),
        came_back=_came_back(env),
        crash_until_ms=_crash_until_ms(env) if pid else None,
        tree_kill=env.get("treekill") is not False,
        script=_text(env.get("pm_exec_path")),
        cwd=_text(env.get("pm_cwd")),
        error_log=Path(log) if log and "\0" not in log else None,
    )


def _starts_again(env: Mapping[str, object]) -> bool:
    if env.get("autorestart") in (False, "false") or env.get("stop_exit_codes"):
        return False
    # With max_restarts 0, PM2 gives up at the first exit.
    return whole_number(env.get("max_restarts")) != 0


def _came_back(env: Mapping[str, object]) -> bool:
    """Whether PM2 last started the process without a command, because the process had ended.

    This is so if the start came long after the last command, whose time is in the row. PM2's
    restarts by cron, by a changed file and at a memory limit count as commands.
    """
    started_ms, commanded_ms = (
        whole_number(env.get("pm_uptime")),
        whole_number(env.get("created_at")),
    )
    if started_ms is None or commanded_ms is None:
        return False
    stop_ms = whole_number(env.get("kill_timeout")) or _KILL_TIMEOUT_MS
    return started_ms - commanded_ms > stop_ms + _START_MS


def _crash_until_ms(env: Mapping[str, object]) -> int | None:
    """Until when PM2 counts an exit as a crash; None if the row lacks a number that is needed.

    An exit counts if it comes less than ``min_uptime`` after the start of the process, and less
    than ``max_restarts`` * ``min_uptime`` after a command created or last restarted the app.
    """
    started_ms, created_ms = whole_number(env.get("pm_uptime")), whole_number(env.get("created_at"))
    min_uptime_ms = whole_number(env.get("min_uptime", _MIN_UPTIME_MS))
    max_restarts = whole_number(env.get("max_restarts", _MAX_RESTARTS))
    if started_ms is None or created_ms is None or min_uptime_ms is None or max_restarts is None:
        return None
    return min(started_ms + min_uptime_ms, created_ms + min_uptime_ms * max_restarts)


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def _percent(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= MAX_NUMBER else None  # type: ignore[operator,arg-type]
