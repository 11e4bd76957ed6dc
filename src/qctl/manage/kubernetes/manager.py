"""Kubernetes as a process manager: the pods of a deployment or stateful set, replaced together."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from qctl.errors import FailedError, ManagerUnreachableError, NotFoundError, RefusedError
from qctl.manage.kubernetes.kubectl import Kubectl, MissingError
from qctl.manage.kubernetes.names import WorkloadName, parse_name
from qctl.manage.kubernetes.pods import Pod, read_pods
from qctl.manage.kubernetes.workload import Workload, read_names, read_workload
from qctl.manage.last_words import error_first
from qctl.manage.missing import listed
from qctl.manage.protocol import ManagedProcess
from qctl.plurals import counted
from qctl.similar import similar_names

TIMEOUT_S = 10.0
# A rollout has failed if a container of a new pod has ended this many times.
_MAX_CRASHES = 2
_LOG_LINES = 50


class Kubernetes:
    """The workloads of one cluster, as ``kubectl`` reaches it.

    Args:
        context: a context of the kubeconfig; "" for its current context.
        timeout_s: how long each call of kubectl may take.
    """

    kind = "kubernetes"

    def __init__(self, context: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        self._kubectl = Kubectl(context, timeout_s)

    def processes(self) -> Sequence[ManagedProcess]:
        """Empty: qctl reads only the workloads that a target names, never a whole cluster."""
        return ()

    def targets(self) -> Sequence[str]:
        """Empty, as in ``processes``."""
        return ()

    def find(self, name: str) -> Sequence[ManagedProcess]:
        """The pods of the workload ``[NAMESPACE/]KIND/NAME``; see ``Manager``.

        A workload without pods is one entry: ``stopped`` if it wants no pods, else ``launching``.
        """
        workload = self._workload(parse_name(name))
        pods = read_pods(self._kubectl, workload)
        return [pod.to_process(workload) for pod in pods] or [_without_pods(workload)]

    def restart_command(self, name: str) -> tuple[str, ...]:
        """See ``Rollout``."""
        workload = self._workload(parse_name(name))
        self._require_replaceable(workload)
        options = workload.name.options
        return self._kubectl.command(*options, "rollout", "restart", workload.name.short)

    def _require_replaceable(self, workload: Workload) -> None:
        """Raise a RefusedError if a rollout would not replace all pods."""
        name, why, hint = workload.name, "", ""
        if workload.paused:
            why = "its rollouts are paused"
            hint = self._shown(*name.options, "rollout", "resume", name.short)
        elif workload.strategy == "OnDelete":
            why = "its update strategy is OnDelete, so a rollout replaces no pod"
            hint = "set the type of its updateStrategy to RollingUpdate"
        elif workload.partition:
            number = workload.partition
            why = f"its partition is {number}: a rollout replaces no pod with a number below that"
            hint = "set the partition of its updateStrategy to 0"
        if why:
            raise RefusedError(f"{name.target} cannot be restarted", why=why, hint=hint)

    def shortcoming(self, name: str, before: Sequence[ManagedProcess]) -> str:
        """See ``Rollout``."""
        try:
            workload = self._workload(parse_name(name))
            pods = read_pods(self._kubectl, workload)
        except ManagerUnreachableError as error:
            return f"it is unknown how far the rollout is: {error.what} ({error.why})"
        # In a stateful set, new pods have the names of the old ones, so the names show nothing.
        gone = {each.key for each in before} if workload.name.kind == "deployment" else set()
        old = [p for p in pods if not p.is_new or f"{workload.name.namespace}/{p.name}" in gone]
        new = [p for p in pods if p not in old and not p.is_leaving]
        if workload.is_seen:
            self._raise_failure(workload, new)
        ready = sum(pod.is_ready for pod in new)
        lacks = []
        if not workload.is_seen:
            lacks.append("Kubernetes has not acted on the restart yet")
        if ready < workload.replicas:
            lacks.append(f"{ready} of {counted(workload.replicas, 'new pod')} are ready")
            lacks += [f"{pod.name}: {pod.trouble()}" for pod in new if not pod.is_ready]
        if old:
            lacks.append(f"{counted(len(old), 'old pod is', 'old pods are')} still there")
            # A stateful set does not replace a pod that cannot run: somebody must delete it.
            lacks += [f"{pod.name}: {pod.trouble()}" for pod in old if pod.stuck]
        return "; ".join(lacks)

    def _raise_failure(self, workload: Workload, new: Sequence[Pod]) -> None:
        """Raise a FailedError if the rollout cannot succeed; ``new`` are the pods that it made."""
        name = workload.name
        failed = next(filter(_has_failed, new), None)
        if failed is None and workload.progress != "ProgressDeadlineExceeded":
            return
        what = f"the rollout of {name.target} made no progress for {workload.deadline_s or 0:g} s"
        why: list[str] = []
        about = [name.short]
        if failed is not None:
            words = self._last_words(name.namespace, failed)
            crashes = any(container.crashes for container in failed.containers)
            does = "keeps crashing" if crashes else "does not start"
            what = f"a new pod of {name.target} {does}"
            why = [*words, f"{failed.name}: {failed.trouble()}"]
            about = ["pod", failed.name]
        raise FailedError(
            what,
            why="\n".join(
                [
                    *why,
                    "Kubernetes goes on with the rollout: when a new pod is ready, an old one is "
                    "stopped, even if it runs jobs",
                ]
            ),
            hint=f"see {self._shown(*name.options, 'describe', *about)}; fix the app, then restart "
            "it again",
        )

    def _shown(self, *words: str) -> str:
        """A command of kubectl for the same context, for the operator to type."""
        return shlex.join(self._kubectl.command(*words))

    def _last_words(self, namespace: str, pod: Pod) -> list[str]:
        """The end of the log of the container that has crashed, the error first."""
        crashed = next((each for each in pod.containers if each.crashes), None)
        if crashed is None:
            return []
        words = ["-n", namespace, "logs", pod.name, "-c", crashed.name, f"--tail={_LOG_LINES}"]
        # If the container runs again, its error is in the log of its previous run.
        previous = ["--previous"] * bool(crashed.started_at)
        try:
            return error_first(self._kubectl.run(*words, *previous).splitlines())
        except (ManagerUnreachableError, MissingError):
            return []

    def _workload(self, name: WorkloadName) -> Workload:
        try:
            return read_workload(self._kubectl, name)
        except MissingError as missing:
            raise self._not_found(name, str(missing)) from None

    def _not_found(self, name: WorkloadName, message: str) -> NotFoundError:
        try:
            targets = [each.target for each in read_names(self._kubectl, name.namespace)]
        except (ManagerUnreachableError, MissingError):
            # The user may be allowed to read only this one workload.
            return NotFoundError(f"there is no {name.target}", why=message, hint="kubectl get all")
        names = {target.rpartition("/")[2]: target for target in targets}
        near = similar_names(name.name, list(names))
        return NotFoundError(
            f"there is no {name.target}",
            why=f"targets in this namespace: {listed(targets) or 'none'}",
            hint=f"did you mean {names[near[0]]}?"
            if near
            else "name one of these, or the namespace of the workload",
        )


def _has_failed(pod: Pod) -> bool:
    return bool(pod.stuck) or any(each.crashes >= _MAX_CRASHES for each in pod.containers)


def _without_pods(workload: Workload) -> ManagedProcess:
    return ManagedProcess(
        target=workload.name.target,
        key=f"{workload.name.namespace}/{workload.name.name}",
        name=workload.name.short,
        namespace=workload.name.namespace,
        status="launching" if workload.replicas else "stopped",
        pid=None,
        started_at_ms=None,
        restarts=0,
        mode="",
        stop_signal="SIGTERM",
        kill_timeout_ms=0,
        ready_timeout_ms=0,
        cpu_percent=None,
        rss_bytes=None,
    )
