"""Stop a master in the background."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from qctl.errors import TimedOutError
from qctl.manage.qctl.manager import Qctl
from qctl.manage.qctl.state import MasterFolder
from qctl.manage.sockets import is_running

# After the grace, for the master to end its processes.
MARGIN_S = 20.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Stopped:
    """A master that has ended; ``pid`` is None if it did not run."""

    name: str
    pid: int | None


def stop(state_home: Path, name: str, *, timeout_s: float | None, now: bool) -> Stopped:
    """Let a master's jobs finish, and wait for its end.

    Args:
        state_home: qctl's folder for state.
        timeout_s: the longest wait; None for its grace and 20 s, without end if it has none.
        now: give running jobs back instead of letting them finish.

    Raises:
        NotFoundError: there never was a master of this name.
        UnreachableError: it runs and does not answer.
        TimedOutError: its jobs take longer; it goes on stopping.
    """
    folder = MasterFolder(state_home, name)
    state = folder.running()
    if state is None:
        if folder.read() is None:
            raise Qctl(state_home).not_running(name)
        return Stopped(name, None)
    if timeout_s is None and (state.grace_s or now):
        timeout_s = (0 if now else state.grace_s) + MARGIN_S
    if not folder.ask({"do": "state"})["stopping"]:
        folder.ask({"do": "stop"})
    if now:
        # Asked a second time, it does not wait for its jobs.
        folder.ask({"do": "stop"})
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while is_running(state.pid, state.birth_s):
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOutError(
                f"qctl:{name} is still stopping after {timeout_s:g} s",
                why="its jobs have not finished; it takes no new ones and goes on stopping. "
                "--now gives its jobs back",
                hint=f"qctl worker stop {name} --now",
            )
        time.sleep(_POLL_S)
    return Stopped(name, state.pid)
