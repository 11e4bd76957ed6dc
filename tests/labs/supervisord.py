"""A supervisord in a folder of its own; killed by the pid that it wrote down."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.labs.node import HERE, node
from tests.labs.servers import wait_until

CONFIG = """\
[unix_http_server]
file={home}/s.sock
{login}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{home}/s.sock
{login}
[supervisord]
logfile={home}/s.log
childlogdir={home}
pidfile={home}/s.pid
"""
WORKER = (*node(), str(HERE / "worker.js"))


@dataclass(frozen=True)
class Program:
    """A program of a supervisord.

    Args:
        command: by default worker.js.
        instances: with more than 1, the processes are ``NAME_00`` and so on.
        env: of the app, see worker.js.
        options: other lines of its section.
    """

    name: str = "worker"
    command: str = " ".join(WORKER)
    instances: int = 1
    env: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)

    def section(self) -> str:
        lines = {
            "command": self.command,
            "directory": HERE,
            "environment": ",".join(f'{key}="{value}"' for key, value in self.env.items()),
            "numprocs": self.instances,
            **self.options,
        }
        if self.instances > 1:
            lines["process_name"] = "%(program_name)s_%(process_num)02d"
        return "\n".join([f"[program:{self.name}]", *(f"{k}={v}" for k, v in lines.items()), ""])


class Supervisord:
    """Runs some programs.

    Args:
        password: what its socket asks for, with the user "qctl"; "" for none.
    """

    def __init__(self, *programs: Program, password: str = "") -> None:
        pytest.importorskip("supervisor")
        # The path of a unix socket must be short.
        self.home = Path(tempfile.mkdtemp(prefix="qsup-", dir="/tmp"))
        self.config = self.home / "s.conf"
        login = f"username=qctl\npassword={password}" if password else ""
        top = CONFIG.format(home=self.home, login=login)
        self.config.write_text("".join([top, *(program.section() for program in programs)]))
        user = f"qctl:{password}@" if password else ""
        self.url = f"unix://{user}{self.home}/s.sock"
        self.start()

    def start(self) -> None:
        """Start it; again, if it was killed."""
        pid_file = self.home / "s.pid"
        pid_file.unlink(missing_ok=True)
        (self.home / "s.sock").unlink(missing_ok=True)
        subprocess.run([*_program("supervisord"), "-c", str(self.config)], check=True)
        wait_until(lambda: pid_file.exists() and pid_file.read_text(), "supervisord to start")

    @property
    def pid(self) -> int:
        return int((self.home / "s.pid").read_text())

    def command(self, *words: str) -> list[str]:
        """A call of supervisorctl."""
        return [*_program("supervisorctl"), "-c", str(self.config), *words]

    def ask(self, *words: str) -> str:
        """What supervisorctl prints."""
        return subprocess.run(
            self.command(*words), stdout=subprocess.PIPE, text=True, check=False
        ).stdout

    def pids(self) -> list[int]:
        """The pids of its processes."""
        children = psutil.Process(self.pid).children()
        return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def close(self) -> None:
        """End it and its processes."""
        daemon = psutil.Process(self.pid)
        family = [daemon, *daemon.children(recursive=True)]
        # It would start those again that are killed before it.
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=15)
        self.forget()

    def forget(self) -> None:
        """Remove its folder."""
        shutil.rmtree(self.home, ignore_errors=True)


def _program(name: str) -> list[str]:
    return [sys.executable, "-m", f"supervisor.{name}"]
