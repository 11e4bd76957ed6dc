"""A scheduler that replaces instances of worker.js, as ECS, Fly.io and Nomad do, and its tools.

None of these runs here. The real `aws` talks to an API of the few ECS calls that a deployment
needs. `fly` and `nomad` are stub programs: they refuse options that the real ones do not document,
and wait, return early, stop half-way and roll back as those do. The instances are real workers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.labs.docker_engine import worker_command
from tests.labs.node import HERE, node_env
from tests.labs.servers import wait_until

# After the stop signal, before SIGKILL.
_GRACE_S = 10.0
_STUB = """#!{python}
import json, os, sys, urllib.request
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
request = urllib.request.Request("{url}/cli", json.dumps(words).encode())
answer = json.load(urllib.request.urlopen(request, timeout=120))
print(answer["out"])
sys.exit(answer["code"])
"""
_SERVICE = {"cluster": "shop", "service": "worker"}


@dataclass
class Instance:
    """One task, machine or allocation: a process of worker.js."""

    version: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_ready(self) -> bool:
        """Wait until its workers are connected; False if it ends before."""

        def ready() -> str:
            return "ready" if b"ready " in self.log.read_bytes() else "ended" * self.has_ended

        return wait_until(ready, "an instance to start or to end", timeout_s=30) == "ready"

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Cloud:
    """Instances of one service.

    Attributes:
        env: of worker.js, for every version.
        versions: version → what its environment has beside ``env``; others cannot be deployed.
        beside: whether a new instance starts before the old one stops.
        reverts: whether a deployment that fails brings the old version back.
        current: the version that the service is to run.
    """

    env: Mapping[str, object]
    versions: Mapping[str, Mapping[str, object]]
    beside: bool = False
    reverts: bool = True
    current: str = ""
    instances: list[Instance] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qcloud-", dir="/tmp"))
        self._deployment: threading.Thread | None = None
        self._started = 0
        handler = type("Handler", (_Handler,), {"cloud": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )
        self._thread.start()
        (self.folder / "bin").mkdir()
        for name in ("fly", "nomad"):
            program = self.folder / "bin" / name
            program.write_text(_STUB.format(python=sys.executable, url=self.url))
            program.chmod(0o755)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def aws_env(self) -> dict[str, str]:
        """With this, the real `aws` finds the stub of its API, and nothing else."""
        if shutil.which("aws") is None:
            pytest.skip("the AWS CLI is not installed: `pip install awscli` installs version 1")
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    # The scheduler

    def start(self, version: str, count: int = 2) -> None:
        """Start instances of a version."""
        self.current = version
        self.instances = [self._launch(version) for _ in range(count)]

    def deploy(self, version: str) -> bool:
        """Replace one instance after another; False if the new version does not start.

        Then the other instances keep the old version, and with ``reverts`` this one gets it back.
        """
        before, self.current = self.current, version
        for number, old in enumerate(self.instances):
            if not self.beside:
                old.stop()
            new = self._launch(version)
            if not new.wait_ready():
                if self.reverts:
                    self.current = before
                if not self.beside:
                    self.instances[number] = self._launch(before) if self.reverts else new
                    self.instances[number].wait_ready()
                return False
            if self.beside:
                old.stop()
            self.instances[number] = new
        return True

    def begin(self, version: str) -> None:
        """Deploy in the background."""
        self._deployment = threading.Thread(target=self.deploy, args=(version,))
        self._deployment.start()

    def wait_stable(self, timeout_s: float) -> bool:
        """Wait for the end of the deployment that ``begin`` began."""
        if self._deployment is not None:
            self._deployment.join(timeout_s)
        return self._deployment is None or not self._deployment.is_alive()

    def replace_at_once(self, version: str) -> None:
        """Replace all instances, and wait for none."""
        self.current = version
        for old in self.instances:
            old.stop()
        self.instances = [self._launch(version) for _ in self.instances]

    def _launch(self, version: str) -> Instance:
        self._started += 1
        log = self.folder / f"{self._started}.log"
        own = {
            "HANDLE_SIGTERM": 1,
            "SOURCE_IP": f"127.0.9.{self._started}",
            **self.env,
            **self.versions[version],
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                worker_command(), cwd=HERE, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=node_env({key: str(value) for key, value in own.items()}),
            )  # fmt: skip
        return Instance(version, process, log)

    def close(self) -> None:
        """End everything."""
        self.wait_stable(60)
        for instance in self.instances:
            instance.process.kill()
            instance.process.wait()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Its tools

    def run(self, words: Sequence[str]) -> tuple[int, str]:
        """What `fly WORDS` or `nomad WORDS` does; its exit code and output."""
        try:
            return {"fly": self._fly, "nomad": self._nomad}[words[0]](words[1:])
        except (argparse.ArgumentError, KeyError, ValueError) as error:
            return 64, f"unknown: {error}"

    def _fly(self, words: Sequence[str]) -> tuple[int, str]:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("command", choices=["deploy"])
        parser.add_argument("--strategy", choices=["rolling", "immediate"], default="rolling")
        for option in ("--image", "--image-label", "--process-groups"):
            parser.add_argument(option)
        for option in ("--build-only", "--push"):
            parser.add_argument(option, action="store_true")
        given = _parsed(parser, words)
        if given.build_only:
            return 0, f"built {given.image_label}"
        version = given.image.rpartition(":")[2]
        if given.strategy == "immediate":
            self.replace_at_once(version)
            return 0, "updated"
        self.reverts = False
        return (0, "deployed") if self.deploy(version) else (1, "a machine did not start")

    def _nomad(self, words: Sequence[str]) -> tuple[int, str]:
        if words[:2] == ["job", "inspect"]:
            template = "{{(index (index .TaskGroups 0).Tasks 0).Config.image}}"
            assert list(words[2:]) == ["-t", template, "worker"]
            return 0, f"shop:{self.current}"
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("job", choices=["job"])
        parser.add_argument("command", choices=["run"])
        parser.add_argument("-var", required=True)
        parser.add_argument("file")
        given = _parsed(parser, words)
        version = given.var.removeprefix("image=shop:")
        # The monitor follows a rollback, too, and its success is the command's.
        is_done = self.deploy(version)
        return (0, "successful") if is_done or self.reverts else (1, "failed")

    def ecs(self, operation: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a call of the ECS API; KeyError for one that is not known here."""
        if operation == "UpdateService":
            assert {key: asked[key] for key in _SERVICE} == _SERVICE
            self.begin(asked["taskDefinition"].partition(":")[2])
            return {"service": self._service("IN_PROGRESS")}
        if operation == "DescribeServices":
            assert (asked["cluster"], asked["services"]) == ("shop", ["worker"])
            # `aws ecs wait` asks again only after 15 s, so the answer comes when it is good.
            self.wait_stable(50)
            return {"services": [self._service("COMPLETED")], "failures": []}
        raise KeyError(operation)

    def _service(self, rollout: str) -> dict[str, Any]:
        task = f"arn:aws:ecs:eu-central-1:1:task-definition/shop-worker:{self.current}"
        is_stable = self.wait_stable(0)
        deployment = {"status": "PRIMARY", "taskDefinition": task, "rolloutState": rollout}
        return {
            "serviceName": "worker",
            "status": "ACTIVE",
            "taskDefinition": task,
            "desiredCount": len(self.instances),
            "runningCount": len(self.instances),
            "deployments": [deployment, *([] if is_stable else [{"status": "ACTIVE"}])],
        }


class _Handler(BaseHTTPRequestHandler):
    cloud: ClassVar[Cloud]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = 200
        if self.path == "/cli":
            exit_code, out = self.cloud.run(asked)
            answer = {"code": exit_code, "out": out}
        else:
            operation = self.headers["X-Amz-Target"].partition(".")[2]
            try:
                answer = self.cloud.ecs(operation, asked)
            except KeyError as error:
                code, answer = 400, {"__type": "ClientException", "message": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    given, unknown = parser.parse_known_args(words)
    if unknown:
        raise ValueError(unknown)
    return given


@contextlib.contextmanager
def open_cloud(env: Mapping[str, object], **fields: Any) -> Iterator[Cloud]:
    """A cloud; closes all that it started."""
    cloud = Cloud(env, **fields)
    try:
        yield cloud
    finally:
        cloud.close()
