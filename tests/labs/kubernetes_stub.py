"""A small API server of Kubernetes for the real ``kubectl``, whose pods are processes here.

It knows what ``kubectl get``, ``set image``, ``rollout restart``, ``rollout status`` and ``logs``
need of deployments, replica sets, stateful sets and pods. Its controller replaces pods as the real
ones do: for a deployment the new pod first (``maxSurge`` 1), for a stateful set one number after
another; SIGTERM to a pod that is to go, SIGKILL after the grace period; a container that has ended
is started again, with a growing delay (``CrashLoopBackOff``). A pod is ready once
worker.js has printed "ready".
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.labs.drains import SECRET
from tests.labs.kubernetes_pods import NAMESPACE, NUMBERS, Pod, Workload
from tests.labs.node import HERE, node

_PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "ReplicaSet": "replicasets"}


class Cluster:
    """The API server with its controller, on a port of its own.

    Attributes:
        refuses: status, reason and message with which the next requests are refused.
        hangs: whether requests get no answer.
        requests: method and path of each request.
    """

    def __init__(self) -> None:
        if shutil.which("kubectl") is None:
            pytest.skip("kubectl is not installed")
        self.folder = Path(tempfile.mkdtemp(prefix="qk8s-", dir="/tmp"))
        self.workloads: list[Workload] = []
        self.refuses: tuple[int, str, str] | None = None
        self.hangs = threading.Event()
        self.is_over = threading.Event()
        self.requests: list[str] = []
        self._lock = threading.RLock()
        self._ips = itertools.count(2)
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}),
            threading.Thread(target=self._control),
        ]
        for thread in self._threads:
            thread.start()
        self.write_kubeconfig("stub")

    @property
    def env(self) -> dict[str, str]:
        """Environment variables with which kubectl finds this server."""
        return {
            "KUBECONFIG": str(self.folder / "config"),
            "KUBECACHEDIR": str(self.folder / "cache"),
            "HTTPS_PROXY": "",
            "HTTP_PROXY": "",
        }

    def write_kubeconfig(self, context: str, namespace: str = NAMESPACE) -> None:
        """A kubeconfig with this one context."""
        port = self._server.server_address[1]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": SECRET}}],
            "contexts": [
                {"name": context, "context": {"cluster": "c", "user": "u", "namespace": namespace}}
            ],
        }
        (self.folder / "config").write_text(json.dumps(config))

    def create(
        self,
        name: str,
        env: Mapping[str, object] = {},
        *,
        kind: str = "Deployment",
        replicas: int = 1,
        program: Sequence[str] = (),
        labels: Mapping[str, str] = {},
        pod: Mapping[str, Any] = {},
        container: Mapping[str, Any] = {},
        stuck: str = "",
        **spec: Any,
    ) -> Workload:
        """Create a workload.

        Args:
            env: of the container.
            program: what the pods run; by default worker.js.
            pod, container, spec: more fields of the pods' ``spec``, of their container, and of the
                workload's ``spec``.
            stuck: see ``Workload``.
        """
        labels = labels or {"app": name}
        text = {key: str(value) for key, value in env.items()}
        variables = [{"name": key, "value": value} for key, value in text.items()]
        pod_spec = {
            "terminationGracePeriodSeconds": 2,
            "containers": [{"name": "worker", "env": variables, **container}],
            **pod,
        }
        is_set = kind == "StatefulSet"
        whole = {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": {}}, "spec": pod_spec},
            **({"updateStrategy": {"type": "RollingUpdate"}} if is_set else {}),
            **({} if is_set else {"progressDeadlineSeconds": 600}),
            **spec,
        }
        program = program or (*node(), str(HERE / "worker.js"))
        workload = Workload(kind, name, whole, program, text, stuck=stuck)
        with self._lock:
            self.workloads.append(workload)
        return workload

    def pods(self) -> list[Pod]:
        with self._lock:
            return [pod for workload in self.workloads for pod in workload.pods]

    def close(self) -> None:
        self.is_over.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()
        for pod in self.pods():
            if pod.process is not None:
                pod.process.kill()
                pod.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    # The controller

    def _control(self) -> None:
        while not self.is_over.wait(0.02):
            with self._lock:
                for workload in self.workloads:
                    for pod in workload.pods:
                        pod.tick()
                    workload.pods = [pod for pod in workload.pods if not pod.is_gone]
                    self._reconcile(workload)

    def _reconcile(self, workload: Workload) -> None:
        template = workload.template_text
        if not workload.revisions or workload.revisions[-1]["template"] != template:
            number = len(workload.revisions) + 1
            workload.revisions.append(
                {
                    "template": template,
                    "name": f"{workload.name}-{number}",
                    "uid": f"{workload.uid}-{number}",
                }
            )
        newest = workload.revisions[-1]["name"]
        if workload.kind == "StatefulSet":
            self._replace_in_order(workload, newest)
            return
        alive = [pod for pod in workload.pods if pod.deleted_at is None]
        new = [pod for pod in alive if pod.labels["pod-template-hash"] == newest]
        old = [pod for pod in alive if pod not in new]
        if workload.spec.get("paused"):
            return
        if len(new) < workload.replicas and len(alive) <= workload.replicas:
            self._add(workload, f"{newest}-{next(NUMBERS)}", "pod-template-hash")
        elif old and sum(pod.is_ready for pod in alive) > workload.replicas:
            old[0].delete()
        elif len(alive) > workload.replicas and not old:
            alive[0].delete()

    def _replace_in_order(self, workload: Workload, newest: str) -> None:
        pods = {pod.name: pod for pod in workload.pods}
        strategy = workload.spec["updateStrategy"]["type"]
        for number in range(workload.replicas):
            if f"{workload.name}-{number}" not in pods:
                self._add(workload, f"{workload.name}-{number}", "controller-revision-hash")
                return
        if any(pod.deleted_at is not None or not pod.is_ready for pod in workload.pods):
            return
        for pod in sorted(workload.pods, key=lambda pod: pod.name, reverse=True):
            if pod.labels["controller-revision-hash"] != newest and strategy == "RollingUpdate":
                pod.delete()
                return

    def _add(self, workload: Workload, name: str, label: str) -> None:
        newest = workload.revisions[-1]
        owner = {"kind": workload.kind, "name": workload.name, "uid": workload.uid}
        if workload.kind == "Deployment":
            owner = {"kind": "ReplicaSet", "name": newest["name"], "uid": newest["uid"]}
        template = workload.spec["template"]
        labels = {**template["metadata"]["labels"], label: newest["name"]}
        workload.pods.append(
            Pod(
                name, owner, labels, template["spec"], self.folder, workload.program,
                workload.env, f"127.0.1.{next(self._ips)}", stuck=workload.stuck,
            )
        )  # fmt: skip

    # The API

    def answer(  # noqa: PLR0911 - one for each kind of request
        self, method: str, path: str, query: Mapping[str, str], body: bytes
    ) -> Any:
        """The JSON or text for a request; None for what does not exist."""
        parts = path.strip("/").split("/")
        if path in _DISCOVERY:
            return _DISCOVERY[path]
        with self._lock:
            match parts:
                case ["api", "v1", "namespaces", namespace, "pods"]:
                    return _list("PodList", "v1", self._chosen(self._pods(namespace), query))
                case ["api", "v1", "namespaces", namespace, "pods", name]:
                    return next((p for p in self._pods(namespace) if _name(p) == name), None)
                case ["api", "v1", "namespaces", _, "pods", name, "log"]:
                    return self._log(name, query)
                case ["apis", "apps", "v1", "namespaces", namespace, "replicasets"]:
                    found = [each for w in self._of(namespace) for each in w.replica_sets()]
                    return _list("ReplicaSetList", "apps/v1", self._chosen(found, query))
                case ["apis", "apps", "v1", "namespaces", namespace, plural, *name]:
                    of_kind = [w for w in self._of(namespace) if _PLURALS[w.kind] == plural]
                    if not name:
                        kind = {v: k for k, v in _PLURALS.items()}[plural]
                        rows = [workload.to_json() for workload in of_kind]
                        return _list(f"{kind}List", "apps/v1", rows)
                    workload = next((w for w in of_kind if w.name == name[0]), None)
                    if workload is None:
                        return None
                    if method == "PATCH":
                        workload.change(json.loads(body)["spec"]["template"])
                    return workload.to_json()
        return None

    def _of(self, namespace: str) -> list[Workload]:
        return self.workloads if namespace == NAMESPACE else []

    def _pods(self, namespace: str) -> list[dict[str, Any]]:
        return [pod.to_json() for w in self._of(namespace) for pod in w.pods]

    @staticmethod
    def _chosen(rows: list[dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
        wanted = [part.split("=") for part in query.get("labelSelector", "").split(",") if part]
        return [
            row for row in rows if all(row["metadata"]["labels"].get(k) == v for k, v in wanted)
        ]

    def _log(self, name: str, query: Mapping[str, str]) -> str | None:
        pod = next((pod for pod in self.pods() if pod.name == name), None)
        if pod is None:
            return None
        run = len(pod.ends) - (pod.process is None)
        run -= query.get("previous") == "true"
        lines = pod.log(run).read_text().splitlines(keepends=True)
        return "".join(lines[-int(query.get("tailLines", "1000")) :])


def _name(row: Mapping[str, Any]) -> str:
    return str(row["metadata"]["name"])


def _list(kind: str, version: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    # As in the real API, the items have no kind.
    items = [{k: v for k, v in row.items() if k not in {"kind", "apiVersion"}} for row in rows]
    return {
        "kind": kind,
        "apiVersion": version,
        "metadata": {"resourceVersion": "1"},
        "items": items,
    }


def _resources(version: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    verbs = ["get", "list", "patch", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": [
            {
                "name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind,
                "verbs": verbs, "shortNames": [],
            }
            for kind, plural in kinds.items()
        ],
    }  # fmt: skip


_VERSION = {"groupVersion": "apps/v1", "version": "v1"}
_DISCOVERY: dict[str, Any] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [_VERSION], "preferredVersion": _VERSION}],
    },
    "/api/v1": _resources("v1", {"Pod": "pods"}),
    "/apis/apps/v1": _resources("apps/v1", _PLURALS),
}


class _Handler(BaseHTTPRequestHandler):
    cluster: ClassVar[Cluster]
    protocol_version = "HTTP/1.1"

    def _do(self) -> None:
        cluster = self.cluster
        url = urlsplit(self.path)
        cluster.requests.append(f"{self.command} {url.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        while cluster.hangs.is_set() and not cluster.is_over.wait(0.05):
            pass
        if cluster.refuses is not None and url.path not in _DISCOVERY:
            code, reason, message = cluster.refuses
            self._send(code, _failure(code, reason, message))
            return
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if query.get("watch") in {"1", "true"}:
            self._watch(url.path, query)
            return
        answer = cluster.answer(self.command, url.path, query, body)
        if answer is None:
            plural, name = url.path.split("/")[-2:]
            what = f'{plural}.apps "{name}" not found'
            self._send(404, _failure(404, "NotFound", what))
        else:
            self._send(200, answer)

    def _watch(self, path: str, query: Mapping[str, str]) -> None:
        """Send the rows of a list again and again, as if all had changed, until nobody listens."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            while not self.cluster.is_over.wait(0.1):
                listed = self.cluster.answer("GET", path, query, b"")
                head = {"apiVersion": "apps/v1", "kind": listed["kind"].removesuffix("List")}
                for row in listed["items"]:
                    event = {"type": "MODIFIED", "object": {**head, **row}}
                    self.wfile.write(json.dumps(event).encode() + b"\n")
                self.wfile.flush()

    def _send(self, code: int, answer: Any) -> None:
        is_text = isinstance(answer, str)
        data = answer.encode() if is_text else json.dumps(answer).encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if is_text else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_GET = do_PATCH = do_POST = _do  # noqa: N815 - named so by http.server

    def log_message(self, *_: object) -> None:
        """No access log."""


def _failure(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": message,
    }  # fmt: skip


@contextlib.contextmanager
def open_cluster() -> Iterator[Cluster]:
    """A cluster without workloads."""
    cluster = Cluster()
    try:
        yield cluster
    finally:
        cluster.close()
