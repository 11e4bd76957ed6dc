"""Requests that change a service, over ``systemctl``; systemd may refuse them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qctl.errors import QctlError
from qctl.manage.protocol import ManagedProcess
from qctl.manage.tool import ToolCall

# How systemctl reports that a request failed after systemd had accepted it.
_JOB = "Job for "
# What systemctl prints if this user lacks rights. The last text means that polkit does not answer.
_NO_RIGHTS = ("authentication required", "Access denied", "Permission denied", "timed out")


class SignalCall(ToolCall):
    """A running ``systemctl`` that says what to do if rights are missing."""

    def _message(self, stderr: bytes) -> str:
        line = super()._message(stderr)
        if any(text in line for text in _NO_RIGHTS):
            line += "; run qctl as root, or let polkit allow this user to manage units"
        return line


class RestartJob(SignalCall):
    """A running ``systemctl restart``.

    Args:
        argv, env: see ``ToolCall``.
        read: reads the process as it is now.
        before: the process before the restart.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        read: Callable[[], ManagedProcess | None],
        before: ManagedProcess,
    ) -> None:
        super().__init__(argv, env)
        self._read = read
        self._before = before

    def error(self) -> str | None:
        """Why systemd refused; None if it has started a process, even one that failed at once."""
        text = super().error()
        if text is None or not text.startswith(_JOB):
            return text
        try:
            now = self._read()
        except QctlError:
            return None
        if now is None or now.status != "errored" or now.was_started_since(self._before):
            # The caller reports what has become of the service, with the end of its log.
            return None
        return f"{text.rstrip('.')}, and started nothing"
