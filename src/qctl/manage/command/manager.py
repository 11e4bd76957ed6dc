"""The manager for ``command:`` targets: the operator's own commands check and restart the app."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from shlex import join

from qctl.config.commands import AppCommands
from qctl.errors import ManagerUnreachableError, NotFoundError, UsageError
from qctl.manage.numbers import whole_number
from qctl.manage.protocol import ManagedProcess
from qctl.manage.tool import ToolFailedError, run_tool

TIMEOUT_S = 10.0
# A shell exits with 127 if it does not find a command, and with 126 if it cannot run the command.
_NOT_RUN = frozenset({126, 127})
# A ``status`` may print a count instead of pids. 0 and 1 are no app's pid, so they are counts.
_MIN_PID = 2


class Command:
    """The apps that have a table ``[commands.NAME]`` in the config.

    Args:
        apps: the commands of each app.
        timeout_s: how long a ``status`` may run.
    """

    kind = "command"

    def __init__(self, apps: Sequence[AppCommands], *, timeout_s: float = TIMEOUT_S) -> None:
        self._apps = {app.name: app for app in apps}
        self._timeout_s = timeout_s

    def processes(self) -> Sequence[ManagedProcess]:
        """See ``Manager``. An app whose ``status`` prints no pid is one process without a pid."""
        return [process for name in self._apps for process in self.find(name)]

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """See ``Manager``; runs the ``status`` of the app."""
        app = self._app(name)
        try:
            output = run_tool(app.status, timeout_s=self._timeout_s)
        except ToolFailedError as error:
            if error.code > 0 and error.code not in _NOT_RUN:
                return [_process(app, "stopped", None, None)]
            why = f"it ended with code {error.code}"
        except ManagerUnreachableError as error:
            why = error.why
        else:
            return _running(app, output)
        # Raise outside ``except``, without chaining the errors above: they may quote secrets.
        program = app.status[0]
        raise ManagerUnreachableError(
            f"the status of command:{name} gave no answer",
            why=f"{program}: {why}",
            hint=f"run it yourself; it is in [commands.{name}] of the user's config",
        )

    def targets(self) -> Sequence[str]:
        """See ``Manager``; runs no command."""
        return [f"{self.kind}:{name}" for name in self._apps]

    def restart_command(self, name: str) -> tuple[str, ...]:
        """See ``Rollout``.

        Raises:
            UsageError: the config has no such command, or the program does not exist.
        """
        app = self._app(name)
        if not app.restart:
            restart = ["…"]
            if app.stop and app.start:
                restart = ["sh", "-c", f"{join(app.stop)} && {join(app.start)}"]
            raise UsageError(
                f"[commands.{name}] has no restart",
                why="qctl runs one command that stops the app, and starts it again",
                hint=f"restart = {_toml(restart)}",
            )
        if shutil.which(app.restart[0]) is None:
            raise UsageError(
                f"there is no command {app.restart[0]!r}",
                why=f"it is run without a shell, as restart of [commands.{name}]",
                hint='give the path of the program, or wrap shell syntax: ["sh", "-c", "…"]',
            )
        return app.restart

    def shortcoming(self, name: str, before: Sequence[ManagedProcess]) -> str:  # noqa: ARG002
        """See ``Rollout``: ``status`` must say that the app runs again.

        Pids are not compared: a ``status`` may print the pid of a master that stays.
        """
        try:
            is_running = any(process.status == "online" for process in self.find(name))
        except ManagerUnreachableError as error:
            return f"{error.what}: {error.why}"
        return "" if is_running else f"the status of command:{name} says that it does not run"

    def _app(self, name: str) -> AppCommands:
        app = self._apps.get(name)
        if app is None:
            known = ", ".join(self.targets()) or "the user's config defines none"
            raise NotFoundError(
                f"no commands are configured for {name}",
                why=f"targets: {known}",
                hint=f"define [commands.{name}] in the user's own config",
            )
        return app


def _running(app: AppCommands, output: str) -> list[ManagedProcess]:
    """The processes whose pids ``status`` printed; if it printed none, one process without pid."""
    found = [_process(app, "online", pid, started_ms) for pid, started_ms in _processes_in(output)]
    return found or [_process(app, "online", None, None)]


def _processes_in(output: str) -> Iterator[tuple[int, int]]:
    """The pids in an output, one per line, and when these processes started (epoch ms)."""
    numbers = [whole_number(line.strip()) for line in output.splitlines()]
    pids = [number for number in numbers if number is not None]
    if not pids:
        return
    import psutil  # noqa: PLC0415 - costs 30 ms

    for pid in dict.fromkeys(pid for pid in pids if pid >= _MIN_PID):
        try:
            yield pid, round(psutil.Process(pid).create_time() * 1000)
        except (psutil.Error, ValueError, OverflowError):
            # No process of this host has this pid.
            continue


def _process(
    app: AppCommands, status: str, pid: int | None, started_at_ms: int | None
) -> ManagedProcess:
    return ManagedProcess(
        target=f"command:{app.name}",
        key=app.name if pid is None else f"{app.name}/{pid}",
        name=app.name,
        namespace="",
        status=status,
        pid=pid,
        started_at_ms=started_at_ms,
        restarts=None,
        mode="fork",
        stop_signal=app.signal,
        kill_timeout_ms=None if app.grace_s is None else round(app.grace_s * 1000),
        ready_timeout_ms=0,
        cpu_percent=None,
        rss_bytes=None,
        last_start_ms=started_at_ms,
    )


def _toml(words: Sequence[str]) -> str:
    import json  # noqa: PLC0415 - JSON and TOML write a list of strings in the same way

    return json.dumps(list(words), ensure_ascii=False)
