"""A project of the real `docker compose`, on a private engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.labs.docker_engine import IMAGE, Engine, program_folders, worker_command


class Compose:
    """A folder with a compose.yaml. ``engine.env`` is what qctl needs to reach it.

    Args:
        project: the folder's name, and so the project's.
    """

    def __init__(self, engine: Engine, project: str = "shop") -> None:
        if engine.call("compose", "version").returncode != 0:
            pytest.skip("`docker compose` is not installed: the extra `recipes` has it")
        self.engine = engine
        self.folder = engine.home / project
        self.folder.mkdir(exist_ok=True)
        self._services: dict[str, dict[str, Any]] = {}

    def service(
        self,
        name: str,
        env: Mapping[str, object],
        *,
        instances: int = 1,
        command: Sequence[str] = (),
        folders: Sequence[Path] = (),
        **fields: object,
    ) -> None:
        """Write a service that runs worker.js, or change it. ``up`` starts it.

        Args:
            command: worker.js unless given.
            folders: of this machine, writable at the same path.
            fields: of the service, e.g. ``stop_grace_period="30s"``.
        """
        self._services[name] = {
            "image": IMAGE,
            "pull_policy": "never",
            "network_mode": "host",
            "scale": instances,
            "command": [word.replace("$", "$$") for word in command or worker_command()],
            "environment": {key: str(value).replace("$", "$$") for key, value in env.items()},
            "volumes": [
                *(f"{path}:{path}:ro" for path in program_folders()),
                *(f"{path}:{path}" for path in folders),
            ],
            **fields,
        }
        # JSON is YAML too.
        (self.folder / "compose.yaml").write_text(json.dumps({"services": self._services}))

    def up(self, *words: str) -> None:
        """``docker compose up --detach WORDS``."""
        self.engine.docker(*self._words("up", "--detach", *words))

    def command(self, *words: str) -> list[str]:
        """A call of docker compose, to be started elsewhere."""
        return self.engine.command(*self._words(*words))

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers."""
        return self.engine.docker(*self._words("ps", "--quiet", service)).split()

    def _words(self, *words: str) -> list[str]:
        return ["compose", "--project-directory", str(self.folder), *words]
