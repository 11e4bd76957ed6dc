"""Start a master in the background, and wait until its processes take jobs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qctl.errors import ExitStatus, FailedError, QctlError, TimedOutError, UnreachableError
from qctl.manage.last_words import error_first
from qctl.manage.logs import read_tail
from qctl.manage.qctl.state import MasterFolder

_POLL_S = 0.03


@dataclass(frozen=True, slots=True)
class Started:
    """A master that was started, and the pids of its processes."""

    name: str
    pid: int
    pids: list[int]


def start(
    state_home: Path,
    name: str,
    launch: Callable[[MasterFolder, int], subprocess.Popen[bytes]],
    timeout_s: float,
) -> Started:
    """Start a master that outlives this process.

    Args:
        state_home: qctl's folder for state.
        launch: starts the process; given the folder and the descriptor of its lock, which the
            master then holds.
        timeout_s: how long to wait until it is ready; then it is stopped again.

    Raises:
        FailedError: it runs already, or did not start; the error has its last words.
        UnreachableError: it did not start because of Redis.
        TimedOutError: it was not ready in time.
    """
    folder = MasterFolder(state_home, name)
    folder.make()
    lock = folder.try_lock()
    if lock is None:
        raise _already_there(folder)
    log_start = folder.log.stat().st_size if folder.log.exists() else 0
    state_before = folder.raw_state()
    master = launch(folder, lock)
    pids: list[int] | None = None
    timed_out = False
    try:
        deadline = time.monotonic() + timeout_s
        while (pids := _pids_if_ready(folder, master.pid)) is None and master.poll() is None:
            if time.monotonic() > deadline:
                timed_out = True
                break
            time.sleep(_POLL_S)
    finally:
        if not pids and master.poll() is None:
            # Do not leave it half started, after Ctrl-C neither.
            master.terminate()
            master.wait()
    if pids:
        return Started(name, master.pid, pids)
    # `worker list` shows what ran before, and not what never ran.
    folder.restore(state_before)
    words = "\n".join(f"    {row}" for row in error_first(read_tail(folder.log, log_start)[0]))
    if timed_out:
        raise TimedOutError(
            f"qctl:{name} was not ready within {timeout_s:g} s",
            why=f"it was stopped again; its last words:\n{words}",
            hint=f"qctl worker logs {name}",
        )
    if master.returncode == ExitStatus.UNREACHABLE:
        raise UnreachableError(
            f"qctl:{name} did not start: it cannot work with Redis",
            why=f"its last words:\n{words}",
            hint="check that Redis runs, and the URL in --redis or QCTL_REDIS_URL",
        )
    raise FailedError(
        f"qctl:{name} did not start",
        why=f"its last words:\n{words}",
        hint="fix the app; `qctl worker run` runs it in the foreground",
    )


def _already_there(folder: MasterFolder) -> FailedError:
    try:
        is_stopping = folder.ask({"do": "state"}).get("stopping")
    except QctlError:
        is_stopping = False
    if is_stopping:
        return FailedError(f"qctl:{folder.name} is still stopping", hint="qctl worker list")
    return FailedError(
        f"qctl:{folder.name} runs already", hint=f"qctl worker restart {folder.name}"
    )


def _pids_if_ready(folder: MasterFolder, pid: int) -> list[int] | None:
    try:
        answer = folder.ask({"do": "state"})
    except QctlError:
        return None
    is_ready = answer["pid"] == pid and answer["ready"]
    return [row["pid"] for row in answer["slots"]] if is_ready else None
