"""How long a cold ``qctl status`` takes, beside ``pm2 jlist`` on the same machine.

    python bench/cli_cold.py [--rounds 21] [--queues 20] [--without-pm2]

Starts a private redis-server with some queues, a worker's connection and a private PM2 daemon with
one small process; runs the commands in turn, so that a slow moment of the machine hits all of them
alike, and prints medians. Cold means a new process each time; the files are in the page cache, and
Python's bytecode is compiled (into a folder of its own), as after an installation.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.wire.read.clients import client_name

ROOT = Path(__file__).resolve().parent.parent
# The console script beside this interpreter, as an operator would call it.
QCTL = str(Path(sys.executable).with_name("qctl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--queues", type=int, default=20)
    parser.add_argument("--without-pm2", action="store_true", help="qctl alone, no PM2 on the host")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qb-", dir="/tmp"))
    redis, port = start_redis(folder)
    environ = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
        "QCTL_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
        "PM2_HOME": str(folder / "pm2"),
        "XDG_CONFIG_HOME": str(folder),
        "PM2_DISCRETE_MODE": "true",
    }
    pm2 = [] if options.without_pm2 else find_pm2()
    try:
        worker = fill(environ["QCTL_REDIS_URL"], options.queues)
        if pm2:
            script = folder / "app.js"
            script.write_text("setInterval(() => {}, 1000)")
            subprocess.run(
                [*pm2, "start", str(script), "--name", "worker"],
                env=environ, stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
        report(measure(commands(pm2, environ), options.rounds), options.queues)
        worker.close()
    finally:
        if pm2:
            subprocess.run([*pm2, "kill"], env=environ, stdout=subprocess.DEVNULL, check=False)
        redis.terminate()
        redis.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def start_redis(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        cwd=folder, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return server, port
    raise SystemExit("redis-server did not start")


def fill(url: str, queues: int) -> Client:
    """Makes queues, and returns a connection that looks like a worker's while it is open.

    With a worker connected, ``status`` also looks for the process that it runs in.
    """
    _, client = connect(url)
    for number in range(queues):
        key = f"bull:queue-{number:03d}"
        client.pipeline(
            [
                ("HSET", f"{key}:meta", "version", "bullmq:6.7.0"),
                ("XADD", f"{key}:events", "*", "event", "added"),
                *(("LPUSH", f"{key}:wait", job) for job in range(10)),
                ("HSET", f"{key}:0", "timestamp", int(time.time() * 1000)),
                ("LPUSH", f"{key}:active", "11"),
                ("SET", f"{key}:11:lock", "token"),
            ]
        )
    client.call("CLIENT", "SETNAME", client_name("bull", "queue-000"))
    return client


def find_pm2() -> list[str]:
    local = ROOT / "tests/interop/node_modules/.bin/pm2"
    path = shutil.which("pm2") or (str(local) if local.exists() else None)
    if path is None:
        raise SystemExit("no pm2: install it, run the tests once, or use --without-pm2")
    return [path]


def commands(pm2: list[str], environ: dict[str, str]) -> dict[str, Callable[[], None]]:
    def piped(*words: str) -> Callable[[], None]:
        return lambda: check(words, environ)

    found = {
        "qctl status, piped": piped(QCTL, "status"),
        "qctl status, on a terminal": lambda: on_terminal([QCTL, "status"], environ),
        "qctl status --json": piped(QCTL, "status", "--json"),
        "qctl --help": piped(QCTL, "--help"),
        "python -c 'import typer'": piped(sys.executable, "-c", "import typer"),
        "python -c pass": piped(sys.executable, "-c", "pass"),
    }
    return ({"pm2 jlist": piped(*pm2, "jlist")} if pm2 else {}) | found


def check(words: tuple[str, ...], environ: dict[str, str]) -> None:
    subprocess.run(words, env=environ, stdout=subprocess.PIPE, check=True)


def on_terminal(words: list[str], environ: dict[str, str]) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(words[0], words, {**environ, "TERM": "xterm"})  # noqa: S606
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        # Linux reports the end of a terminal's last user so.
        pass
    os.close(terminal)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{words} failed")


def measure(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            # The first round compiles and warms the page cache.
            if number:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def report(times: dict[str, list[float]], queues: int) -> None:
    base = statistics.median(times["pm2 jlist"]) if "pm2 jlist" in times else None
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, {queues} queues; milliseconds")
    print(f"{'':28}{'median':>8}{'min':>8}{'max':>8}{'/ pm2':>8}")
    for name, values in times.items():
        median = statistics.median(values)
        ratio = f"{median / base:8.2f}" if base else ""
        print(f"{name:28}{median:8.0f}{min(values):8.0f}{max(values):8.0f}{ratio}")
    medians = {name: round(statistics.median(values), 1) for name, values in times.items()}
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
