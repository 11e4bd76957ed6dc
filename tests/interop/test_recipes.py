"""The recipes of docs/deploy.md, as the page has them, under load.

Compose, Ansible, PM2, `kubectl` and `aws` are the real programs. See tests/labs/kubernetes_stub.py
and tests/labs/cloud.py for what stands for Kubernetes, ECS, Fly.io and Nomad.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.labs.cloud import Cloud, open_cloud
from tests.labs.compose import Compose
from tests.labs.docker_engine import Engine
from tests.labs.drains import Done, Lab, Running
from tests.labs.kubernetes_stub import Cluster
from tests.labs.node import HERE, MODULES, node
from tests.labs.recipes import QUEUE, Recipe, path_with, recipe
from tests.labs.scripts import write_script
from tests.labs.servers import wait_until
from tests.labs.systemd_container import Machine

BIN = Path(sys.executable).parent
# For drains that fail because workers are missing: the recipes give them a minute or more.
SOON = "3s"


def under_load(
    lab: Lab, start: Callable[[], Running], instances: int = 2
) -> tuple[Done, list[str]]:
    """Run a recipe while jobs run and more are added; qctl's end, and the ids of all jobs."""
    lab.wait_workers(QUEUE, instances)
    producer = lab.producer(QUEUE, EVERY_MS=80, JOB_MS=40)
    producer.wait_ids(8)
    held = lab.hold(5 * instances, queue=QUEUE)
    drain = start()
    drain.await_step("waiting")
    lab.release(QUEUE)
    done = drain.finish()
    return done, [*held, *producer.stop()]


def prove_replaced(lab: Lab, done: Done, added: list[str], instances: int = 2) -> None:
    assert done.code == 0, done.err
    report = done.report
    assert report["outcome"] == "restarted"
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    (row,) = report["workers"]
    assert (row["before"], row["left"], row["new"]) == (instances, 0, instances)
    assert (report["unserved"], report["resumed"]) == ([], True)
    lab.prove(added, QUEUE)


def prove_failed(lab: Lab, done: Done, said: str, *, served: bool | None = True) -> None:
    """The deployment failed; no job did.

    Args:
        said: part of the error.
        served: whether workers are left that run the jobs; None if a worker may be starting.
    """
    report = done.report
    assert (done.code, report["outcome"]) == (1, "aborted"), done.err
    assert said in report["error"]
    assert (report["interrupted"], report["lost"], report["resumed"]) == (0, 0, True)
    if served is not None:
        assert report["unserved"] == ([] if served else [QUEUE])
    assert any("was run" in note for note in report["notes"])
    lab.prove_tidy(QUEUE)
    if served is not False:
        lab.prove(lab.add(10, 10, queue=QUEUE), QUEUE)


def prepare(lab: Lab, found: Recipe, env: Mapping[str, str]) -> None:
    """Run the commands before the drain."""
    command = ["bash", "-e", "-c", found.preparation()]
    subprocess.run(command, env={**lab.env, **env}, cwd=lab.folder, check=True, timeout=60)


# Docker Compose


@pytest.fixture
def compose(lab: Lab, engine: Engine) -> Compose:
    """A project whose service ``worker`` runs, where `docker compose` of the test finds it."""
    project = Compose(engine)
    project.service("worker", compose_env(lab), instances=2)
    project.up()
    return project


def compose_env(lab: Lab, **env: object) -> dict[str, object]:
    own = {"REDIS_PORT": lab.server.port, "QUEUES": QUEUE, "CONCURRENCY": 5, "HANDLE_SIGTERM": 1}
    return {**own, **env}


def compose_words(lab: Lab, env: Mapping[str, str], **options: str) -> list[str]:
    found = recipe("Docker Compose")
    prepare(lab, found, env)
    return found.drain(output="ndjson", **options)


def test_compose(lab: Lab, compose: Compose) -> None:
    env = {**compose.engine.env, "COMPOSE_FILE": str(compose.folder / "compose.yaml")}
    before = compose.containers("worker")
    compose.service("worker", compose_env(lab, VERSION=2), instances=2)
    words = compose_words(lab, env)
    done, added = under_load(lab, lambda: lab.start(*words, env=env))
    prove_replaced(lab, done, added)
    after = compose.containers("worker")
    assert len({*before, *after}) == 4
    # The same again: nothing has changed.
    lab.wait_workers(QUEUE, 2)
    done = lab.qctl(*compose_words(lab, env, ready_timeout=SOON), env=env)
    prove_failed(lab, done, "2 old workers are still connected")
    assert compose.containers("worker") == after
    # `up` succeeds although the new containers crash.
    compose.service("worker", compose_env(lab, CRASH_MS=0), instances=2)
    done = lab.qctl(*compose_words(lab, env, ready_timeout=SOON), env=env)
    prove_failed(lab, done, "0 of 2 new workers", served=False)


# Kubernetes


def start_kubernetes(lab: Lab, cluster: Cluster, changed: Mapping[str, str] = {}) -> Running:
    words = recipe("Kubernetes, new image").drain(changed, output="ndjson")
    return lab.start(*words, env=cluster.env)


@pytest.fixture
def emails(lab: Lab, kubernetes: Cluster) -> Cluster:
    """A cluster with the deployment `emails`; a pod crashes at its start if `crash` exists."""
    # Redis' protected mode refuses 127.0.1.2, which is the address of a pod.
    lab.client.call("CONFIG", "SET", "protected-mode", "no")
    crash = {"CRASH_MS": 0, "CRASH_IF": lab.folder / "crash"}
    kubernetes.create("emails", {**cloud_env(lab), **crash}, replicas=2)
    lab.wait_workers(QUEUE, 2)
    return kubernetes


def test_kubernetes(lab: Lab, emails: Cluster) -> None:
    done, added = under_load(lab, lambda: start_kubernetes(lab, emails))
    prove_replaced(lab, done, added)
    images = [pod.spec["containers"][0]["image"] for pod in emails.pods()]
    assert images == ["shop:42", "shop:42"]


def test_kubernetes_whose_new_pods_crash(lab: Lab, emails: Cluster) -> None:
    (lab.folder / "crash").touch()
    done = start_kubernetes(lab, emails, {"--timeout=10m": "--timeout=1s"}).finish()
    prove_failed(lab, done, "sh failed with exit code 1")
    assert "timed out waiting" in done.err


# ECS, Fly.io, Nomad


def cloud_env(lab: Lab) -> dict[str, object]:
    return {"REDIS_PORT": lab.server.port, "QUEUES": QUEUE, "CONCURRENCY": 5}


@pytest.fixture
def cloud(lab: Lab) -> Iterator[Cloud]:
    """Two instances of version 41; 42 starts, 43 crashes, 44 takes its time."""
    versions = {"41": {}, "42": {}, "43": {"CRASH_MS": 0}, "44": {"BOOT_MS": 700}}
    # Redis' protected mode refuses 127.0.9.1, which is the address of an instance.
    lab.client.call("CONFIG", "SET", "protected-mode", "no")
    with open_cloud(cloud_env(lab), versions=versions) as cloud:
        cloud.start("41")
        yield cloud


@dataclass(frozen=True)
class Deployment:
    """A recipe for the cloud, ready to run.

    Args:
        words: of qctl.
    """

    lab: Lab
    cloud: Cloud
    words: list[str]
    env: dict[str, str]

    def start(self) -> Running:
        return self.lab.start(*self.words, env=self.env)

    def fail(self) -> Done:
        self.lab.wait_workers(QUEUE, len(self.cloud.instances))
        return self.lab.qctl(*self.words, env=self.env)


def deployment(lab: Lab, cloud: Cloud, heading: str, changed: Mapping[str, str] = {}) -> Deployment:
    """Prepare a recipe, which deploys version 42.

    Args:
        changed: parts of the command that differ.
    """
    found = recipe(heading)
    aws = cloud.aws_env if heading == "Amazon ECS" else {}
    env = {**aws, "PATH": path_with(cloud.folder / "bin", BIN)}
    found.write_scripts(lab.folder)
    prepare(lab, found, env)
    return Deployment(lab, cloud, found.drain(changed, output="ndjson"), env)


def keep_one(cloud: Cloud) -> int:
    """Stop all instances but one; its pid. All are replaced then, whatever the version."""
    while len(cloud.instances) > 1:
        cloud.instances.pop().stop()
    return cloud.instances[0].process.pid


def versions(cloud: Cloud) -> list[str]:
    return [instance.version for instance in cloud.instances]


def test_ecs_starts_new_tasks_beside_the_old_ones(lab: Lab, cloud: Cloud) -> None:
    cloud.beside = True
    done, added = under_load(lab, deployment(lab, cloud, "Amazon ECS").start)
    prove_replaced(lab, done, added)
    assert versions(cloud) == ["42", "42"]


def test_ecs_rolls_back_and_is_stable(lab: Lab, cloud: Cloud) -> None:
    before = keep_one(cloud)
    done = deployment(lab, cloud, "Amazon ECS", {"worker:42": "worker:43"}).fail()
    prove_failed(lab, done, "deploy-worker failed with exit code 1")
    assert "rolled back to" in done.err
    assert versions(cloud) == ["41"]
    assert cloud.instances[0].process.pid != before


def test_fly(lab: Lab, cloud: Cloud) -> None:
    done, added = under_load(lab, deployment(lab, cloud, "Fly.io").start)
    prove_replaced(lab, done, added)
    assert versions(cloud) == ["42", "42"]


def test_fly_stops_at_the_first_machine_that_fails(lab: Lab, cloud: Cloud) -> None:
    done = deployment(lab, cloud, "Fly.io", {"shop:42": "shop:43"}).fail()
    prove_failed(lab, done, "fly failed with exit code 1")
    assert versions(cloud) == ["43", "41"]


def test_fly_returns_before_the_machines_are_up(lab: Lab, cloud: Cloud) -> None:
    changed = {"shop:42": "shop:44", "rolling": "immediate"}
    done, added = under_load(lab, deployment(lab, cloud, "Fly.io", changed).start)
    prove_replaced(lab, done, added)


def test_nomad(lab: Lab, cloud: Cloud) -> None:
    done, added = under_load(lab, deployment(lab, cloud, "Nomad").start)
    prove_replaced(lab, done, added)
    assert versions(cloud) == ["42", "42"]


def test_nomad_reverts_and_succeeds(lab: Lab, cloud: Cloud) -> None:
    before = keep_one(cloud)
    done = deployment(lab, cloud, "Nomad", {"shop:42": "shop:43"}).fail()
    prove_failed(lab, done, "deploy-worker failed with exit code 1")
    assert "reverted to shop:41" in done.err
    assert versions(cloud) == ["41"]
    assert cloud.instances[0].process.pid != before


# Ansible


@pytest.fixture
def inventory(lab: Lab, machine: Machine) -> Path:
    """A folder with the recipe's playbook for one host, the machine, whose worker runs."""
    if not (BIN / "ansible-playbook").exists():
        pytest.skip("ansible-playbook is missing: install the extra `recipes`")
    env = {"REDIS_PORT": lab.server.port, "QUEUES": QUEUE, "CONCURRENCY": 5}
    machine.unit("emails-worker", env)
    (lab.folder / "restart-workers.yml").write_text(recipe("Ansible").yaml())
    local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (lab.folder / "inventory").write_text(f"[workers]\nhere {local}\n")
    return lab.folder


def start_ansible(lab: Lab, machine: Machine, folder: Path) -> Running:
    words = recipe("Ansible").drain(output="ndjson")
    words[words.index("ansible-playbook")] = str(BIN / "ansible-playbook")
    words = [str(folder / word) if (folder / word).is_file() else word for word in words]
    env = {"QCTL_REDIS_URL": lab.url, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    return machine.start_qctl(*words, env=env)


def test_ansible(lab: Lab, machine: Machine, inventory: Path) -> None:
    before = machine.show("emails-worker", "MainPID")
    done, added = under_load(lab, lambda: start_ansible(lab, machine, inventory), instances=1)
    prove_replaced(lab, done, added, instances=1)
    assert machine.show("emails-worker", "MainPID") != before


def test_ansible_with_a_host_that_fails(lab: Lab, machine: Machine, inventory: Path) -> None:
    with (inventory / "inventory").open("a") as file:
        file.write("away ansible_connection=local ansible_python_interpreter=/nowhere/python\n")
    lab.wait_workers(QUEUE)
    done = start_ansible(lab, machine, inventory).finish()
    # The worker of the host that did not fail was restarted a moment ago.
    lab.wait_workers(QUEUE)
    prove_failed(lab, done, "ansible-playbook failed with exit code", served=None)


# A link to the current release


@pytest.fixture
def shop(lab: Lab, tmp_path: Path) -> Path:
    """What `/srv/shop` is in the recipe: two releases that run, one that crashes, and PM2."""
    root = tmp_path / "shop"
    for release in ("41", "42", "43"):
        folder = root / "releases" / release
        folder.mkdir(parents=True)
        crash = "throw new Error('broken release');" if release == "43" else ""
        script = f"process.env.WORKER_NAME = {release!r}; {crash} require('{HERE}/worker.js');"
        (folder / "worker.js").write_text(script)
    (root / "current").symlink_to("releases/41")
    (root / "bin").mkdir()
    write_script(root / "bin/pm2", f'exec {" ".join(node())} {MODULES}/pm2/bin/pm2 "$@"')
    scripts = recipe("Capistrano and other symlink deployments")
    scripts.write_scripts(root / "bin", {"/srv/shop": str(root)})
    env = {"REDIS_PORT": lab.server.port, "QUEUES": QUEUE, "CONCURRENCY": 5}
    current = root / "current"
    lab.pm2.start(QUEUE, current / "worker.js", env, instances=2, cwd=str(current))
    return root


def switch(shop: Path, release: str, **options: str) -> list[str]:
    changed = {"/srv/shop": str(shop), " 42\n": f" {release}\n"}
    found = recipe("Capistrano and other symlink deployments")
    return found.drain(changed, output="ndjson", **options)


def shop_env(lab: Lab, shop: Path) -> dict[str, str]:
    return {**lab.pm2.env, "PATH": path_with(shop / "bin")}


def test_a_link_to_the_release(lab: Lab, shop: Path) -> None:
    env = shop_env(lab, shop)
    done, added = under_load(lab, lambda: lab.start(*switch(shop, "42"), env=env))
    prove_replaced(lab, done, added)
    assert (shop / "current").readlink() == Path("releases/42")
    (late,) = lab.add(1, queue=QUEUE)
    lab.wait_completed([late], QUEUE)
    assert {row["worker"] for row in lab.rows(late, QUEUE)} == {"42"}


def test_the_link_stays_if_the_jobs_do_not_end(lab: Lab, shop: Path) -> None:
    lab.wait_workers(QUEUE, 2)
    held = lab.hold(queue=QUEUE)
    done = lab.qctl(*switch(shop, "42", timeout="1s"), env=shop_env(lab, shop))
    assert (done.code, done.report["outcome"]) == (4, "timeout")
    assert (shop / "current").readlink() == Path("releases/41")
    lab.release(QUEUE)
    lab.prove(held, QUEUE)


def test_a_release_that_crashes_is_rolled_back(lab: Lab, shop: Path) -> None:
    env = shop_env(lab, shop)
    lab.wait_workers(QUEUE, 2)
    broken = lab.qctl(*switch(shop, "43", ready_timeout=SOON), env=env)
    prove_failed(lab, broken, "0 of 2 new workers", served=False)
    # No worker is left to count.
    assert lab.qctl(*switch(shop, "41"), env=env).code == 5
    back = lab.qctl(*switch(shop, "41", expect_workers="2"), env=env)
    assert back.code == 0, back.err
    lab.prove(lab.add(10, 10, queue=QUEUE), QUEUE)


# GitHub Actions


@pytest.fixture
def checkout(lab: Lab) -> Path:
    """A checkout with a `deploy.sh` that restarts the workers."""
    lab.app(queues=QUEUE, concurrency=5, instances=2)
    write_script(
        lab.folder / "deploy.sh", f"exec {' '.join(node())} {MODULES}/pm2/bin/pm2 restart app"
    )
    return lab.folder


def start_step(lab: Lab, folder: Path) -> Running:
    """Start the step of the workflow as the runner does."""
    (job,) = yaml.safe_load(recipe("GitHub Actions").yaml())["jobs"].values()
    step = job["steps"][-1]
    assert step["shell"] == "bash"
    file = folder / "step.sh"
    file.write_text(step["run"])
    (name,) = job["env"]
    env = {
        **lab.env,
        **lab.pm2.env,
        name: lab.url,
        "PATH": path_with(BIN),
        "GITHUB_ACTIONS": "true",
        "RUNNER_TRACKING_ID": "github_1",
        "QCTL_OUTPUT": "ndjson",
    }
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(file)]
    return Running.program(command, env, folder)


def test_github_actions(lab: Lab, checkout: Path) -> None:
    done, added = under_load(lab, lambda: start_step(lab, checkout))
    prove_replaced(lab, done, added)


@pytest.mark.parametrize("kill", [False, True])
def test_a_step_that_is_cancelled(lab: Lab, checkout: Path, kill: bool) -> None:
    lab.wait_workers(QUEUE, 2)
    held = lab.hold(queue=QUEUE)
    with contextlib.closing(start_step(lab, checkout)) as step:
        step.await_step("waiting")
        watchdog = step.watchdog_pid
        # What the runner cleans up when the job has ended.
        environ = Path(f"/proc/{watchdog}/environ").read_bytes()
        assert b"RUNNER_TRACKING_ID=github" not in environ
        if kill:
            step.kill()
        else:
            step.signal(signal.SIGINT)
            assert step.finish().code == 130
        lab.release(QUEUE)
        wait_until(lambda: lab.put_right(watchdog, QUEUE), "the queue to be resumed")
        lab.prove(held, QUEUE)
