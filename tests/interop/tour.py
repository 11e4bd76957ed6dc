"""Print what docs/tour.md shows: ``python -m tests.interop.tour``; with ``--write``, put it there.

Starts a private Redis, a private PM2 with a BullMQ worker and a producer, and makes a little
history; then the same worker in a private Docker engine and under a systemd in one of its
containers; later its Python worker on an embedded Redis. Types the commands into a terminal of
80 columns. Only its home folder is replaced by ``/home/ada``. Everything that it started is ended.

``--write`` replaces each ``console`` block of docs/tour.md whose commands were all typed; other
blocks stay. A command that differs in numbers only (a job's id) is the same command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qctl.connection.connect import connect
from qctl.wire.read.clients import list_workers
from tests.labs.docker_engine import Engine
from tests.labs.node import HERE, NodeBull, install_node_modules, node, node_env
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until
from tests.labs.systemd_container import Machine

PAGE = Path(__file__).parents[2] / "docs/tour.md"
CONSOLE_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
ROWS, COLUMNS = 40, 80
# The progress that a command draws and erases.
# Lines that are redrawn, until they are erased.
PROGRESS = re.compile(r"\x1b\[\?25l.*?\x1b\[\?25h(?:\r|\x1b\[1A|\x1b\[2K)*", re.DOTALL)
PRODUCER = """
import time
from qctl import Queue

while True:
    Queue("emails").add("welcome")
    time.sleep(0.5)
"""
CONFIG = """\
[contexts.prod]
read_only = true
redis.url = "{url}"
"""


class Terminal:
    """Types commands, prints what a terminal of 80 columns shows of them, and keeps that."""

    def __init__(self, environ: dict[str, str], home: Path) -> None:
        self.environ = {**environ, "NO_COLOR": "1", "TERM": "xterm", "PS1": "$ "}
        self.shown: list[tuple[str, str]] = []
        self.folder = home
        # In front of the shell: another machine to type on.
        self.at: list[str] = []
        self._home = str(home)

    def show(self, line: str, text: str) -> str:
        text = text.replace("\r\n", "\n").replace(self._home, "/home/ada")
        print(f"$ {line}\n{text}", end="", flush=True)
        self.shown.append((line, text))
        return text

    def type(self, line: str, answer: str = "") -> str:
        """One line in a shell; ``answer`` goes to its question, if it asks one."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        with subprocess.Popen(
            [*self.at, "bash", "-c", line],
            cwd=self.folder,
            env=self.environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as shell:
            os.close(theirs)
            shown = _read(ours, answer)
            shell.wait(60)
        os.close(ours)
        return self.show(line, PROGRESS.sub("", shown))

    def top(self, socket: Path, seconds: float) -> None:
        """What ``qctl top`` shows after a while, in tmux."""
        tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        new = [*tmux, "new-session", "-d", "-x", "80", "-y", "24", "env NO_COLOR=1 qctl top"]
        subprocess.run(new, env=self.environ, check=True)
        time.sleep(seconds)
        screen = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, check=True)
        subprocess.run([*tmux, "kill-server"], check=False)
        self.show("qctl top", screen.stdout.decode())


@contextlib.contextmanager
def another_terminal(terminal: Terminal, line: str) -> Iterator[None]:
    """Run a command beside the others; end it with Ctrl-C and show it after them."""
    with tempfile.TemporaryFile() as shown:
        process = subprocess.Popen(
            line.split(), env=terminal.environ, stdout=shown, stderr=subprocess.STDOUT
        )
        # It shows only events after its start, and the last ones with a delay.
        time.sleep(2)
        yield
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        process.wait(10)
        shown.seek(0)
        terminal.show(line, shown.read().decode())


def _read(terminal: int, answer: str) -> str:
    """Everything that is printed until the other end is closed."""
    shown = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            chunk = os.read(terminal, 65_536)
        except OSError:
            break
        shown += chunk
        if answer and shown.endswith((b"[y/N] ", b": ")):
            os.write(terminal, f"{answer}\n".encode())
            answer = ""
        if not chunk:
            break
    return shown.decode()


def write_page(shown: list[tuple[str, str]]) -> None:
    """Replace the blocks of docs/tour.md whose commands were typed."""
    left = list(shown)

    def fresh(block: re.Match[str]) -> str:
        nonlocal left
        rest, found = list(left), []
        for command in re.findall(r"^\$ (.*)$", block[0], re.MULTILINE):
            typed = [index for index, (line, _) in enumerate(rest) if _same(line, command)]
            if not typed:
                print(f"{PAGE.name}: kept the block with: {command}", file=sys.stderr)
                return block[0]
            found.append(rest.pop(typed[0]))
        left = rest
        return "".join(f"$ {line}\n{text}" for line, text in found)

    PAGE.write_text(CONSOLE_BLOCK.sub(fresh, PAGE.read_text()))
    for line, _ in left:
        print(f"{PAGE.name}: has no block with: {line}", file=sys.stderr)


def _same(one: str, other: str) -> bool:
    return re.sub(r"\d+", "0", one) == re.sub(r"\d+", "0", other)


def main() -> None:
    install_node_modules()
    with (
        tempfile.TemporaryDirectory(prefix="qt-", dir="/tmp") as folder,
        contextlib.ExitStack() as at_end,
    ):
        home = Path(folder)
        redis = RedisServer(home / "redis").start()
        at_end.callback(redis.stop)
        pm2 = Pm2()
        at_end.callback(pm2.kill)
        bull = NodeBull(6, redis.port, home / "bull.log")
        at_end.callback(bull.kill)
        terminal = Terminal(
            {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": folder,
                "QCTL_REDIS_URL": redis.url,
                "PM2_HOME": str(pm2.home),
                "XDG_CONFIG_HOME": str(home / ".config"),
                "XDG_STATE_HOME": str(home / ".local" / "state"),
            },
            home,
        )
        app = {"REDIS_PORT": redis.port, "QUEUES": "emails", "CONCURRENCY": 5}
        pm2.start("worker", env=app)
        with contextlib.closing(connect(redis.url)[1]) as client:
            pm2.wait_worker(client, "emails")
        make_history(bull)
        walk(terminal, redis, pm2, home)
        pm2.delete_all()
        other_managers(terminal, redis)
        own_workers(terminal, home)
    if sys.argv[1:] == ["--write"]:
        write_page(terminal.shown)


def make_history(bull: NodeBull) -> None:
    """Jobs that have run, jobs that have failed, and two schedulers."""
    for number in range(30):
        bull.add("emails", {"ms": 200, "user": {"id": number % 4}}, job="welcome")
    for number in range(12):
        fails = 1 if number % 3 else 9
        job = {"ms": 20, "fail_times": fails, "user": {"id": number % 4}}
        bull.add("emails", job, job="import")
    daily = {"pattern": "0 7 * * *", "tz": "Europe/Berlin"}
    bull.queue("emails", "upsertJobScheduler", "digest", daily, {"name": "digest"})
    poll = {"name": "poll", "data": {"ms": 100}}
    bull.queue("emails", "upsertJobScheduler", "poll", {"every": 60_000}, poll)

    def all_ran() -> bool:
        counts = bull.counts("emails")
        return counts["failed"] >= 12 and counts["active"] == 0

    wait_until(all_ran, "the history", timeout_s=60)


def walk(terminal: Terminal, redis: RedisServer, pm2: Pm2, home: Path) -> None:
    """The tour."""
    with producing(redis):
        time.sleep(5)
        terminal.type("qctl status")
        terminal.type("qctl impact --target pm2:worker")
        terminal.type("qctl doctor")
        if shutil.which("tmux"):
            terminal.top(home / "tmux", seconds=14)
    bulk(terminal)
    follow(terminal)
    schedules(terminal)
    terminal.type("qctl metrics | grep jobs.*emails")
    serve = "qctl metrics --serve :9120 & sleep 3; curl -s localhost:9120/metrics | grep -c ^qctl_"
    terminal.type(f"{serve}; kill %1; wait")
    restart_and_kill(terminal, redis, pm2)
    # Not earlier: it guards the Redis of all that was typed before.
    config = home / ".config" / "qctl" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG.format(url=redis.url))
    terminal.type("qctl contexts")
    terminal.type("qctl pause emails --context prod")
    terminal.type("qctl config view | head -6")
    terminal.type("qctl status emials; echo $?")
    # It would refuse the drains that follow.
    config.unlink()


@contextlib.contextmanager
def producing(redis: RedisServer) -> Iterator[None]:
    """Add two jobs a second, of three seconds each."""
    environ = node_env(
        {"REDIS_PORT": str(redis.port), "QUEUE": "emails", "EVERY_MS": "500", "JOB_MS": "3000"}
    )
    command = [*node(), str(HERE / "producer.js")]
    producer = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ)
    try:
        yield
    finally:
        producer.terminate()
        producer.wait()


def bulk(terminal: Terminal) -> None:
    where = "data.user.id = 1"
    terminal.type("qctl jobs list emails --state failed --limit 3")
    terminal.type(
        f"qctl jobs retry-failed emails --where 'error ~ \"on purpose\" and {where}' --dry-run"
    )
    terminal.type(f"qctl jobs retry-failed emails --where '{where}'", answer="y")
    terminal.type("qctl jobs promote emails --name poll", answer="y")
    terminal.type("qctl jobs remove emails 41", answer="y")
    terminal.type("qctl purge emails --state completed", answer="emails")


def schedules(terminal: Terminal) -> None:
    terminal.type("qctl schedules list")
    terminal.type("qctl schedules show emails digest")
    ran = terminal.type("qctl schedules run emails digest")
    terminal.type(f"qctl wait emails --for job={ran.split()[1]}")
    terminal.type("qctl schedules remove emails poll", answer="y")


def restart_and_kill(terminal: Terminal, redis: RedisServer, pm2: Pm2) -> None:
    """A drain with its restart, then a worker that dies with its jobs."""
    drain = "qctl drain --then-restart --target pm2:worker"
    with producing(redis), contextlib.closing(connect(redis.url)[1]) as client:
        time.sleep(5)
        terminal.type(f"{drain} --dry-run")
        # On a terminal the progress is redrawn; a pipe gets every line.
        terminal.type(f"{drain} 2>&1 | cat")
        time.sleep(3)
        terminal.type("qctl pause emails")
        terminal.type("qctl resume emails")
        time.sleep(2)
        pm2.run("stop", "worker")
        held = client.call("LRANGE", "bull:emails:active", 0, -1)
        locks = [f"bull:emails:{job_id}:lock" for job_id in held]
    with contextlib.closing(connect(redis.url)[1]) as client:
        wait_until(lambda: not client.call("EXISTS", *locks), "the locks to run out", timeout_s=60)
    terminal.type("qctl status")
    terminal.type("qctl jobs list emails --state stalled")
    terminal.type("qctl jobs retry-stalled emails", answer="y")


def other_managers(terminal: Terminal, redis: RedisServer) -> None:
    """Drains of a Compose service and of a systemd unit; without Docker, only a remark."""
    env = {"REDIS_PORT": redis.port, "QUEUES": "emails", "CONCURRENCY": 5, "HANDLE_SIGTERM": 1}
    drain = "qctl drain emails --then-restart --target"
    try:
        engine = Engine()
    except pytest.skip.Exception as reason:
        print(f"not shown: Docker and systemd ({reason})", file=sys.stderr)
        return
    with contextlib.closing(engine), contextlib.closing(connect(redis.url)[1]) as client:
        engine.compose_service("shop", "worker", 2, env, restart="always")
        terminal.environ |= engine.env
        wait_until(lambda: len(list_workers(client, "bull") or ()) == 2, "the containers' workers")
        with producing(redis):
            time.sleep(3)
            terminal.type(f"{drain} docker:shop/worker 2>/dev/null")
        wait_until(lambda: not client.call("LLEN", "bull:emails:active"), "the last jobs to end")
        engine.remove_all()
        machine = Machine(engine, "server")
        machine.unit("emails", env, TimeoutStopSec=10)
        wait_until(lambda: len(list_workers(client, "bull") or ()) == 1, "the unit's worker")
        environ = {"QCTL_REDIS_URL": redis.url, "PATH": terminal.environ["PATH"]}
        terminal.at = machine.command(env=environ)
        with producing(redis):
            time.sleep(3)
            terminal.type(f"{drain} systemd:emails 2>/dev/null")
        terminal.at = []
        for name in engine.env:
            del terminal.environ[name]


def follow(terminal: Terminal) -> None:
    """A job from its addition to its end, and its events in another terminal."""
    terminal.type("qctl wait emails --for idle")
    steps = '[["log", "rendered"], ["progress", 50], ["log", "sent"]]'
    data = f'{{"ms": 900, "steps": {steps}, "returns": {{"sent": true}}}}'
    with another_terminal(terminal, "qctl events emails --follow"):
        added = terminal.type(f"qctl jobs add emails welcome --data '{data}'")
        terminal.type(f"qctl jobs logs emails {added.split()[0]} --follow")


def own_workers(terminal: Terminal, home: Path) -> None:
    """The page's Python worker on a Redis of qctl's own, restarted under load."""
    terminal.folder = home / "app"
    terminal.folder.mkdir()
    for name in ("app.py", "add.py"):
        code = re.search(rf"^```python\n(# {name}\n.*?)^```$", PAGE.read_text(), re.M | re.S)
        assert code is not None, name
        (terminal.folder / name).write_text(code[1])
    terminal.environ |= {"QCTL_REDIS_URL": "embedded:./data", "PM2_HOME": str(home / "no-pm2")}
    terminal.show("export QCTL_REDIS_URL=embedded:./data", "")
    try:
        terminal.type("qctl worker start emails app:worker --processes 2")
        terminal.type("python3 add.py")
        terminal.type("qctl status")
        producer = subprocess.Popen(
            [sys.executable, "-c", PRODUCER], cwd=terminal.folder, env=terminal.environ
        )
        time.sleep(5)
        terminal.type("qctl drain emails --then-restart --target qctl:emails 2>&1 | cat")
        producer.kill()
        producer.wait()
        terminal.type("qctl worker restart emails")
    finally:
        stop = ["bash", "-c", "qctl worker stop emails --now"]
        subprocess.run(stop, cwd=terminal.folder, env=terminal.environ, check=False)


if __name__ == "__main__":
    main()
