"""Start, restart and stop a master, the background process that runs worker processes."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qctl.errors import (
    ExitStatus,
    FailedError,
    QctlError,
    TimedOutError,
    UnreachableError,
    UsageError,
)
from qctl.manage.host import is_running
from qctl.manage.last_words import error_first
from qctl.manage.logs import read_tail
from qctl.manage.qctl.manager import Qctl, refusal
from qctl.manage.qctl.state import MasterFolder, Replaced, Request

# When the grace period for jobs is over, a stop waits this long for the master to end.
_MARGIN_S = 20.0
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
        launch: starts the master's process. Gets the master's folder and the descriptor of the
            folder's lock. The process must keep the descriptor open.
        timeout_s: how long the master may take to be ready. If it takes longer, it is stopped.

    Raises:
        FailedError: a master of this name runs already, or the new one ended before it was ready;
            the error quotes its log.
        UsageError: the app cannot be run as it is.
        UnreachableError: the new master ended because it cannot work with Redis.
        TimedOutError: the new master was not ready in time.
    """
    folder = MasterFolder(state_home, name)
    folder.make()
    lock = folder.try_lock()
    if lock is None:
        raise _already_there(folder)
    log_start = folder.log.stat().st_size if folder.log.exists() else 0
    state_before = folder.raw_state()
    master = launch(folder, lock)
    pids: list[int] = []
    timed_out = False
    try:
        deadline = time.monotonic() + timeout_s
        while not (pids or timed_out) and master.poll() is None:
            time.sleep(_POLL_S)
            pids = _pids_if_ready(folder, master.pid)
            timed_out = time.monotonic() > deadline
    finally:
        if not pids and master.poll() is None:
            # Stop a master that is half started, also after Ctrl-C.
            master.terminate()
            master.wait()
    if pids:
        return Started(name, master.pid, pids)
    # `worker list` must show the previous run of this master, not the run that failed.
    folder.restore(state_before)
    log = read_tail(folder.log, log_start)[0]
    if master.returncode == ExitStatus.USAGE:
        raise _usage_error(name, log)
    last_words = "\n".join(f"    {row}" for row in error_first(log))
    if timed_out:
        raise TimedOutError(
            f"qctl:{name} was not ready within {timeout_s:g} s",
            why=f"so the master was stopped; its last words:\n{last_words}",
            hint=f"qctl worker logs {name}",
        )
    if master.returncode == ExitStatus.UNREACHABLE:
        raise UnreachableError(
            f"qctl:{name} did not start: it cannot work with Redis",
            why=f"its last words:\n{last_words}",
            hint="check that Redis runs, and the URL in --redis or QCTL_REDIS_URL",
        )
    raise FailedError(
        f"qctl:{name} did not start",
        why=f"its last words:\n{last_words}",
        hint="fix the app; `qctl worker run` runs it in the foreground",
    )


def _usage_error(name: str, log: Sequence[str]) -> UsageError:
    """The error with which a master has ended, from the last lines of its log."""
    first = max((i for i, row in enumerate(log) if row.startswith("error: ")), default=0)
    lines = [row.removeprefix("error: ") for row in log[first:]]
    hint = lines.pop().removeprefix("try: ") if lines and lines[-1].startswith("try: ") else ""
    return UsageError(f"qctl:{name} did not start", why="\n".join(lines), hint=hint)


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


def _pids_if_ready(folder: MasterFolder, pid: int) -> list[int]:
    try:
        answer = folder.ask({"do": "state"})
    except QctlError:
        return []
    is_ready = answer.get("pid") == pid and answer.get("ready")
    return [row["pid"] for row in answer.get("slots") or ()] if is_ready else []


def restart(state_home: Path, name: str, timeout_s: float) -> list[Replaced]:
    """Replace a master's processes one by one. A new one takes jobs before the old one stops.

    Args:
        timeout_s: the longest wait for all new processes. Old ones may finish jobs even later.

    Raises:
        NotFoundError: no master of this name runs.
        FailedError: the master refused, or a new process did not start; the processes that were
            not yet replaced keep running.
        TimedOutError: the replacement takes longer; the master goes on with it.
        UnreachableError: the master does not answer.
    """
    folder = MasterFolder(state_home, name)
    if folder.running() is None:
        raise Qctl(state_home).not_running(name)
    with contextlib.closing(Request(folder, {"do": "replace", "slot": None})) as request:
        answer = request.poll(timeout_s)
    if answer is None:
        raise TimedOutError(
            f"the processes of qctl:{name} were not all replaced within {timeout_s:g} s",
            why="the master goes on replacing them",
            hint="qctl worker list",
        )
    if (error := refusal(answer)) is not None:
        what, _, lines = error.partition("\n")
        raise FailedError(
            f"qctl:{name}: {what}",
            why=f"processes not yet replaced keep running; last words of the new process:\n{lines}"
            if lines
            else "",
            hint=f"fix the app, then qctl worker restart {name}" if lines else "qctl worker list",
        )
    return [
        Replaced(row["slot"], row["old_pid"], row["new_pid"])
        for row in answer.get("replaced") or ()
    ]


def stop(state_home: Path, name: str, *, timeout_s: float | None, now: bool) -> int | None:
    """Let a master finish its jobs and exit, and wait until it has exited.

    Args:
        timeout_s: the longest wait. None means 20 s with ``now``; without ``now``, 20 s more than
            the grace period, or no limit if the grace period has no limit.
        now: give running jobs back to the queue instead of finishing them.

    Returns:
        the master's pid; None if it was not running.

    Raises:
        NotFoundError: there never was a master of this name.
        UnreachableError: the master runs and does not answer.
        TimedOutError: the jobs take longer; the master continues to stop.
    """
    folder = MasterFolder(state_home, name)
    state = folder.running()
    if state is None:
        if folder.read() is None:
            raise Qctl(state_home).not_running(name)
        return None
    if timeout_s is None and (state.grace_s or now):
        timeout_s = (0 if now else state.grace_s) + _MARGIN_S
    if not folder.ask({"do": "state"})["stopping"]:
        folder.ask({"do": "stop"})
    if now:
        # After a second request, the master no longer waits for its jobs.
        folder.ask({"do": "stop"})
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while is_running(state.pid, state.birth_s):
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOutError(
                f"qctl:{name} is still stopping after {timeout_s:g} s",
                why="its jobs have not finished; it takes no new ones and continues to stop. "
                "--now gives its jobs back to the queue",
                hint=f"qctl worker stop {name} --now",
            )
        time.sleep(_POLL_S)
    return state.pid
