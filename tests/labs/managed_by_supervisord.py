"""The app of the process managers' scenarios, under supervisord."""

from __future__ import annotations

from collections.abc import Mapping

from tests.labs.drains import SECRET, Lab, Running
from tests.labs.servers import wait_until
from tests.labs.supervisord import Program, Supervisord


class SupervisordApp:
    """The app under supervisord, on a socket that needs a password."""

    target = "supervisord:app"
    shows_pids = True

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._supervisord: Supervisord | None = None

    @property
    def supervisord(self) -> Supervisord:
        """The supervisord, once the app is started."""
        assert self._supervisord is not None
        return self._supervisord

    def start(
        self, instances: int = 1, *, options: Mapping[str, object] = {}, **env: object
    ) -> None:
        """See ``ManagedApp``.

        Args:
            options: lines of the program's section.
        """
        fixed = {"REDIS_PORT": self._lab.server.port, "SECRET_TOKEN": SECRET}
        own = {"QUEUES": "q", "CONCURRENCY": 5, **fixed, **env}
        program = Program("app", instances=instances, env=own, options=options)
        self._supervisord = Supervisord(program, password=SECRET)
        self.target = "supervisord:app:*" if instances > 1 else "supervisord:app"
        for queue in str(own["QUEUES"]).split(","):
            self._lab.wait_workers(queue, instances)
        if instances > 1:
            # For a second after its start, supervisord does not call a process running.
            status = self.supervisord.ask
            wait_until(lambda: status("status").count("RUNNING") == instances, "them to run")

    def pids(self) -> list[int]:
        """See ``ManagedApp``."""
        return self.supervisord.pids()

    def start_qctl(self, *words: str) -> Running:
        """See ``ManagedApp``."""
        return self._lab.start(*words, env={"QCTL_SUPERVISORD_URL": self.supervisord.url})

    def kill_qctl(self, running: Running) -> None:
        """See ``ManagedApp``."""
        running.kill()

    def close(self) -> None:
        """End supervisord, if it was started."""
        if self._supervisord is not None:
            self._supervisord.close()
