"""Containers as targets, with a real Docker engine: what only Docker has, and how it fails."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from qctl.manage.docker.rows import TEMPLATE, to_container
from tests.labs.docker_engine import Engine
from tests.labs.drains import SECRET, Done, Lab, Running, is_alive, open_lab
from tests.labs.node import HERE, node
from tests.labs.pm2 import Pm2
from tests.labs.scripts import write_script
from tests.labs.servers import RedisServer


class Containers:
    """A lab with an engine."""

    def __init__(self, lab: Lab, engine: Engine) -> None:
        self.lab = lab
        self.engine = engine

    def env(self, **env: object) -> dict[str, object]:
        """The environment of a worker."""
        own = {"REDIS_PORT": self.lab.server.port, "CONCURRENCY": 5, "SECRET_TOKEN": SECRET}
        return {**own, "HANDLE_SIGTERM": 1, **env}

    def worker(
        self,
        name: str = "worker",
        env: Mapping[str, object] = {},
        queue: str = "q",
        **options: object,
    ) -> int:
        """Start a container with one worker; the pid of its PID 1."""
        before = self.lab.count_workers(queue)
        folders = [self.lab.folder]
        self.engine.worker(name, self.env(**env), folders=folders, **options)
        self.lab.wait_workers(queue, before + 1)
        return self.engine.pid(name)

    def start(self, *words: str, env: Mapping[str, str] = {}) -> Running:
        return self.lab.start(*words, env={**self.engine.env, **env})

    def qctl(self, *words: str, env: Mapping[str, str] = {}) -> Done:
        return self.start(*words, env=env).finish()


@pytest.fixture
def docker(lab: Lab, engine: Engine) -> Containers:
    return Containers(lab, engine)


def test_a_roll_kills_nothing_and_pauses_nothing(docker: Containers, lab: Lab) -> None:
    """The jobs outlive the grace of 1 s, and the policy starts no container that ends well."""
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "worker"}
    before = [
        docker.worker(f"w{n}", labels={**labels, "com.docker.compose.container-number": str(n)},
                      stop_timeout=1, restart="no")
        for n in (1, 2)
    ]  # fmt: skip
    added = lab.add(*[2500] * 10)
    lab.wait_running(10)
    done = docker.qctl("restart", "docker:shop/worker", "--strategy", "roll", "--output", "ndjson")
    assert done.code == 0, done.err
    assert (done.report["outcome"], done.report["interrupted"]) == ("restarted", 0)
    assert "paused" not in done.step_names
    assert not any(map(is_alive, before))
    lab.prove(added)


def test_names_of_one_container(docker: Containers) -> None:
    pid = docker.worker(
        "shop-worker-1",
        labels={"com.docker.compose.project": "shop", "com.docker.compose.service": "worker"},
    )
    identity = str(docker.engine.inspect("shop-worker-1")["Id"])
    for name in ("shop-worker-1", identity[:12]):
        planned = docker.qctl("restart", f"docker:{name}", "--dry-run", "--json").json
        assert planned["target"] == "docker:shop-worker-1"
        assert [row["pid"] for row in planned["processes"]] == [pid]
    for name in ("shop/workers", "worker"):
        unknown = docker.qctl("restart", f"docker:{name}")
        assert unknown.code == 3
        assert "did you mean docker:shop/worker?" in unknown.err


def test_containers_with_addresses_of_their_own(
    engine: Engine, lab_pm2: Pm2, tmp_path: Path
) -> None:
    """As in every Compose project that does not say otherwise."""
    with engine.bridge() as (network, host), contextlib.ExitStack() as stack:
        options = ("--bind", "127.0.0.1", host, "--protected-mode", "no")
        server = RedisServer(tmp_path / "redis", *options).start()
        stack.callback(server.stop)
        lab = stack.enter_context(open_lab(lab_pm2, server, tmp_path))
        docker = Containers(lab, engine)
        pids = {
            name: docker.worker(name, {"REDIS_HOST": host, "QUEUES": queue}, queue, network=network)
            for name, queue in (("one", "q"), ("two", "other"))
        }
        status = docker.qctl("status", "--json").json
        rows = {row["target"]: row for row in status["processes"]}
        assert {target: (row["pid"], row["queues"]) for target, row in rows.items()} == {
            "docker:one": (pids["one"], ["q"]),
            "docker:two": (pids["two"], ["other"]),
        }
        held = lab.hold(2)
        drain = docker.start("drain", "q", "--then-restart", "--yes", "--output", "ndjson")
        drain.await_step("waiting")
        lab.release()
        done = drain.finish()
        assert done.code == 0, done.err
        assert (done.report["target"], done.report["old_pids"]) == ("docker:one", [pids["one"]])
        assert is_alive(pids["two"])
        lab.prove(held)


def test_a_container_that_ends_and_is_not_started_again(docker: Containers, lab: Lab) -> None:
    lab.watch = "1s"
    flag = lab.folder / "crash"
    docker.worker(env={"CRASH_MS": 100, "CRASH_IF": flag}, restart="no")
    flag.touch()
    done = docker.qctl("restart", "docker:worker", "--json")
    assert done.code == 1
    assert "crashing on purpose" in done.report["error"]
    assert "its manager does not start it again" in done.report["error"]
    lab.prove_tidy("q")


def test_a_container_that_is_removed_during_the_drain(docker: Containers, lab: Lab) -> None:
    docker.worker(env={"STALLED_MS": 600_000, "LOCK_MS": 1000})
    lab.hold()
    drain = docker.start("restart", "docker:worker", "--output", "ndjson")
    drain.await_step("waiting")
    docker.engine.docker("rm", "--force", "worker")
    done = drain.finish()
    assert done.code == 1
    assert "docker:worker (id worker) is no longer under its manager" in done.report["error"]
    lab.prove_tidy("q")


def test_a_shell_as_pid_1(docker: Containers, lab: Lab) -> None:
    words = " ".join([*node(), str(HERE / "worker.js")])
    docker.engine.run("shell", ["/bin/sh", "-c", f"cd / && {words}; true"], docker.env())
    lab.wait_workers()
    trouble = "its PID 1, sh, has no handler for SIGTERM, so the kernel ignores it"
    impact = docker.qctl("impact", "q", "--json").json
    assert (impact["target"], impact["processes"][0]["signal_trouble"]) == ("docker:shell", trouble)
    findings = docker.qctl("doctor", "q", "--json").json["findings"]
    (found,) = [each for each in findings if each["check"] == "signal-path"]
    assert found["what"].startswith(trouble)
    done = docker.qctl("restart", "docker:shell", "--strategy", "roll", "--json")
    assert done.code == 5


def test_a_docker_that_hangs(docker: Containers, lab: Lab) -> None:
    docker.worker()
    write_script(lab.folder / "docker", "sleep 60")
    path = f"{lab.folder}{os.pathsep}{lab.env['PATH']}"
    status = docker.qctl("status", "--json", env={"PATH": path})
    assert status.code == 0
    assert status.json["queues"][0]["workers"] == 1
    assert (
        "no Docker processes shown: `docker ps` gave no answer (it did not end within 2 s)"
    ) in status.err


def test_an_engine_on_another_host(docker: Containers, lab: Lab) -> None:
    """Its pids mean nothing here, so the end of the old process would not be seen."""
    docker.worker()
    real = shutil.which("docker")
    write_script(lab.folder / "docker", f'{real} "$@" | sed \'s/"pid":[0-9]*/"pid":1/\'')
    path = f"{lab.folder}{os.pathsep}{lab.env['PATH']}"
    done = docker.qctl("drain", "q", "--then-restart", "--target", "docker:worker",
                       env={"PATH": path})  # fmt: skip
    assert done.code == 5
    assert "let Redis show the restart: qctl drain QUEUE -- docker restart worker" in done.err


def test_the_environment_never_leaves_docker(docker: Containers) -> None:
    docker.engine.run("secret", ["/bin/sleep", "60"], {"TOKEN": SECRET})
    answer = docker.engine.docker("inspect", "--format", TEMPLATE, "secret")
    assert to_container(answer).process.name == "secret"
    assert SECRET not in answer


def test_a_roll_of_an_app_that_ignores_the_signal(docker: Containers, lab: Lab) -> None:
    """Node as PID 1 without a handler: it never ends, and Docker goes on waiting."""
    before = {
        name: docker.worker(name, {"HANDLE_SIGTERM": 0}, stop_timeout=1,
                            labels={"com.docker.compose.project": "shop",
                                    "com.docker.compose.service": "worker"})
        for name in ("one", "two")
    }  # fmt: skip
    words = ("restart", "docker:shop/worker", "--strategy", "roll", "--timeout", "1s")
    done = docker.qctl(*words, "--json")
    assert done.code == 4
    assert "the container never exits" in done.report["notes"][0]
    assert {name: docker.engine.pid(name) for name in before} == before
    done = docker.qctl("restart", "docker:one", "--json")
    assert done.code == 0, done.err
    assert [is_alive(before[name]) for name in ("one", "two")] == [False, True]
    lab.prove_tidy("q")
