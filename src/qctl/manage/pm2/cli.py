"""The ``pm2`` command: for a PM2 whose socket lacks a method or gives answers of unknown form.

Use it only while a daemon accepts connections: without one, every ``pm2`` command, even ``jlist``,
starts a daemon.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from qctl.errors import ManagerUnreachableError
from qctl.manage.tool import ToolCall, ToolFailedError, first_line, run_tool

_LIST_TIMEOUT_S = 30.0
# PM2 colours its errors even when they go to a file.
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def list_rows(home: Path) -> list[Any]:
    """PM2's rows from ``pm2 jlist``. The rows contain secrets: pick fields and drop the rest.

    Raises:
        UnreachableError: there is no ``pm2`` command, it failed, or its output is not a list.
    """
    argv = [_executable(), "jlist", "-s"]
    try:
        output = run_tool(argv, timeout_s=_LIST_TIMEOUT_S, env={"PM2_HOME": str(home)})
    except ToolFailedError as error:
        # Leave out ``error.why``: it quotes the command's stderr, which may hold secrets.
        why = error.what
    except ManagerUnreachableError as error:
        why = f"{error.what}: {error.why}"
    else:
        rows = _rows(output)
        if rows is not None:
            return rows
        why = "`pm2 jlist` printed no list"
    raise _not_understood(why)


def _rows(output: str) -> list[Any] | None:
    # Banners and notices precede the list, on lines of their own.
    for line in reversed(output.splitlines()):
        if line.startswith("["):
            with contextlib.suppress(ValueError, RecursionError):
                rows = json.loads(line)
                if isinstance(rows, list):
                    return rows
    return None


class CliRestart(ToolCall):
    """A running ``pm2 restart`` command, whose output is hidden.

    Args:
        home: PM2's folder.
        pm_id: the one process to restart.

    Raises:
        UnreachableError: there is no ``pm2`` command, or it cannot be run.
    """

    def __init__(self, home: Path, pm_id: str) -> None:
        super().__init__([_executable(), "restart", pm_id], {"PM2_HOME": str(home)})

    def _message(self, stderr: bytes) -> str:
        return first_line(_COLOUR.sub(b"", stderr).partition(b"[PM2][ERROR]")[2])


def _executable() -> str:
    found = shutil.which("pm2")
    if found is None:
        raise _not_understood("there is no `pm2` command on PATH to use instead")
    return found


def _not_understood(why: str) -> ManagerUnreachableError:
    return ManagerUnreachableError(
        "the answers of this PM2 are not understood",
        why=why,
        hint="put the `pm2` of this daemon on PATH; qctl knows PM2 5 to 7",
    )
