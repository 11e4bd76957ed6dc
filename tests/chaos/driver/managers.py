"""The process managers of a round, each with one app of Node workers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Protocol

import psutil

from tests.labs.drains import Lab, is_alive
from tests.labs.managed_by_command import CommandApp
from tests.labs.supervisord import Program, Supervisord

# Longer than any job.
KILL_AFTER_S = 4.0


class App(Protocol):
    """Node workers under a manager.

    Attributes:
        target: how qctl names the app.
        can_roll: whether qctl can replace one process after another.
        kill_after_s: how long the manager waits after the stop signal, in seconds.
    """

    target: str
    can_roll: bool
    kill_after_s: float

    def start(self, env: Mapping[str, object]) -> None:
        """Start the manager and the app."""
        ...

    @property
    def daemon(self) -> int:
        """The pid of the manager; 0 if it is gone."""
        ...

    def pids(self) -> list[int]:
        """The pids of the workers that the manager knows."""
        ...

    def calls_all_online(self) -> bool:
        """Whether the manager calls every process online; a new one may work before that."""
        ...

    def qctl_env(self) -> dict[str, str]:
        """How qctl finds the manager."""
        ...

    def repair(self) -> None:
        """Start the manager and what it gave up, as the system or an operator would."""
        ...

    def close(self) -> None: ...


class Pm2App:
    """The app under PM2."""

    can_roll = True
    kill_after_s = KILL_AFTER_S

    def __init__(self, lab: Lab, instances: int) -> None:
        self._lab = lab
        self._instances = instances
        self._env: dict[str, object] = {}
        self.target = "pm2:app"

    def start(self, env: Mapping[str, object]) -> None:
        self._env = dict(env)
        options = {"kill_timeout": int(KILL_AFTER_S * 1000), "restart_delay": 100}
        self._lab.pm2.start("app", env=self._env, instances=self._instances, **options)

    @property
    def daemon(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._lab.pm2.home / "pm2.pid").read_text())
            return pid if is_alive(pid) else 0
        return 0

    def pids(self) -> list[int]:
        return [row.pid for row in self._lab.pm2.rows("app") if row.pid and is_alive(row.pid)]

    def calls_all_online(self) -> bool:
        return all(row.status == "online" for row in self._lab.pm2.rows("app"))

    def qctl_env(self) -> dict[str, str]:
        return {}

    def repair(self) -> None:
        rows = self._lab.pm2.rows("app")
        if not rows:
            self.start(self._env)
        elif any(row.status in {"errored", "stopped"} for row in rows):
            self._lab.pm2.run("restart", "app")

    def close(self) -> None:
        """The lab ends its PM2."""


class ByCommand(Pm2App):
    """The same, for a qctl that knows only commands which ask and restart PM2."""

    can_roll = False

    def __init__(self, lab: Lab, instances: int) -> None:
        super().__init__(lab, instances)
        # It writes the commands.
        self.target = CommandApp(lab).target

    def qctl_env(self) -> dict[str, str]:
        return {"PM2_HOME": "/nonexistent"}


class SupervisordApp:
    """The app under supervisord."""

    can_roll = True
    kill_after_s = KILL_AFTER_S

    def __init__(self, _: Lab, instances: int) -> None:
        self._instances = instances
        self._supervisord: Supervisord | None = None
        self.target = "supervisord:app:*" if instances > 1 else "supervisord:app"

    @property
    def supervisord(self) -> Supervisord:
        assert self._supervisord is not None, "the app is not started"
        return self._supervisord

    def start(self, env: Mapping[str, object]) -> None:
        options = {"stopwaitsecs": int(KILL_AFTER_S), "autorestart": "true", "startsecs": 1}
        program = Program("app", instances=self._instances, env=env, options=options)
        self._supervisord = Supervisord(program)

    @property
    def daemon(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            pid = self.supervisord.pid
            return pid if is_alive(pid) else 0
        return 0

    def pids(self) -> list[int]:
        with contextlib.suppress(psutil.Error):
            return self.supervisord.pids() if self.daemon else []
        return []

    def calls_all_online(self) -> bool:
        return self.supervisord.ask("status").count("RUNNING") == self._instances

    def qctl_env(self) -> dict[str, str]:
        return {"QCTL_SUPERVISORD_URL": self.supervisord.url}

    def repair(self) -> None:
        if not self.daemon:
            self.supervisord.start()
        states = self.supervisord.ask("status")
        if any(word in states for word in ("FATAL", "EXITED", "STOPPED")):
            self.supervisord.ask("start", "all")

    def close(self) -> None:
        if self._supervisord is not None:
            if self.daemon:
                self._supervisord.close()
            else:
                self._supervisord.forget()


MANAGERS: dict[str, type[Pm2App | SupervisordApp]] = {
    "pm2": Pm2App,
    "supervisord": SupervisordApp,
    "command": ByCommand,
}
