"""systemd as a process manager: the services of the system, or those of the user who runs qctl."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace

from qctl.errors import ManagerUnreachableError, NotFoundError, RefusedError
from qctl.manage.protocol import ManagedProcess, RestartCall
from qctl.manage.systemd.calls import RestartJob, SignalCall
from qctl.manage.systemd.groups import groups_of, service_of
from qctl.manage.systemd.names import family_of, is_pattern, unit_pattern
from qctl.manage.systemd.units import (
    PROPERTIES,
    Properties,
    parse_units,
    to_process,
    why_not_restartable,
    why_not_started_again,
)
from qctl.manage.tool import Refusal, ToolFailedError, run_tool
from qctl.similar import similar_names

TIMEOUT_S = 10.0
_MAX_LOG_LINES = 200
# All versions print times in the same form; TZ makes them UTC.
_ENV = {"TZ": "UTC", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}


class Systemd:
    """One systemd.

    Args:
        kind: ``systemd`` for the system's, ``systemd-user`` for this user's.
        timeout_s: how long to wait for an answer.
    """

    def __init__(self, kind: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.kind = kind
        self._is_user = kind == "systemd-user"
        self._timeout_s = timeout_s
        # Unit → the target by which the operator named it.
        self._targets: dict[str, str] = {}

    def processes(self) -> Sequence[ManagedProcess]:
        """See ``Manager``; all services that run, even if they have no worker."""
        found = [self._process(unit) for unit in self._show("*.service")]
        return [process for process in found if process.pid]

    def process(self, key: str) -> ManagedProcess | None:
        """See ``Restarter``. The key is the unit's name; a user's unit has ``user/`` in front."""
        unit = self._unit(key.removeprefix("user/"))
        return self._process(unit) if _exists(unit) else None

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """See ``Manager``; ``name`` as in ``unit_pattern``.

        Raises also ``RefusedError`` if systemd cannot load a service, or does not know its process.
        """
        pattern = unit_pattern(name)
        units = [unit for unit in self._show(pattern) if _exists(unit)]
        if not units:
            raise self._not_found(pattern)
        for unit in units:
            self._require_usable(unit)
        self._targets |= dict.fromkeys([unit["Id"] for unit in units], f"{self.kind}:{name}")
        found = [self._process(unit) for unit in units]
        # Sort instance 10 after instance 9.
        return sorted(found, key=lambda process: (len(process.name), process.name))

    def targets(self) -> Sequence[str]:
        """See ``Manager``; all services that systemd has loaded, even if they have no worker."""
        argv = self._systemctl("list-units", "--type=service", "--all", "--full", "--plain")
        lines = run_tool([*argv, "--no-legend"], timeout_s=self._timeout_s, env=_ENV).splitlines()
        rows = [line.split() for line in lines]
        units = [row[0] for row in rows if len(row) > 1 and row[1] == "loaded"]
        return list(dict.fromkeys(f"{self.kind}:{family_of(unit)}" for unit in units))

    def holding(
        self,
        pids: Collection[int],
        hosts: Collection[str],  # noqa: ARG002 - services run on this host
    ) -> Sequence[ManagedProcess]:
        """See ``Locator``. Leaves out services that are process managers themselves."""
        groups = groups_of(pids)
        names = {unit for group in groups if (unit := service_of(group, user=self._is_user))}
        if not names:
            return ()
        units = [unit for unit in self._show(*sorted(names)) if unit.get("ControlGroup") in groups]
        return [self._process(unit) for unit in units]

    def begin_restart(self, process: ManagedProcess) -> RestartCall:
        """See ``Restarter``; this also starts a stopped service."""
        reason = why_not_restartable(self._unit(process.name))
        if reason:
            return Refusal(reason)
        self._forget_starts(process.name)
        argv = self._systemctl("restart", "--", process.name)
        return RestartJob(argv, _ENV, lambda: self.process(process.key), process)

    def begin_exit(self, process: ManagedProcess) -> RestartCall:
        """See ``Signaller``: have systemd send the stop signal to the main process alone.

        systemd does not treat this as a stop: it sets no time limit, and starts the service again
        if the service's settings allow a start (see ``why_not_rollable``).
        """
        self._forget_starts(process.name)
        # Before version 252, --kill-whom was named --kill-who. Newer versions accept both.
        options = ("--kill-who=main", f"--signal={process.stop_signal}")
        return SignalCall(self._systemctl("kill", *options, "--", process.name), _ENV)

    def why_not_rollable(self, process: ManagedProcess) -> str:
        """See ``Signaller``."""
        if process.signal_trouble:
            return process.signal_trouble
        return why_not_started_again(self._unit(process.name))

    def log_since(self, process: ManagedProcess, since_s: float) -> list[str]:
        """See ``LogSource``; includes what systemd itself reports of the service.

        Empty if this user may not read the journal.
        """
        option = "--user-unit" if self._is_user else "--unit"
        argv = [
            *("journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={_MAX_LOG_LINES}"),
            *(f"--since=@{since_s:.6f}", f"{option}={process.name}"),
        ]
        return run_tool(argv, timeout_s=self._timeout_s, env=_ENV).splitlines()

    def _process(self, unit: Properties) -> ManagedProcess:
        process = to_process(self.kind, unit)
        return replace(process, target=self._targets.get(process.name, process.target))

    def _forget_starts(self, unit: str) -> None:
        """Reset systemd's count of starts, which also counts starts by hand.

        If the count is at its limit (StartLimitBurst), systemd stops the old process but starts no
        new one. An error is ignored here, because the next request to systemd then fails too.
        """
        with contextlib.suppress(ManagerUnreachableError):
            argv = self._systemctl("reset-failed", "--", unit)
            run_tool(argv, timeout_s=self._timeout_s, env=_ENV)

    def _show(self, *units: str) -> list[Properties]:
        argv = self._systemctl("show", f"--property={','.join(PROPERTIES)}", "--", *units)
        try:
            return list(parse_units(run_tool(argv, timeout_s=self._timeout_s, env=_ENV)))
        except ToolFailedError as error:
            hint = "a host without systemd has no such targets"
            if self._is_user:
                hint = "run qctl as the user who owns the services, with "
                hint += "XDG_RUNTIME_DIR=/run/user/UID, as a login sets it"
            raise ManagerUnreachableError(error.what, why=error.why, hint=hint) from None

    def _unit(self, name: str) -> Properties:
        return next(iter(self._show(name)), {})

    def _systemctl(self, verb: str, *words: str) -> list[str]:
        scope = ["--user"] if self._is_user else []
        return ["systemctl", *scope, "--no-pager", "--no-ask-password", verb, *words]

    def _not_found(self, pattern: str) -> NotFoundError:
        whose = "the user's systemd" if self._is_user else "systemd"
        what = f"{whose} has no service {pattern}"
        if is_pattern(pattern):
            what = f"{whose} has loaded no instance of {pattern}"
        near = similar_names(f"{self.kind}:{pattern}", self.targets())
        listing = f"systemctl {'--user ' * self._is_user}list-units --type=service"
        return NotFoundError(
            what,
            why="qctl restarts only services, and only those that systemd has loaded",
            hint=f"did you mean {near[0]}?" if near else f"see the names: {listing}",
        )

    def _require_usable(self, unit: Properties) -> None:
        name, state = unit["Id"], unit.get("LoadState")
        show = f"systemctl {'--user ' * self._is_user}status {name}"
        if state != "loaded":
            raise RefusedError(
                f"{name} cannot be restarted",
                why=f"systemd would not start it again: its unit file is {state}",
                hint=f"see {show}",
            )
        if unit.get("SubState") == "running" and unit.get("MainPID") == "0":
            raise RefusedError(
                f"the main process of {name} is unknown",
                why="systemd does not know it either, so no restart can be proved",
                hint="set PIDFile= or Type=exec in the unit, or prove the restart by the "
                f"connections in Redis: qctl drain QUEUE -- systemctl restart {name}",
            )


def _exists(unit: Properties) -> bool:
    """Whether there is a service: it can be loaded, or it runs although its file is gone."""
    return bool(unit) and (
        unit.get("LoadState") == "loaded" or unit.get("ActiveState") not in {None, "inactive"}
    )
