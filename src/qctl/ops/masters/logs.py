"""What a master in the background and its processes have printed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from qctl.manage.logs import read_new, read_tail
from qctl.manage.qctl.manager import Qctl
from qctl.manage.qctl.state import MasterFolder

_POLL_S = 0.2


def read_logs(state_home: Path, name: str, lines: int, *, follow: bool) -> Iterator[list[str]]:
    """The last ``lines`` of a master's log; then, with ``follow``, new lines as they come.

    Raises:
        NotFoundError: there never was a master of this name.
    """
    folder = MasterFolder(state_home, name)
    if not folder.log.exists():
        raise Qctl(state_home).not_running(name)
    rows, end = read_tail(folder.log)
    yield rows[-lines:] if lines else []
    while follow:
        rows, end = read_new(folder.log, end)
        if rows:
            yield rows
        else:
            time.sleep(_POLL_S)
