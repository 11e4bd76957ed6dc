"""worker.js in the pods of a Kubernetes stub, for the scenarios of all managers."""

from __future__ import annotations

from typing import Any

from tests.labs.drains import SECRET, Lab, Running, write_config
from tests.labs.kubernetes_pods import NAMESPACE
from tests.labs.kubernetes_stub import Cluster


class KubernetesApp:
    """The app as a deployment.

    Args:
        spec: more fields of the workload's ``spec``, and arguments of ``Cluster.create``.
    """

    target = f"kubernetes:{NAMESPACE}/deployment/app"
    # Pods run on other hosts.
    shows_pids = False

    def __init__(self, lab: Lab, cluster: Cluster, **spec: Any) -> None:
        self._lab = lab
        self.cluster = cluster
        self._spec = spec
        if spec.get("kind") == "StatefulSet":
            self.target = f"kubernetes:{NAMESPACE}/statefulset/app"
        # Redis' protected mode refuses 127.0.1.2, which is the address of a pod.
        lab.client.call("CONFIG", "SET", "protected-mode", "no")

    def start(self, instances: int = 1, **env: object) -> None:
        """See ``ManagedApp``."""
        write_config(self._lab.folder, f'[targets.app]\nprocess = "{self.target}"\n')
        own = {
            "REDIS_PORT": self._lab.server.port,
            "CONCURRENCY": 5,
            "SECRET_TOKEN": SECRET,
            **env,
        }
        self.cluster.create("app", own, replicas=instances, **self._spec)
        for queue in str(env.get("QUEUES", "q")).split(","):
            self._lab.wait_workers(queue, instances)

    def pids(self) -> list[int]:
        """See ``ManagedApp``."""
        return [pod.process.pid for pod in self.cluster.pods() if pod.process is not None]

    def start_qctl(self, *words: str) -> Running:
        """See ``ManagedApp``."""
        return self._lab.start(*words, env=self.cluster.env)

    def kill_qctl(self, running: Running) -> None:
        """See ``ManagedApp``."""
        running.kill()
