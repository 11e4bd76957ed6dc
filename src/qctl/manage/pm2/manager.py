"""PM2 as a process manager: lists its processes on this host, and restarts single processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qctl.errors import ManagerUnreachableError, QctlError, RefusedError, UnreachableError
from qctl.manage.pm2 import rpc
from qctl.manage.pm2.find import select, targets_text
from qctl.manage.pm2.rows import STOP_SIGNAL, to_process
from qctl.manage.protocol import ManagedProcess, RestartCall


class Pm2:
    """The PM2 daemon of one ``PM2_HOME``.

    Args:
        home: PM2's folder, usually ``~/.pm2``.
        timeout_s: how long to wait for an answer.
    """

    kind = "pm2"

    def __init__(self, home: Path, *, timeout_s: float = rpc.TIMEOUT_S) -> None:
        self._home = home
        self._socket = home / "rpc.sock"
        self._timeout_s = timeout_s

    def processes(self) -> Sequence[ManagedProcess]:
        """See ``Manager``; sorted by pm_id, without PM2's own modules."""
        processes = [process for row in self._rows() if (process := to_process(row))]
        return sorted(processes, key=lambda process: int(process.key))

    def process(self, key: str) -> ManagedProcess | None:
        """See ``Restarter``; the key is the pm_id."""
        return next((process for process in self.processes() if process.key == key), None)

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """All instances of the app ``name``, or the process whose pm_id is ``name``.

        Unlike in PM2's own commands, a name never means a namespace. Raises like ``Manager.find``,
        and ``RefusedError`` if ``name`` is one app's name and the pm_id of another app's process.
        """
        return select(self.processes(), name)

    def targets(self) -> Sequence[str]:
        """See ``Manager``."""
        return list(dict.fromkeys(process.target for process in self.processes()))

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """See ``Restarter``; this also starts a stopped process.

        PM2 gets the pm_id alone: a name would also match other apps, and any further argument would
        change the app's settings.
        """
        # The id must be a number, because PM2 compares it with its own ids, which are numbers.
        call = self._begin("restartProcessId", {"id": int(process.key)})
        return _RpcRestart(call, lambda: self._restart_by_cli(process.key))

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """See ``Signaller``: have PM2 send this one process SIGINT.

        Unlike a restart, this sends no SIGKILL later and changes no setting of the app. If PM2
        would count the exit as a crash, this first resets PM2's counters for the process, as ``pm2
        reset`` does. After the exit, PM2 starts the process again if the app's settings allow it
        (see ``starts_again``). Only the process itself gets the signal, not its children.
        """
        if process.crash_until_ms is not None and time.time() * 1000 < process.crash_until_ms:
            # A reset may fail: if PM2 then gives up the process, the caller restarts the process.
            with contextlib.suppress(rpc.RpcError, UnreachableError):
                self._call("resetMetaProcessId", int(process.key))
        request = {"process_id": int(process.key), "signal": STOP_SIGNAL}
        return _RpcRestart(self._begin("sendSignalToProcessId", request), _no_signals)

    def why_not_rollable(self, process: ManagedProcess) -> str:
        """See ``Signaller``."""
        if process.stop_signal == "message":
            return "PM2 stops it by a message, and always kills a process soon after the message"
        return ""

    def _begin(self, method: str, argument: object) -> rpc.Call:
        return rpc.Call(self._socket, method, argument, timeout_s=self._timeout_s)

    def _call(self, method: str, argument: object) -> list[Any]:
        return rpc.call(self._socket, method, argument, timeout_s=self._timeout_s)

    def _rows(self) -> list[Any]:
        try:
            answer = self._call("getMonitorData", {})
        except (rpc.NotUnderstoodError, rpc.UnknownMethodError):
            answer = []
        except rpc.RpcError as error:
            raise ManagerUnreachableError(
                "PM2 does not list its processes", why=f"PM2 said: {error}", hint="see `pm2 logs`"
            ) from None
        if answer and isinstance(answer[0], list):
            return answer[0]
        self._require_daemon()
        from qctl.manage.pm2 import cli  # noqa: PLC0415 - rarely needed

        return cli.list_rows(self._home)

    def _restart_by_cli(self, pm_id: str) -> RestartCall:
        self._require_daemon()
        from qctl.manage.pm2 import cli  # noqa: PLC0415 - rarely needed

        # `pm2 restart 3` prefers an app or a namespace named 3 to the process with pm_id 3.
        named = [p for p in self.processes() if pm_id in {p.name, p.namespace} and p.key != pm_id]
        if named:
            raise RefusedError(
                f"pm_id {pm_id} cannot be restarted",
                why=f"`pm2 restart {pm_id}` would restart by name: {targets_text(named)}",
                hint="rename that app or namespace",
            )
        return cli.CliRestart(self._home, pm_id)

    def _require_daemon(self) -> None:
        """Raise if no daemon accepts connections: a ``pm2`` command would then start a daemon."""
        rpc.connect(self._socket, self._timeout_s).close()


def _no_signals() -> RestartCall:
    raise ManagerUnreachableError(
        "this PM2 cannot send signals", why="it has no such method", hint="--strategy pause"
    )


class _RpcRestart:
    """A ``RestartCall`` over the socket; calls ``fallback`` if PM2 lacks the method."""

    def __init__(self, call: rpc.Call, fallback: Callable[[], RestartCall]) -> None:
        self._call = call
        self._fallback = fallback
        self._fallback_call: RestartCall | None = None
        self._is_done = False
        self._error: str | None = None

    def error(self) -> str | None:
        if not self._is_done:
            self._poll()
        return self._fallback_call.error() if self._fallback_call else self._error

    def _poll(self) -> None:
        try:
            # The reply contains the app's environment: only check whether it has arrived.
            if self._call.poll() is None:
                return
        except rpc.UnknownMethodError:
            try:
                self._fallback_call = self._fallback()
            except QctlError as error:
                self._error = f"{error.what}: {error.why}"
        except (rpc.NotUnderstoodError, UnreachableError):
            # A lost answer is no refusal: PM2 may be restarting the process, so do not ask twice.
            # The caller watches the process and notices when PM2 is gone.
            pass
        except rpc.RpcError as error:
            self._error = str(error)
        self._is_done = True
        self._call.close()

    def close(self) -> None:
        self._is_done = True
        self._call.close()
        if self._fallback_call:
            self._fallback_call.close()
