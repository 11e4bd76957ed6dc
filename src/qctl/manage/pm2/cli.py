"""The ``pm2`` command: for a PM2 whose socket lacks a method or gives answers of unknown form.

Use it only while a daemon accepts connections: without one, every ``pm2`` command, even ``jlist``,
starts a daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from qctl.errors import ManagerUnreachableError

_LIST_TIMEOUT_S = 30.0
_CLOSE_TIMEOUT_S = 5.0
_MAX_MESSAGE = 300
# PM2 colours its errors even into a file.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def list_rows(home: Path) -> list[Any]:
    """PM2's rows from ``pm2 jlist``. The rows contain secrets: pick fields and drop the rest.

    Raises:
        UnreachableError: there is no ``pm2`` command, it failed, or its output is not a list.
    """
    executable = _executable()
    rows = None
    try:
        result = subprocess.run(
            [executable, "jlist", "-s"],
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIST_TIMEOUT_S,
            check=False,
        )
    # Errors are raised below, not here: TimeoutExpired contains the output, with the secrets.
    except subprocess.TimeoutExpired:
        why = f"`pm2 jlist` did not end within {_LIST_TIMEOUT_S:g} s"
    except OSError as error:
        why = f"`pm2 jlist`: {error.strerror}"
    else:
        if result.returncode:
            why = f"`pm2 jlist` ended with code {result.returncode}"
        else:
            rows, why = _rows(result.stdout), "`pm2 jlist` printed no list"
    if rows is None:
        raise _not_understood(why)
    return rows


def _rows(output: bytes) -> list[Any] | None:
    # Banners and notices precede the list, on lines of their own.
    for line in reversed(output.splitlines()):
        if line.startswith(b"["):
            with contextlib.suppress(ValueError, RecursionError):
                rows = json.loads(line)
                if isinstance(rows, list):
                    return rows
    return None


class CliRestart:
    """A running ``pm2 restart`` command, whose output is hidden.

    Args:
        home: PM2's folder.
        pm_id: the one process to restart.

    Raises:
        UnreachableError: there is no ``pm2`` command, or it cannot be run.
    """

    def __init__(self, home: Path, pm_id: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        try:
            # A session of its own: Ctrl-C must not end the command before PM2 has the request.
            self._process = subprocess.Popen(
                [_executable(), "restart", pm_id],
                env=_environment(home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise _not_understood(f"`pm2 restart`: {error.strerror}") from error
        except BaseException:
            self._errors.close()
            raise

    def error(self) -> str | None:
        """The error that ``pm2`` printed; None while ``pm2`` runs and if it succeeded."""
        code = self._process.poll()
        if not code:
            return None
        if self._errors.closed:
            return f"`pm2 restart` ended with code {code}"
        self._errors.seek(0)
        text = self._errors.read(64 * 1024).decode(errors="replace")
        lines = text.partition("[PM2][ERROR]")[2].splitlines()
        message = _COLOUR.sub("", lines[0]).strip() if lines else ""
        return message[:_MAX_MESSAGE] or f"`pm2 restart` ended with code {code}"

    def close(self) -> None:
        """Wait until the command has ended, up to 5 s, then kill it; PM2 continues the restart."""
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def _executable() -> str:
    found = shutil.which("pm2")
    if found is None:
        raise _not_understood("there is no `pm2` command on PATH to use instead")
    return found


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "PM2_HOME": str(home)}


def _not_understood(why: str) -> ManagerUnreachableError:
    return ManagerUnreachableError(
        "the answers of this PM2 are not understood",
        why=why,
        hint="put the `pm2` of this daemon on PATH; qctl knows PM2 5 to 7",
    )
