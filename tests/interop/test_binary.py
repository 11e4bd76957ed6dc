"""The file that ``scripts/build-binary`` writes, where there is no Python.

It takes minutes to build, so these tests run only with ``QCTL_BINARY`` set: to ``1``, which builds
it, or to a file that the script has written.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from qctl.connection.address import Client
from tests.labs.agent import Agent, with_agent
from tests.labs.docker_engine import Engine
from tests.labs.node import MODULES, NodeBull, node
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

ROOT = Path(__file__).parents[2]
asked = os.environ.get("QCTL_BINARY", "")
pytestmark = pytest.mark.skipif(not asked, reason="QCTL_BINARY=1 builds the binary: minutes")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if asked != "1":
        return Path(asked).absolute()
    file = tmp_path_factory.mktemp("dist") / "qctl"
    subprocess.run([ROOT / "scripts/build-binary", file], check=True, timeout=1200)
    return file


def bare_image(engine: Engine, binary: Path, programs: Sequence[str]) -> None:
    """The image ``bare``: these programs of this machine, and the libraries that they need.

    With the libraries of the binary itself and of Node, which is mounted later.
    """
    unpacked = engine.home / "unpacked"
    with tarfile.open(f"{binary}.tar.gz") as archive:
        archive.extract("./qctl", unpacked)
    buffer = io.BytesIO()
    found = {shutil.which(program) or pytest.fail(program) for program in programs}
    listed = [subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
              for path in sorted({*found, node()[0], str(unpacked / "qctl")})]  # fmt: skip
    libraries = {word for text in listed for word in text.split() if word.startswith("/")}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        # At the places behind the links of this system (/lib is usr/lib), which are added as well.
        places = {Path(path).parent.resolve() / Path(path).name for path in (*found, *libraries)}
        folders = {parent for place in places for parent in place.parents}
        open_to_all = {Path("/tmp"), Path("/home")}  # noqa: S108 - in the image
        for folder in sorted(folders | open_to_all):
            member = tarfile.TarInfo(str(folder))
            member.type = tarfile.DIRTYPE
            member.mode = 0o1777 if folder in open_to_all else 0o755
            tar.addfile(member)
        for link in filter(Path.is_symlink, map(Path, ("/bin", "/lib", "/lib64"))):
            tar.add(link)
        for place in sorted(places):
            tar.add(place.resolve(), str(place))
    subprocess.run(
        engine.command("import", "-", "bare"), input=buffer.getvalue(), check=True,
        env={**os.environ, **engine.env}, capture_output=True,
    )  # fmt: skip


def test_status_and_drain_in_a_container_without_python(
    binary: Path, pm2: Pm2, redis_server: RedisServer, client: Client, tmp_path: Path
) -> None:
    programs = ("sh", "env", "tail", "tar", "gzip", "chmod", "mkdir", "mv", "rm", "sleep")
    engine = Engine()
    try:
        bare_image(engine, binary, programs)
        environ = {
            "QCTL_REDIS_URL": redis_server.url,
            "PM2_HOME": str(pm2.home),
            "HOME": "/home",
            "PATH": f"/opt:{MODULES}/.bin:/usr/bin:/bin",
        }
        folders = [MODULES.resolve(), MODULES, pm2.home]
        engine.docker(
            "run", "--detach", "--name=qctl", "--network=host", "--pid=host",
            "--cap-add=SYS_PTRACE",
            *(f"--volume={path}:{path}" for path in folders),
            f"--volume={binary}:/opt/qctl:ro",
            f"--volume={Path(node()[0]).resolve()}:/opt/node:ro",
            *(f"--env={key}={value}" for key, value in environ.items()),
            "bare", "sleep", "600",
        )  # fmt: skip
        assert engine.call("exec", "qctl", "python3", "--version").returncode != 0
        # Unpacks it, which may take as long as short jobs run.
        engine.docker("exec", "qctl", "qctl", "--version")

        bull = NodeBull(6, redis_server.port, tmp_path / "bull.log")
        try:
            app = {"REDIS_PORT": redis_server.port, "QUEUES": "q", "CONCURRENCY": 2}
            (row,) = pm2.start("app", env=app)
            for _ in range(4):
                bull.add("q", {"ms": 8000})
            wait_until(lambda: bull.counts("q")["active"] == 2, "two jobs to run")
            status = engine.docker("exec", "qctl", "qctl", "status", "--json")
            (queue,) = json.loads(status)["queues"]
            assert (queue["name"], queue["counts"]["active"]) == ("q", 2)

            drain = ("qctl", "drain", "q", "--then-restart", "--target", "pm2:app", "--json")
            result = json.loads(engine.docker("exec", "qctl", *drain, timeout_s=120))
            assert (result["outcome"], result["completed"]) == ("restarted", 2)
            assert (result["interrupted"], result["lost"]) == (0, 0)
            (new,) = pm2.rows("app")
            assert new.pid != row.pid

            killed(engine, bull, client)
        finally:
            bull.kill()
    finally:
        engine.close()


def killed(engine: Engine, bull: NodeBull, client: Client) -> None:
    """Kill qctl in the middle of a drain: its watchdog lets the queue run again."""
    wait_until(lambda: bull.counts("q")["active"] == 0, "the jobs to end", timeout_s=30)
    bull.add("q", {"ms": 20_000})
    wait_until(lambda: bull.counts("q")["active"] == 1, "a job to run")
    drain = subprocess.Popen(
        engine.command("exec", "qctl", "sh", "-c", "echo $$; exec qctl drain q"),
        env={**os.environ, **engine.env}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert drain.stdout is not None
    pid = int(drain.stdout.readline())

    def paused() -> bool:
        return bool(client.call("HEXISTS", "bull:q:meta", "paused"))

    wait_until(paused, "the pause", timeout_s=30)
    os.kill(pid, 9)
    drain.wait(30)
    drain.stdout.close()
    wait_until(lambda: not paused(), "the watchdog to resume", timeout_s=60)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="qb-", dir="/tmp") as folder:
        yield Path(folder)


def test_a_python_worker_runs_in_the_background(binary: Path, tmp_path: Path, short: Path) -> None:
    """Its master and its children are the binary; the app imports what qctl itself does not."""
    (tmp_path / "app.py").write_text(
        "import sqlite3, zipfile\n"
        "from qctl import Worker\n"
        'worker = Worker("q")\n'
        '@worker.task("welcome")\n'
        "async def welcome(job): return {'zip': zipfile.__name__}\n"
        '@worker.task("apart", isolate=True)\n'
        "def apart(job): return 1\n"
    )
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "XDG_STATE_HOME": str(short),
        "QCTL_REDIS_URL": f"embedded:{tmp_path}/data",
    }

    def qctl(*words: str) -> str:
        done = subprocess.run(
            [binary, *words], env=environ, cwd=tmp_path, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    qctl("worker", "start", "w", "app:worker", "--processes", "2")
    try:
        for name in ("welcome", "apart"):
            job_id = qctl("jobs", "add", "q", name, "--create").split()[0]
            assert "completed" in qctl("wait", "q", "--for", f"job={job_id}", "--timeout", "30s")
        assert "→" in qctl("worker", "restart", "w")
    finally:
        qctl("worker", "stop", "w", "--now")


def test_an_agent_uses_it(binary: Path, redis_url: str, client: Client, tmp_path: Path) -> None:
    client.call("HSET", "bull:q:meta", "version", "bullmq:6.7.0")

    async def work(agent: Agent) -> None:
        status = await agent.call("status")
        assert [queue["name"] for queue in status["result"]["queues"]] == ["q"]

    environ = {"HOME": str(tmp_path), "QCTL_REDIS_URL": redis_url}
    with_agent(work, env=environ, folder=tmp_path, program=[binary])


def test_the_image_runs_qctl_as_an_ordinary_user(
    binary: Path, pm2: Pm2, redis_server: RedisServer, client: Client, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    (context / "dist").mkdir(parents=True)
    shutil.copy(ROOT / "Dockerfile", context)
    shutil.copy(f"{binary}.tar.gz", context / "dist/qctl.tar.gz")
    engine = Engine()
    try:
        bare_image(engine, binary, ())
        done = subprocess.run(
            engine.command("build", "-t", "qctl", "--build-arg", "BASE=bare", str(context)),
            env={**os.environ, **engine.env, "DOCKER_BUILDKIT": "0"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        user = json.loads(engine.docker("inspect", "qctl"))[0]["Config"]["User"]
        assert user
        assert user.split(":")[0] not in {"0", "root"}
        pm2.start("app", env={"REDIS_PORT": redis_server.port, "QUEUES": "q"})
        pm2.wait_worker(client, "q")
        client.call("HSET", "bull:q:meta", "version", "bullmq:6.7.0")
        run = ("run", "--rm", "--read-only", "--tmpfs=/tmp", "--network=host")
        url = f"--env=QCTL_REDIS_URL={redis_server.url}"
        shown = json.loads(engine.docker(*run, url, "qctl", "status", "--json"))
        assert [queue["name"] for queue in shown["queues"]] == ["q"]
        assert engine.docker(*run, "qctl", "help", "drain").startswith("# How a drain works")
        host = ("--pid=host", "--cap-add=SYS_PTRACE", "--user=0")
        folder = (f"--volume={pm2.home}:/pm2", "--env=PM2_HOME=/pm2")
        restart = ("qctl", "restart", "pm2:app", "--yes", "--json")
        restarted = engine.docker(*run, *host, *folder, url, *restart, timeout_s=120)
        assert json.loads(restarted)["outcome"] == "restarted"
    finally:
        engine.close()
