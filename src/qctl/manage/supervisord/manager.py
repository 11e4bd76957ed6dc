"""supervisord as a process manager: lists its processes on this host, and restarts single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qctl.errors import ManagerUnreachableError
from qctl.manage.protocol import ManagedProcess, RestartCall
from qctl.manage.supervisord import rpc
from qctl.manage.supervisord.address import Address, find_socket, parse_url
from qctl.manage.supervisord.call import HelperCall
from qctl.manage.supervisord.find import select
from qctl.manage.supervisord.rows import (
    Program,
    targets_of,
    to_process,
    to_program,
    why_not_restartable,
)
from qctl.manage.tool import Refusal

_LISTS = ("supervisor.getPID", "supervisor.getAllProcessInfo", "supervisor.getAllConfigInfo")


class Supervisord:
    """One supervisord.

    Args:
        url: where it listens, as in ``parse_url``; "" to look in the usual places.
        timeout_s: how long to wait for an answer.
    """

    kind = "supervisord"

    def __init__(self, url: str = "", *, timeout_s: float = rpc.TIMEOUT_S) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._found: Address | None = None
        self._is_checked = False
        self._programs: dict[str, Program] | None = None

    def processes(self) -> Sequence[ManagedProcess]:
        """See ``Manager``; sorted by group and name."""
        try:
            pid, rows, configured = rpc.call_all(self._address, *_LISTS, timeout_s=self._timeout_s)
        except rpc.FaultError as fault:
            raise _refused(fault) from None
        self._require_here(pid)
        programs = [program for row in _list(configured) if (program := to_program(row))]
        self._programs = {program.key: program for program in programs}
        processes = [each for row in _list(rows) if (each := self._process(row))]
        return sorted(processes, key=lambda process: process.key)

    def process(self, key: str) -> ManagedProcess | None:
        """See ``Restarter``; the configuration of the program is not read again."""
        if self._programs is None:
            return next((process for process in self.processes() if process.key == key), None)
        try:
            row = self._call("supervisor.getProcessInfo", key)
        except rpc.FaultError as fault:
            if fault.code == rpc.BAD_NAME:
                return None
            raise _refused(fault) from None
        return self._process(row)

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """See ``Manager``; ``NAME``, ``GROUP:NAME`` or ``GROUP:*``."""
        return select(self.processes(), name)

    def targets(self) -> Sequence[str]:
        """See ``Manager``."""
        return list(dict.fromkeys(process.target for process in self.processes()))

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """See ``Restarter``; this also starts a process that has ended."""
        if reason := why_not_restartable(process):
            return Refusal(reason)
        return HelperCall(self._address, process.key, process.pid)

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """See ``Signaller``; only the process itself gets the signal, not its children.

        The helper starts the process again whatever ``autorestart`` says, unless somebody stops the
        process. supervisord counts an exit as a crash only within ``startsecs`` of the start.
        """
        return HelperCall(self._address, process.key, process.pid, process.stop_signal)

    def why_not_rollable(self, process: ManagedProcess) -> str:
        """See ``Signaller``."""
        if process.stop_signal == "SIGKILL":
            return "supervisord kills it without asking it to stop first (stopsignal=KILL)"
        return "" if process.stop_signal else "supervisord does not report its stop signal"

    @property
    def _address(self) -> Address:
        if self._found is None and self._url:
            self._found = parse_url(self._url)
        elif self._found is None:
            path = find_socket()
            if path is None:
                raise ManagerUnreachableError(
                    "supervisord does not run here",
                    why="there is no socket in any of its usual places",
                    hint="set supervisord.url to unix:///PATH or http://127.0.0.1:PORT",
                )
            self._found = Address(path)
        return self._found

    def _process(self, row: object) -> ManagedProcess | None:
        programs = self._programs or {}
        return to_process(row, programs, targets_of(programs.values()))

    def _call(self, method: str, *params: object) -> Any:
        return rpc.call(self._address, method, *params, timeout_s=self._timeout_s)

    def _require_here(self, pid: object) -> None:
        """Raise if the pids of this supervisord are not those of this host.

        Args:
            pid: the pid that supervisord reports as its own. In a container, it is not the pid
                that supervisord has on this host.
        """
        if self._is_checked:
            return
        import psutil  # noqa: PLC0415 - costs 30 ms

        words: Sequence[str] = ()
        try:
            words = psutil.Process(pid).cmdline() if isinstance(pid, int) else ()
            self._is_checked = any("supervisord" in word for word in words)
        except psutil.AccessDenied:
            # The process belongs to another user, so assume that it is supervisord.
            self._is_checked = True
        except (psutil.Error, OSError, ValueError):
            pass
        if not self._is_checked:
            raise ManagerUnreachableError(
                "the processes of this supervisord cannot be seen from here",
                why=f"it reports {pid} as its own pid, but here that pid is not a supervisord",
                hint="work on the host of supervisord, or in its container",
            )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _refused(fault: rpc.FaultError) -> ManagerUnreachableError:
    return ManagerUnreachableError(
        "supervisord does not list its processes",
        why=f"supervisord said: {fault}",
        hint="see `supervisorctl status`",
    )
