"""``--protect``: requests to stand-ins for the ECS agent and for the API of Kubernetes."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qctl.errors import UsageError
from qctl.runtime.logs import Log
from qctl.runtime.processes import protection
from qctl.runtime.processes.protection import (
    EcsProtection,
    KubernetesProtection,
    Protector,
    protection_of,
)
from tests.labs import masters as labs
from tests.labs.masters import MasterLab
from tests.labs.servers import wait_until

master_lab = labs.master_lab
COST = "controller.kubernetes.io/pod-deletion-cost"
Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


def granted(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"protection": {"ProtectionEnabled": body.get("ProtectionEnabled")}}


class Endpoint:
    """An HTTP server that keeps the requests."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.answer: Answer = granted
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append((self.command, self.path, dict(self.headers), body))
                status, answer = endpoint.answer(body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_PUT = do_PATCH = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for *_, body in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def agent() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


ON = {"ProtectionEnabled": True, "ExpiresInMinutes": 60}
OFF = {"ProtectionEnabled": False}


def test_a_task_of_ecs_is_protected_while_jobs_run(master_lab: MasterLab, agent: Endpoint) -> None:
    uri = f"http://127.0.0.1:{agent.port}/api/123"
    # A proxy of the task is not for the agent.
    master = master_lab.run("--protect", "ecs", ECS_AGENT_URI=uri, http_proxy="http://127.0.0.1:1")
    wait_until(lambda: agent.bodies, "the state at the start to be set")
    assert agent.bodies == [OFF]
    (job,) = master_lab.add(held=True)
    wait_until(lambda: len(agent.bodies) > 1, "the protection")
    master.signal()
    master.wait_log("finishing jobs")
    # Also during the stop.
    assert agent.bodies == [OFF, ON]
    more = master_lab.add(20)
    master_lab.release()
    assert master.wait_end() == 0
    assert agent.bodies == [OFF, ON, OFF]
    assert master_lab.ids("completed") == [job]
    assert len(master_lab.ids("wait")) == len(more)
    assert {(method, path) for method, path, *_ in agent.requests} == {
        ("PUT", "/api/123/task-protection/v1/state")
    }
    assert [row["message"] for row in map(json.loads, master.text.splitlines())].count(
        "protection is on"
    ) == 1


def make_certificate(folder: Path) -> None:
    """``ca.crt``, signed by itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl, which makes the certificate")
    subprocess.run(
        ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem",
         "-out", "ca.crt", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"),
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


def test_a_pod_gets_a_deletion_cost(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    (tmp_path / "namespace").write_text("shop\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key.pem")
    api = Endpoint(context)
    pod = KubernetesProtection(f"https://127.0.0.1:{api.port}", "emails-7d9", account=tmp_path)
    for token, busy in (("first", True), ("second", False)):
        (tmp_path / "token").write_text(token)
        pod.set(busy)
    assert [(method, path) for method, path, *_ in api.requests] == [
        ("PATCH", "/api/v1/namespaces/shop/pods/emails-7d9")
    ] * 2
    costs = [body["metadata"]["annotations"] for body in api.bodies]
    assert costs == [{COST: "1000"}, {COST: None}]
    headers = [headers for _, _, headers, _ in api.requests]
    assert [row["Authorization"] for row in headers] == ["Bearer first", "Bearer second"]
    assert {row["Content-Type"] for row in headers} == {"application/merge-patch+json"}
    api.answer = lambda _: (403, {"message": "cannot patch resource pods"})
    with pytest.raises(ValueError, match=r"403.*cannot patch resource pods"):
        pod.set(True)
    # A certificate that the cluster's CA has not signed is refused.
    make_certificate(tmp_path)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        pod.set(True)
    api.close()


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"failure": {"Reason": "TASK_NOT_VALID"}}),
        (200, {"protection": {"ProtectionEnabled": False}}),
        (400, {"error": {"Code": "AccessDeniedException"}}),
    ],
)
def test_a_refusal_of_the_agent_is_an_error(
    agent: Endpoint, answer: tuple[int, dict[str, Any]]
) -> None:
    agent.answer = lambda _: answer
    with pytest.raises(ValueError, match=r"TASK_NOT_VALID|Enabled|AccessDenied"):
        EcsProtection(f"http://127.0.0.1:{agent.port}").set(True)


class Recorder:
    """A protection that keeps what is set, and fails while ``fails``."""

    renew_s: float | None = None

    def __init__(self) -> None:
        self.states: list[bool] = []
        self.tries = 0
        self.fails = False

    def set(self, busy: bool) -> None:
        self.tries += 1
        if self.fails:
            raise OSError("no route to the agent")
        self.states.append(busy)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "_TICK_S", 0.005)
    monkeypatch.setattr(protection, "RETRY_S", 0.02)


async def watch(
    recorder: Recorder, work: list[int], steps: Callable[[], Any], hold_s: float = 0.05
) -> None:
    protector = Protector(recorder, lambda: (work[0], work[1]), Log("master"), hold_s)
    task = asyncio.create_task(protector.run())
    try:
        await steps()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.usefixtures("quick")
def test_only_changes_are_sent_and_short_pauses_are_none() -> None:
    recorder, work = Recorder(), [0, 0]

    async def steps() -> None:
        await until(lambda: recorder.states == [False])
        # Hundreds of jobs, none of which is seen running.
        for _ in range(300):
            work[1] += 1
            await asyncio.sleep(0.001)
        assert recorder.states == [False, True]
        await until(lambda: recorder.states == [False, True, False])
        work[0] = 1
        await until(lambda: len(recorder.states) == 4)

    asyncio.run(watch(recorder, work, steps, hold_s=0.5))
    # The end of the master ends the protection.
    assert recorder.states == [False, True, False, True, False]


@pytest.mark.usefixtures("quick")
def test_a_protection_that_expires_is_renewed() -> None:
    recorder = Recorder()
    recorder.renew_s = 0.02
    asyncio.run(watch(recorder, [1, 0], lambda: until(lambda: len(recorder.states) > 3)))
    assert recorder.states == [True] * (len(recorder.states) - 1) + [False]


@pytest.mark.usefixtures("quick")
def test_a_failing_endpoint_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    recorder.fails = True
    caplog.set_level("INFO")

    async def steps() -> None:
        await until(lambda: recorder.tries > 3)
        recorder.fails = False
        await until(lambda: recorder.states)

    asyncio.run(watch(recorder, [1, 0], steps))
    assert recorder.states == [True, False]
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "no route to the agent" in text]) == 1
    assert "the platform accepts changes of the protection again" in messages


@pytest.mark.parametrize("kind", protection.KINDS)
def test_elsewhere_the_option_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match=f"--protect {kind} works only in"):
        protection_of(kind, {})
