"""A real systemd as PID 1 of a container, with units that run worker.js.

Programs come from this machine's /usr, the configuration from a folder of the test. Nothing here
touches the systemd of the machine itself.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from tests.labs.docker_engine import Engine, worker_command
from tests.labs.drains import Running, cmdline, qctl_command
from tests.labs.node import HERE

START_TIMEOUT_S = 30.0
# What a boot does to a machine and no test needs: it empties folders, or asks questions.
_MASKED = (
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-firstboot.service",
    "systemd-update-utmp.service",
    "dev-hugepages.mount",
    "sys-fs-fuse-connections.mount",
    "docker.socket",
)
# The engine mounts the container's own control groups, but read-only. systemd needs version 2 of
# them, or one hierarchy of version 1.
_CGROUPS_WRITABLE = (
    "for at in /sys/fs/cgroup/systemd /sys/fs/cgroup; "
    "do mountpoint -q $at && mount -o remount,bind,rw $at && break; done;"
)
# Nothing on the bus starts polkit, which needs a seat: other users than root have no rights.
_WITHOUT_POLKIT = "mount -t tmpfs none /usr/share/dbus-1/system-services;"
_RUNTIME_DIR = "/run/user/0"
# The manager of root's own units, without the login that usually starts it. Its name and slice are
# the usual ones, by which journald recognizes it.
_USER_MANAGER = f"""\
[Service]
Type=notify
Environment=XDG_RUNTIME_DIR={_RUNTIME_DIR}
ExecStartPre=/bin/mkdir -p -m 700 {_RUNTIME_DIR}
ExecStart={{systemd}} --user
Slice=user-0.slice
Delegate=yes
KillMode=mixed
"""


class Machine:
    """One container of an engine, named ``name``.

    Args:
        folders: of this machine, writable at the same path, e.g. ``tmp_path``.
    """

    def __init__(
        self, engine: Engine, name: str = "machine", *, folders: Sequence[Path] = ()
    ) -> None:
        programs = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")
        self._systemd = next(filter(os.path.exists, programs), "")
        if not self._systemd:
            pytest.skip("no systemd: `apt install systemd` installs the files, and starts nothing")
        self.engine = engine
        self.name = name
        self._units: dict[str, bool] = {}
        self._settings = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=engine.home))
        self._settings.chmod(0o755)
        for level in ("system", "user"):
            (self._settings / level).mkdir()
        for unit in _MASKED:
            (self._settings / "system" / unit).symlink_to("/dev/null")
        init = f"exec {self._systemd} --unit=basic.target"
        engine.run(
            name,
            ["/bin/sh", "-c", f"{_CGROUPS_WRITABLE} {_WITHOUT_POLKIT} {init}"],
            {"container": "docker"},
            folders=folders,
            options=[
                "--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined",
                "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/run/lock",
                f"--volume={self._settings}:/etc/systemd",
            ],
        )  # fmt: skip
        self._wait_for_boot()

    def unit(
        self,
        name: str,
        env: Mapping[str, object] = {},
        *,
        instances: int = 1,
        command: Sequence[str] = (),
        user: bool = False,
        start: bool = True,
        **directives: object,
    ) -> list[str]:
        """Write a service that runs worker.js and start it; its full names.

        Args:
            name: ``emails`` is one ``emails.service``; ``emails@`` is a template, of which
                ``emails@1.service`` and so on start.
            instances: of a template.
            command: worker.js unless given.
            user: let the user manager run it.
            directives: of ``[Service]``, e.g. ``TimeoutStopSec=5``; a list is one line for each.
        """
        service = {
            "Type": "exec",
            "WorkingDirectory": HERE,
            "ExecStart": _escape(shlex.join(command or worker_command())).replace("$", "$$"),
            "Environment": [_escape(f'"{key}={value}"') for key, value in env.items()],
            **directives,
        }
        lines = [
            f"{key}={each}"
            for key, value in service.items()
            for each in (value if isinstance(value, list | tuple) else [value])
        ]
        if user:
            self._start_user_manager()
        file = self._file(name, user=user)
        file.write_text("\n".join(["[Service]", *lines, ""]))
        self.systemctl("daemon-reload", user=user)
        units = [f"{name}.service"]
        if name.endswith("@"):
            units = [f"{name}{number}.service" for number in range(1, instances + 1)]
        self._units |= dict.fromkeys([f"{name}.service", *units], user)
        if start:
            self.systemctl("start", *units, user=user)
        return units

    def systemctl(self, *words: str, user: bool = False, check: bool = True) -> str:
        """``systemctl WORDS``; its stdout."""
        done = self.exec("systemctl", *(["--user"] if user else []), *words)
        if check and done.returncode != 0:
            pytest.fail(f"systemctl {words} failed: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout

    def show(self, unit: str, *properties: str, user: bool = False) -> dict[str, str]:
        """``systemctl show`` of a unit; all properties, or those named."""
        only = [f"--property={','.join(properties)}"] if properties else []
        lines = self.systemctl("show", unit, *only, user=user).splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}

    def journal(self, unit: str, *, user: bool = False) -> str:
        """What a unit and systemd wrote about it, one message a line."""
        kind = "--user-unit" if user else "--unit"
        return self.exec("journalctl", "--no-pager", "--output=cat", f"{kind}={unit}").stdout

    def exec(
        self, *words: str, env: Mapping[str, str] = {}, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine inside the container, whether it succeeds or not."""
        return subprocess.run(
            self.command(*words, env=env), capture_output=True, text=True,
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def command(self, *words: str, env: Mapping[str, str] = {}) -> list[str]:
        """A call of a program inside the container, to be started elsewhere."""
        settings = {"XDG_RUNTIME_DIR": _RUNTIME_DIR, **env}
        options = [f"--env={key}={value}" for key, value in settings.items()]
        return self.engine.command("exec", *options, self.name, *words)

    def qctl(self, *words: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        """Run qctl inside the container to its end.

        Args:
            env: e.g. ``{"QCTL_REDIS_URL": lab.url}``.
        """
        return self.exec(sys.executable, "-m", "qctl", *words, env=env)

    def start_qctl(self, *words: str, env: Mapping[str, str] = {}, quick: bool = True) -> Running:
        """Start qctl inside the container. Signals sent to it here do not reach it there.

        Args:
            quick: see ``Lab``.
        """
        command = self.command(*qctl_command(*words, quick=quick), env=env)
        return Running.program(command, dict(os.environ), self.engine.home)

    def pids(self, *words: str) -> list[int]:
        """The pids, on this machine, of its processes with all ``words`` in their command line."""
        return [each.pid for each in self._inside() if set(words) <= set(cmdline(each))]

    def reset(self) -> None:
        """Remove the units of a test, and end its processes at once."""
        for user in {*self._units.values()}:
            units = [unit for unit, of_user in self._units.items() if of_user == user]
            running = [unit for unit in units if "@." not in unit]
            # No unit starts again once its stop has begun.
            self.systemctl("stop", "--no-block", *running, user=user, check=False)
            self._kill_all()
            self.systemctl("stop", *running, user=user, check=False)
            self.systemctl("reset-failed", *running, user=user, check=False)
            for unit in units:
                self._file(unit.removesuffix(".service"), user=user).unlink(missing_ok=True)
            self.systemctl("daemon-reload", user=user)
        self._units.clear()

    def _inside(self) -> Iterator[psutil.Process]:
        """Its processes except PID 1; not all descend from it."""
        namespace = Path(f"/proc/{self._pid}/ns/pid").readlink()
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                is_inside = Path(f"/proc/{process.pid}/ns/pid").readlink() == namespace
                if is_inside and process.pid != self._pid:
                    yield process

    def _kill_all(self) -> None:
        """SIGKILL to all processes that are not systemd's own."""
        for process in self._inside():
            with contextlib.suppress(psutil.Error):
                if "/systemd" not in process.exe() and "dbus" not in process.exe():
                    process.kill()

    def _file(self, name: str, *, user: bool) -> Path:
        return self._settings / ("user" if user else "system") / f"{name}.service"

    def _start_user_manager(self) -> None:
        file = self._settings / "system/user@0.service"
        if not file.exists():
            file.write_text(_USER_MANAGER.format(systemd=self._systemd))
            self.systemctl("daemon-reload")
            self.systemctl("start", "user@0.service")

    def _wait_for_boot(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            state = self.exec("systemctl", "is-system-running")
            if state.stdout.strip() in {"running", "degraded"}:
                self._pid = self.engine.pid(self.name)
                return
            if time.monotonic() > deadline or not self.engine.pid(self.name):
                log = self.engine.call("logs", "--tail=5", self.name)
                pytest.skip(f"systemd does not start here: {state} {log.stdout}{log.stderr}")
            time.sleep(0.05)


def _escape(text: str) -> str:
    return text.replace("%", "%%")
