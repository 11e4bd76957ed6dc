"""PM2: what it runs on this host, and restarts of single processes.

PM2's rows carry each app's whole environment, secrets included. Fields are picked from a row by
name, and the row is dropped at once: it is never stored, logged or put into an exception.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qctl.errors import (
    ManagerUnreachableError,
    NotFoundError,
    QctlError,
    RefusedError,
    UnreachableError,
)
from qctl.manage import pm2_socket
from qctl.manage.protocol import ManagedProcess, RestartCall
from qctl.plurals import counted
from qctl.similar import similar_names

# PM2's own defaults; a row has these fields only when the app sets them.
DEFAULT_KILL_TIMEOUT_MS = 1600
DEFAULT_LISTEN_TIMEOUT_MS = 3000
DEFAULT_MIN_UPTIME_MS = 1000
DEFAULT_MAX_RESTARTS = 16
# PM2_KILL_SIGNAL in the daemon's environment can change it; no row and no harmless call shows that.
DEFAULT_STOP_SIGNAL = "SIGINT"
_MAX_LISTED = 20


class Pm2:
    """The PM2 daemon of one ``PM2_HOME``.

    Args:
        home: PM2's folder, usually ``~/.pm2``.
        timeout_s: longest time to wait for an answer.
    """

    kind = "pm2"

    def __init__(self, home: Path, *, timeout_s: float = 10.0) -> None:
        self._home = home
        self._socket = home / "rpc.sock"
        self._timeout_s = timeout_s

    def processes(self) -> Sequence[ManagedProcess]:
        """All processes of all apps, by pm_id; PM2's own modules are left out.

        Raises:
            UnreachableError: PM2 does not run, does not answer or is not understood. Asking never
                starts a daemon.
        """
        processes = [process for row in self._rows() if (process := _process(row))]
        return sorted(processes, key=lambda process: int(process.key))

    def process(self, key: str) -> ManagedProcess | None:
        """The process with this pm_id; None if there is none.

        Raises:
            UnreachableError: as for ``processes``.
        """
        return next((process for process in self.processes() if process.key == key), None)

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """All instances of the app ``name``, or the process with this pm_id.

        Unlike PM2's own commands, a name never means a namespace.

        Raises:
            NotFoundError: there is none; the message lists the targets there are.
            RefusedError: the name means several apps, or an app and another app's pm_id.
            UnreachableError: as for ``processes``.
        """
        return select(self.processes(), name)

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """Ask PM2 to restart this one process, and return at once.

        PM2 is given the pm_id alone: a name would also match other apps, and any further argument
        would change the app's settings. A stopped process is started by it.

        Raises:
            UnreachableError: PM2 does not run or does not take the request.
        """
        # The number as such: PM2 looks it up among its keys.
        request = {"id": int(process.key)}
        call = pm2_socket.Call(self._socket, "restartProcessId", request, timeout_s=self._timeout_s)
        return _RpcRestart(call, lambda: self._restart_by_cli(process.key))

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """Have PM2 send this one process SIGINT, and return at once.

        Unlike a restart's, this signal is followed by no SIGKILL, and changes no setting of the
        app, so there is none to put back. Where PM2 would count the exit as a crash, its counters
        are set to 0 first, as by ``pm2 reset``; PM2's own restart does that to the crashes, too.
        PM2 starts the process again when it has left, unless the app says otherwise
        (``autorestart``, ``stop_exit_codes``); then its status is ``stopped``. Only the process
        itself gets the signal, not its children.

        Raises:
            UnreachableError: PM2 does not run or does not take the request.
        """
        if process.crash_until_ms is not None and time.time() * 1000 < process.crash_until_ms:
            # If it fails and PM2 gives the process up, the caller has it started again.
            with contextlib.suppress(pm2_socket.RpcError, UnreachableError):
                self._call("resetMetaProcessId", int(process.key))
        request = {"process_id": int(process.key), "signal": DEFAULT_STOP_SIGNAL}
        method = "sendSignalToProcessId"
        call = pm2_socket.Call(self._socket, method, request, timeout_s=self._timeout_s)
        return _RpcRestart(call, _no_signals)

    def _call(self, method: str, argument: object) -> list[Any]:
        return pm2_socket.call(self._socket, method, argument, timeout_s=self._timeout_s)

    def _rows(self) -> list[Any]:
        try:
            answer = self._call("getMonitorData", {})
        except (pm2_socket.NotUnderstoodError, pm2_socket.UnknownMethodError):
            answer = []
        except pm2_socket.RpcError as error:
            raise ManagerUnreachableError(
                "PM2 does not list its processes", why=f"PM2 said: {error}", hint="see `pm2 logs`"
            ) from None
        if answer and isinstance(answer[0], list):
            return answer[0]
        self._require_daemon()
        from qctl.manage import pm2_cli  # noqa: PLC0415 - rarely needed

        return pm2_cli.list_rows(self._home)

    def _restart_by_cli(self, pm_id: str) -> RestartCall:
        self._require_daemon()
        from qctl.manage import pm2_cli  # noqa: PLC0415 - rarely needed

        # `pm2 restart 3` means an app or a namespace named "3" before it means the pm_id 3.
        named = [p for p in self.processes() if pm_id in {p.name, p.namespace} and p.key != pm_id]
        if named:
            raise RefusedError(
                f"pm_id {pm_id} cannot be restarted",
                why=f"`pm2 restart {pm_id}` would restart {_targets(named)} by name or namespace",
                hint="rename that app or namespace",
            )
        return pm2_cli.CliRestart(self._home, pm_id)

    def _require_daemon(self) -> None:
        """A ``pm2`` command looks for the daemon on this socket, and starts one if none accepts."""
        pm2_socket.connect(self._socket, self._timeout_s).close()


def _no_signals() -> RestartCall:
    raise ManagerUnreachableError(
        "this PM2 cannot send signals", why="it has no such method", hint="--strategy pause"
    )


class _RpcRestart:
    """A restart asked for over the socket; falls back to the CLI if PM2 has no such method."""

    def __init__(self, call: pm2_socket.Call, fallback: Callable[[], RestartCall]) -> None:
        self._call = call
        self._fallback = fallback
        self._other: RestartCall | None = None
        self._done = False
        self._error: str | None = None

    def error(self) -> str | None:
        """Why PM2 refused; None while it is at work or when it reported success."""
        if not self._done:
            self._poll()
        return self._other.error() if self._other else self._error

    def _poll(self) -> None:
        try:
            # The reply holds the app's environment: only look whether there is one.
            self._done = self._call.poll() is not None
        except pm2_socket.UnknownMethodError:
            self._done = True
            try:
                self._other = self._fallback()
            except QctlError as error:
                self._error = f"{error.what}: {error.why}"
        except (pm2_socket.NotUnderstoodError, UnreachableError):
            # No refusal: it may well be at work, and asking a second time would restart twice. The
            # caller watches the process, and so notices when PM2 is gone.
            self._done = True
        except pm2_socket.RpcError as error:
            self._done, self._error = True, str(error)
        if self._done:
            self._call.close()

    def close(self) -> None:
        """Stop listening; PM2 goes on."""
        self._done = True
        self._call.close()
        if self._other:
            self._other.close()


def select(processes: Sequence[ManagedProcess], name: str) -> Sequence[ManagedProcess]:
    """Those of ``processes`` that the operator means by ``name``; see ``Pm2.find``."""
    named = [process for process in processes if process.name == name]
    by_id = [process for process in processes if process.key == name]
    if named and by_id and named != by_id:
        other = by_id[0]
        raise RefusedError(
            f"pm2:{name} means two things",
            why=f"an app is named {name}, and {name} is the pm_id of {other.name}",
            hint=f"use {other.target} for the pm_id, or pm2:{named[0].key} for the app",
        )
    if named:
        _require_one_app(named, name)
        return named
    if by_id:
        return [replace(by_id[0], target=f"pm2:{name}")]
    raise _not_found(processes, name)


def _require_one_app(named: Sequence[ManagedProcess], name: str) -> None:
    if len({(process.namespace, process.script, process.cwd) for process in named}) == 1:
        return
    lines = [
        f"pm2:{process.key}: {process.script} in {process.cwd} (namespace {process.namespace})"
        for process in named
    ]
    raise RefusedError(
        f"{name} is the name of several different apps",
        why="\n".join(lines),
        hint=f"name one process by its pm_id: pm2:{named[0].key}",
    )


def _not_found(processes: Sequence[ManagedProcess], name: str) -> NotFoundError:
    if not processes:
        return NotFoundError(
            f"PM2 has no app named {name}",
            why="PM2 manages no app at all",
            hint="start one with `pm2 start`, or set PM2_HOME to the folder of the PM2 meant",
        )
    inside = [process for process in processes if process.namespace == name]
    if inside:
        return NotFoundError(
            f"{name} is a namespace of PM2, not an app",
            why=f"apps in it: {_targets(inside)}",
            hint=f"name one app: {inside[0].target}",
        )
    names = list(dict.fromkeys(process.name for process in processes))
    close = similar_names(name, names)
    return NotFoundError(
        f"PM2 has no app named {name}",
        why=f"targets: {_targets(processes)}",
        hint=f"did you mean pm2:{close[0]}?" if close else "name one of these targets",
    )


def _targets(processes: Sequence[ManagedProcess]) -> str:
    counts: dict[str, int] = {}
    for process in processes:
        counts[process.target] = counts.get(process.target, 0) + 1
    listed = [
        f"{target} ({counted(count, 'process', 'processes')})" for target, count in counts.items()
    ]
    if len(listed) > _MAX_LISTED:
        listed[_MAX_LISTED:] = [f"{len(listed) - _MAX_LISTED} more"]
    return ", ".join(listed)


def _process(row: object) -> ManagedProcess | None:
    """The whitelisted fields of a row; None for a module of PM2 and for what is not a row."""
    if not isinstance(row, dict):
        return None
    env = row.get("pm2_env")
    env = env if isinstance(env, dict) else {}
    pm_id = _number(row.get("pm_id", env.get("pm_id")))
    name = _text(row.get("name")) or _text(env.get("name"))
    if pm_id is None or not name or env.get("pmx_module"):
        return None
    pid = _number(row.get("pid")) or None
    monit = row.get("monit")
    monit = monit if pid and isinstance(monit, dict) else {}
    cpu = monit.get("cpu")
    log = _text(env.get("pm_err_log_path"))
    listen_timeout_ms = _number(env.get("listen_timeout")) or DEFAULT_LISTEN_TIMEOUT_MS
    return ManagedProcess(
        target=f"pm2:{name}",
        key=str(pm_id),
        name=name,
        namespace=_text(env.get("namespace")) or "default",
        status=_text(env.get("status")) or "unknown",
        pid=pid,
        started_at_ms=_number(env.get("pm_uptime")) if pid else None,
        restarts=_number(env.get("restart_time")) or 0,
        mode="cluster" if env.get("exec_mode") == "cluster_mode" else "fork",
        stop_signal="message" if env.get("shutdown_with_message") else DEFAULT_STOP_SIGNAL,
        # PM2 takes 0 for unset, too.
        kill_timeout_ms=_number(env.get("kill_timeout")) or DEFAULT_KILL_TIMEOUT_MS,
        ready_timeout_ms=listen_timeout_ms if env.get("wait_ready") else 0,
        cpu_percent=float(cpu) if isinstance(cpu, int | float) else None,
        rss_bytes=_number(monit.get("memory")),
        last_start_ms=_number(env.get("pm_uptime")),
        starts_again=_starts_again(env),
        crash_until_ms=_crash_until_ms(env) if pid else None,
        tree_kill=env.get("treekill") is not False,
        script=_text(env.get("pm_exec_path")),
        cwd=_text(env.get("pm_cwd")),
        error_log=Path(log) if log and "\0" not in log else None,
    )


def _starts_again(env: Mapping[str, object]) -> bool:
    if env.get("autorestart") in {False, "false"} or env.get("stop_exit_codes"):
        return False
    # PM2 gives up at the first exit then, whatever the process had done.
    return _number(env.get("max_restarts")) != 0


def _crash_until_ms(env: Mapping[str, object]) -> int | None:
    """PM2 counts an exit within ``min_uptime`` of the start, in the first ``max_restarts`` times
    ``min_uptime`` after the app was created or last restarted by a command.
    """
    started_ms, created_ms = _number(env.get("pm_uptime")), _number(env.get("created_at"))
    min_uptime_ms = _number(env.get("min_uptime", DEFAULT_MIN_UPTIME_MS))
    most = _number(env.get("max_restarts", DEFAULT_MAX_RESTARTS))
    if started_ms is None or created_ms is None or min_uptime_ms is None or most is None:
        return None
    return min(started_ms + min_uptime_ms, created_ms + min_uptime_ms * most)


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    """A whole number from 0; some versions of PM2 keep numbers as text."""
    number = None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = int(value)
    return number if number is not None and number >= 0 else None
