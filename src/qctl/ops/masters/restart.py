"""Replace the processes of a master in the background, without a gap."""

from __future__ import annotations

import contextlib
from pathlib import Path

from qctl.errors import FailedError, TimedOutError
from qctl.manage.qctl.manager import Qctl, refusal
from qctl.manage.qctl.state import MasterFolder, Replaced, Request


def restart(state_home: Path, name: str, timeout_s: float) -> list[Replaced]:
    """Replace all processes, one after another: the new one takes jobs before the old one leaves.

    Args:
        state_home: qctl's folder for state.
        timeout_s: the longest wait for the new processes; old ones may take longer to leave.

    Raises:
        NotFoundError: no master of this name runs.
        FailedError: a new process did not start; those not yet replaced stay.
        TimedOutError: it takes longer; the master goes on.
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
        what, _, words = error.partition("\n")
        raise FailedError(
            f"qctl:{name}: {what}",
            why=f"those not yet replaced stay; it said:\n{words}" if words else "",
            hint=f"fix the app, then qctl worker restart {name}" if words else "qctl worker list",
        )
    return [Replaced(**row) for row in answer["replaced"]]
