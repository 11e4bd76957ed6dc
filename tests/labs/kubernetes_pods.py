"""Pods and workloads of the stub of Kubernetes; the pods are processes of this machine."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.labs.drains import SECRET
from tests.labs.node import HERE, node_env

NAMESPACE = "shop"
# The real delays are 10 s, 20 s, 40 s …
_BACKOFF_S = 1.0
NUMBERS = itertools.count(1)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Pod:
    """A pod with one container.

    Attributes:
        ends: exit code and start of each earlier run of the container.
        init_containers: their ``initContainerStatuses``.
    """

    name: str
    owner: dict[str, Any]
    labels: dict[str, str]
    spec: dict[str, Any]
    folder: Path
    program: Sequence[str]
    env: Mapping[str, str]
    ip: str
    uid: str = field(default_factory=lambda: f"uid-{next(NUMBERS)}")
    created_at: str = field(default_factory=_now)
    deleted_at: float | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: str = ""
    ends: list[tuple[int, str]] = field(default_factory=list)
    start_after: float = 0.0
    stuck: str = ""
    init_containers: Sequence[Mapping[str, Any]] = ()

    def log(self, run: int) -> Path:
        """The output of the container's run; 0 is the first."""
        return self.folder / f"{self.name}.{self.uid}.{run}.log"

    def tick(self) -> None:
        """Start the container, or notice that it has ended."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self.process = None
            self.ends.append((128 - code if code < 0 else code, self.started_at))
            late = len(self.ends) > 1
            self.start_after = time.monotonic() + late * _BACKOFF_S
        is_due = time.monotonic() >= self.start_after
        if self.process is None and self.deleted_at is None and not self.stuck and is_due:
            with self.log(len(self.ends)).open("wb") as log:
                self.process = subprocess.Popen(
                    self.program, cwd=HERE, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env=node_env({"SOURCE_IP": self.ip, **self.env}),
                )  # fmt: skip
            self.started_at = _now()
        if self.deleted_at is not None and self.process is not None:
            grace_s = self.spec["terminationGracePeriodSeconds"]
            if time.monotonic() > self.deleted_at + grace_s:
                self.process.kill()

    def delete(self) -> None:
        if self.deleted_at is None:
            self.deleted_at = time.monotonic()
            if self.process is not None:
                self.process.terminate()

    @property
    def is_gone(self) -> bool:
        return self.deleted_at is not None and self.process is None

    @property
    def is_ready(self) -> bool:
        return self.process is not None and b"ready " in self.log(len(self.ends)).read_bytes()

    def to_json(self) -> dict[str, Any]:
        state: dict[str, Any] = {"running": {"startedAt": self.started_at}}
        if self.stuck:
            state = {"waiting": {"reason": self.stuck, "message": SECRET}}
        elif self.process is None and len(self.ends) > 1:
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": SECRET}}
        elif self.process is None and self.ends:
            state = {"terminated": _terminated(*self.ends[-1])}
        elif self.process is None:
            state = {"waiting": {"reason": "ContainerCreating"}}
        earlier = self.ends[:-1] if "terminated" in state else self.ends
        last = {"terminated": _terminated(*earlier[-1])} if earlier else {}
        metadata: dict[str, Any] = {
            "name": self.name, "namespace": NAMESPACE, "uid": self.uid, "labels": self.labels,
            "creationTimestamp": self.created_at, "annotations": {"token": SECRET},
            "ownerReferences": [{**self.owner, "apiVersion": "apps/v1", "controller": True}],
        }  # fmt: skip
        if self.deleted_at is not None:
            metadata["deletionTimestamp"] = _now()
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": self.spec,
            "status": {
                "phase": "Pending" if self.stuck else "Running",
                "podIP": self.ip,
                "podIPs": [{"ip": self.ip}],
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": str(self.is_ready)},
                ],
                "initContainerStatuses": self.init_containers,
                "containerStatuses": [
                    {
                        "name": "worker",
                        "restartCount": len(self.ends) - (self.process is None and bool(self.ends)),
                        "ready": self.is_ready,
                        "state": state,
                        "lastState": last,
                    }
                ],
            },
        }


def _terminated(code: int, started_at: str) -> dict[str, Any]:
    return {
        "exitCode": code, "reason": "Error", "startedAt": started_at, "finishedAt": _now(),
        "message": SECRET,
    }  # fmt: skip


@dataclass
class Workload:
    """A deployment or stateful set, with the revisions of its template.

    Attributes:
        revisions: names of the revisions; the last one is the newest.
        stuck: why no container of a new pod starts, e.g. ``ImagePullBackOff``.
        progress: the reason in its condition ``Progressing``.
    """

    kind: str
    name: str
    spec: dict[str, Any]
    program: Sequence[str]
    env: Mapping[str, str]
    uid: str = field(default_factory=lambda: f"uid-{next(NUMBERS)}")
    generation: int = 1
    pods: list[Pod] = field(default_factory=list)
    revisions: list[dict[str, Any]] = field(default_factory=list)
    stuck: str = ""
    progress: str = ""

    @property
    def template_text(self) -> str:
        """The template, comparable."""
        return json.dumps(self.spec["template"], sort_keys=True)

    @property
    def replicas(self) -> int:
        return int(self.spec["replicas"])

    def change(self, template: Mapping[str, Any]) -> None:
        """Merge a part of a template into the template, as a strategic merge patch does."""
        own = json.loads(json.dumps(self.spec["template"]))
        own["metadata"]["annotations"] |= template.get("metadata", {}).get("annotations", {})
        for change in template.get("spec", {}).get("containers", ()):
            (container,) = (c for c in own["spec"]["containers"] if c["name"] == change["name"])
            container |= change
        self.spec = {**self.spec, "template": own}
        self.generation += 1

    def to_json(self) -> dict[str, Any]:
        newest = self.revisions[-1]["name"] if self.revisions else ""
        alive = [pod for pod in self.pods if pod.deleted_at is None]
        ready = sum(pod.is_ready for pod in alive)
        is_seen = self.revisions and self.revisions[-1]["template"] == self.template_text
        updated = sum(newest in pod.labels.values() for pod in alive) if is_seen else 0
        status: dict[str, Any] = {
            "observedGeneration": self.generation, "replicas": len(alive),
            "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
        }  # fmt: skip
        status |= {"updateRevision": newest} if self.kind == "StatefulSet" else {}
        status["conditions"] = [{"type": "Progressing", "reason": self.progress, "message": SECRET}]
        return {
            "apiVersion": "apps/v1",
            "kind": self.kind,
            "metadata": {
                "name": self.name, "namespace": NAMESPACE, "uid": self.uid, "resourceVersion": "1",
                "generation": self.generation, "annotations": {"token": SECRET},
            },
            "spec": self.spec,
            "status": status,
        }  # fmt: skip

    def replica_sets(self) -> list[dict[str, Any]]:
        return [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": revision["name"], "namespace": NAMESPACE, "uid": revision["uid"],
                    "labels": self.spec["selector"]["matchLabels"],
                    "annotations": {"deployment.kubernetes.io/revision": str(number)},
                    "ownerReferences": [{"kind": self.kind, "uid": self.uid, "controller": True}],
                },
                "spec": self.spec,
            }
            for number, revision in enumerate(self.revisions, 1)
            if self.kind == "Deployment"
        ]  # fmt: skip
