"""The ``RestartCall`` of supervisord: a helper that goes on when qctl dies; see ``helper.py``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict

from qctl.errors import ManagerUnreachableError
from qctl.manage.supervisord.address import Address
from qctl.manage.tool import first_line

_MAX_STDERR = 64 * 1024
# How long to wait for a helper that is about to end.
_CLOSE_TIMEOUT_S = 2.0


class HelperCall:
    """Starts a helper that restarts one process.

    Args:
        key, pid, signal: see ``helper.py``.

    Raises:
        ManagerUnreachableError: the helper could not be started.
    """

    def __init__(self, address: Address, key: str, pid: int | None, signal: str = "") -> None:
        fields = asdict(address) | {"socket": str(address.socket or "")}
        request = {"address": fields, "key": key, "pid": pid, "signal": signal}
        reader, writer = os.pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        try:
            # Write the request before the helper starts, so that the helper has it even if qctl
            # is killed right after the start.
            os.write(writer, f"{json.dumps(request)}\n".encode())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "qctl.manage.supervisord.helper"],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            self._errors.close()
            raise ManagerUnreachableError(
                "the process was not restarted", why=error.strerror or str(error)
            ) from error
        except BaseException:
            self._errors.close()
            raise
        finally:
            os.close(reader)
            os.close(writer)

    def error(self) -> str | None:
        """See ``RestartCall``."""
        code = self._process.poll()
        if not code or self._errors.closed:
            return None
        self._errors.seek(0)
        # The reason is the last line; there may be a traceback above it.
        lines = self._errors.read(_MAX_STDERR).strip().splitlines() or [b""]
        return first_line(lines[-1]) or f"qctl's helper ended with code {code}"

    def close(self) -> None:
        """See ``RestartCall``; a helper that still waits for the end of the process goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_TIMEOUT_S)
        # Without this line, Popen would warn about a helper that goes on.
        self._process.returncode = self._process.returncode or 0
        self._errors.close()
