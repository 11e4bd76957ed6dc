"""Several hosts on one machine, whose links to each other can be cut without anybody noticing.

A *host* is a process that does nothing, with namespaces of its own: network, pids, mounts (for its
own /proc) and host name. All hosts are connected through a router, a host as well, which can drop
what one host sends, what it should get, or both. A dropped packet is just lost, as behind a broken
switch: no RST, no ICMP message, and the links stay up.

What is not as with real hosts: they share one kernel, one clock, the file system (so the sockets
and PID files of managers too) and the processors. A host's end is the end of all of its processes
at once, and its pids are also visible from outside, under other numbers.

Nothing has a name or address outside of its namespace, so parallel tests cannot collide. Everything
ends with the test process, also if that is killed: the kernel then kills the first process of each
pid namespace, with it all others, and removes the empty network namespaces with their links.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

# Asks the kernel to send a signal to this process when its parent ends.
_PR_SET_PDEATHSIG = 1
_START_TIMEOUT_S = 10.0
_libc = ctypes.CDLL(None, use_errno=True)
# A thread that starts a process on a host must be alone, see ``Host.popen``.
_starting = threading.Lock()

# What the router drops: all packets of a host, what it sends, or what it should get.
BOTH, SENT, RECEIVED = "both", "sent", "received"


def _set_namespace(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(descriptor)


class Host:
    """A host without any process of its own; ``popen`` starts some on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""
        # The first process adopts, and reaps, the daemons that are started here.
        first = f"hostname {name} || exit; echo ready; sleep infinity & wait"
        self._unshare = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child",
             "--mount-proc", "sh", "-c", first],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
            start_new_session=True,
        )  # fmt: skip
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != "ready\n":
            assert self._unshare.stderr is not None
            error = self._unshare.stderr.read().strip()
            self.close()
            raise OSError(error)
        unshare = self._unshare.pid
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        #: The pid of its first process, as seen by the tests.
        self.pid = int(children[0])

    def popen(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a program on the host; its pid is the one that the tests see."""
        folder = f"/proc/{self.pid}/ns"

        def enter() -> None:
            for name in ("net", "uts", "mnt"):
                _set_namespace(f"{folder}/{name}")
            if cwd is not None:
                # A new mount namespace begins at /.
                os.chdir(cwd)

        with _starting:
            # A pid namespace is that of the children of the thread that has set it.
            _set_namespace(f"{folder}/pid")
            try:
                return subprocess.Popen(
                    command, env=env, text=True, stdin=stdin, stdout=stdout, stderr=stderr,
                    preexec_fn=enter,  # noqa: PLW1509 - only system calls
                )  # fmt: skip
            finally:
                _set_namespace("/proc/self/ns/pid")

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 60.0,
    ) -> str:
        """Run a program on the host to its end; its stdout. The test fails if the program does."""
        process = self.popen(command, env=env, cwd=cwd)
        out, err = process.communicate(timeout=timeout_s)
        if process.returncode:
            raise OSError(f"{' '.join(command)} on {self.name}: {err.strip()}")
        return out

    @property
    def leftovers(self) -> int:
        """How many closed connections have data that the kernel still wants to send."""
        rows = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        fields = [row.split() for row in rows]
        # Of an open socket, the inode is not 0; the queue is hexadecimal.
        return sum(row[9] == "0" and int(row[4].partition(":")[0], 16) > 0 for row in fields)

    def close(self) -> None:
        """Kill all of its processes."""
        if self._unshare.poll() is None:
            self._unshare.kill()
        self._unshare.wait(_START_TIMEOUT_S)
        for stream in (self._unshare.stdout, self._unshare.stderr):
            if stream is not None:
                stream.close()


class Network:
    """Hosts, each with a link to a router.

    Args:
        names: of the hosts.
    """

    def __init__(self, *names: str) -> None:
        self.hosts: dict[str, Host] = {}
        self._rules: list[str] = []
        self._opened = contextlib.ExitStack()
        try:
            self._router = self._open("router")
            self._router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            for number, name in enumerate(names):
                self._connect(self._open(name), f"10.0.{number}")
        except BaseException:
            self.close()
            raise

    def _open(self, name: str) -> Host:
        host = Host(name)
        self._opened.callback(host.close)
        return host

    def _connect(self, host: Host, net: str) -> None:
        host.address = f"{net}.2"
        link = host.name
        self._ip(
            self._router,
            f"link add name {link} type veth peer name eth0 netns {host.pid}",
            f"address add {net}.1/24 dev {link}",
            f"link set dev {link} up",
        )
        self._ip(
            host,
            "link set dev lo up",
            f"address add {host.address}/24 dev eth0",
            "link set dev eth0 up",
            f"route add default via {net}.1",
        )
        self.hosts[host.name] = host

    @staticmethod
    def _ip(host: Host, *commands: str) -> None:
        # Not with ``run``: in a pid namespace of its own, ip could not name another host's process.
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{host.pid}/ns/net", "ip", "-batch", "-"],
            input="\n".join(commands), capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        if done.returncode:
            raise OSError(f"ip on {host.name}: {done.stderr.strip()}")

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def cut(self, name: str, what: str = BOTH) -> None:
        """From now on, lose the packets of a host."""
        rules = []
        if what in {BOTH, SENT}:
            rules.append(f"iif {name} blackhole")
        if what in {BOTH, RECEIVED}:
            rules.append(f"to {self.hosts[name].address} blackhole")
        self._ip(self._router, *(f"rule add {rule}" for rule in rules))
        self._rules += rules

    def join(self) -> None:
        """Undo all cuts."""
        self._ip(self._router, *(f"rule del {rule}" for rule in self._rules))
        self._rules = []

    def close(self) -> None:
        """End all hosts with their processes."""
        self._opened.close()


def why_not() -> str:
    """Why this machine cannot have such hosts; "" if it can."""
    if sys.platform != "linux":
        return "network namespaces exist on Linux only"
    missing = [program for program in ("ip", "unshare", "nsenter") if not shutil.which(program)]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install iproute2 util-linux"
    try:
        with contextlib.closing(Network("a")) as network:
            network.cut("a")
            network.join()
    except OSError as error:
        return f"no network namespaces here (they need root): {error}"
    return ""
