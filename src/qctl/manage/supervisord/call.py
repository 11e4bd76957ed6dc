"""The ``RestartCall`` of supervisord: a helper process that outlives qctl; see ``helper.py``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict

from qctl.manage.supervisord.address import Address
from qctl.manage.tool import DetachedCall, first_line

# How long to wait for a helper that is about to end.
_CLOSE_TIMEOUT_S = 2.0


class HelperCall(DetachedCall):
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
        try:
            # Write the request before the helper starts, so that the helper has it even if qctl
            # is killed right after the start.
            os.write(writer, f"{json.dumps(request)}\n".encode())
            words = ["-P", "-m", "qctl.manage.supervisord.helper"]
            super().__init__([sys.executable, *words], stdin=reader, cwd="/")
        finally:
            os.close(reader)
            os.close(writer)

    def _message(self, stderr: bytes) -> str:
        # The reason is the last line; there may be a traceback above it.
        return first_line(b"\n".join(stderr.strip().splitlines()[-1:]))

    def close(self) -> None:
        """See ``RestartCall``. A helper keeps running if it still waits for the process to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_TIMEOUT_S)
        # Without this line, Popen would warn about a helper that goes on.
        self._process.returncode = self._process.returncode or 0
        super().close()
