"""A supervisord in a folder of its own; ended by the pid that it wrote down."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests.labs.node import HERE, node
from tests.labs.servers import wait_until

CONFIG = """\
[unix_http_server]
file={home}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{home}/s.sock
[supervisord]
logfile={home}/s.log
pidfile={home}/s.pid
[program:worker]
command={command}
directory={folder}
environment={environment}
numprocs={instances}
process_name=%(program_name)s_%(process_num)02d
"""


class Supervisord:
    """Runs worker.js.

    Args:
        env: of the app, see worker.js.
    """

    def __init__(self, env: Mapping[str, object], instances: int) -> None:
        pytest.importorskip("supervisor")
        # The path of a unix socket must be short.
        self.home = Path(tempfile.mkdtemp(prefix="qsup-", dir="/tmp"))
        self._config = self.home / "s.conf"
        self._config.write_text(
            CONFIG.format(
                home=self.home,
                command=" ".join([*node(), str(HERE / "worker.js")]),
                folder=HERE,
                environment=",".join(f'{key}="{value}"' for key, value in env.items()),
                instances=instances,
            )
        )
        subprocess.run([*_program("supervisord"), "-c", str(self._config)], check=True)
        wait_until((self.home / "s.pid").exists, "supervisord to start")

    def command(self, *words: str) -> list[str]:
        """A call of supervisorctl."""
        return [*_program("supervisorctl"), "-c", str(self._config), *words]

    def close(self) -> None:
        """End it and its processes."""
        daemon = psutil.Process(int((self.home / "s.pid").read_text()))
        family = [daemon, *daemon.children(recursive=True)]
        daemon.terminate()
        _, alive = psutil.wait_procs(family, timeout=15)
        for process in alive:
            process.kill()
        shutil.rmtree(self.home, ignore_errors=True)


def _program(name: str) -> list[str]:
    return [sys.executable, "-m", f"supervisor.{name}"]
