"""The pods of a workload, and what each of them shows about its containers."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from qctl.manage.container_signals import trouble_of
from qctl.manage.kubernetes.kubectl import Kubectl
from qctl.manage.kubernetes.workload import Workload, not_understood, number
from qctl.manage.protocol import ManagedProcess

_POD_FIELDS = (
    "{{.metadata.name}}",
    "{{range .metadata.ownerReferences}}{{if .controller}}{{.uid}}{{end}}{{end}}",
    '{{with .metadata.labels}}{{with index . "controller-revision-hash"}}{{.}}{{end}}{{end}}',
    "{{with .metadata.deletionTimestamp}}{{.}}{{end}}",
    "{{with .status.phase}}{{.}}{{end}}",
    '{{range .status.conditions}}{{if eq .type "Ready"}}{{.status}}{{end}}{{end}}',
    # Why no node takes the pod, e.g. "Unschedulable".
    '{{range .status.conditions}}{{if eq .type "PodScheduled"}}{{with .reason}}{{.}}{{end}}{{end}}'
    "{{end}}",
    # With host networking, the pod has the node's address, and so do other pods.
    "{{if not .spec.hostNetwork}}{{range .status.podIPs}}{{.ip}} {{end}}{{end}}",
    "{{with .spec.terminationGracePeriodSeconds}}{{.}}{{end}}",
    # For each hook that runs before SIGTERM: its seconds if it is a sleep, else "?".
    "{{range .spec.containers}}{{with .lifecycle}}{{with .preStop}}{{with .sleep}}{{.seconds}}"
    "{{else}}?{{end}} {{end}}{{end}}{{end}}",
    # The commands that the pod, not an image, sets for its containers: lists in Python's syntax.
    '[{{range .spec.containers}}{{if .command}}[{{range .command}}{{printf "%q," .}}{{end}}'
    '{{range .args}}{{printf "%q," .}}{{end}}],{{end}}{{end}}]',
    '{{range .status.initContainerStatuses}}{{template "container" .}}{{end}}',
    '{{range .status.containerStatuses}}{{template "container" .}}{{end}}',
)
_CONTAINER_FIELDS = (
    "{{.name}}",
    "{{with .restartCount}}{{.}}{{end}}",
    "{{with .state}}{{with .running}}{{.startedAt}}{{end}}{{end}}",
    "{{with .state}}{{with .waiting}}{{with .reason}}{{.}}{{end}}{{end}}{{end}}",
    '{{with .state}}{{with .terminated}}{{template "end" .}}{{end}}{{end}}',
    '{{with .lastState}}{{with .terminated}}{{template "end" .}}{{end}}{{end}}',
)
_TEMPLATE = (
    '{{define "end"}}{{.exitCode}} {{with .reason}}{{.}}{{end}} {{with .startedAt}}{{.}}{{end}}'
    '{{end}}{{define "container"}}' + "|".join(_CONTAINER_FIELDS) + ";{{end}}{{range .items}}"
    # For a deployment, the list also contains its replica sets, because these own the pods.
    '{{if eq .kind "ReplicaSet"}}{{"set\\t"}}{{.metadata.uid}}{{"\\t"}}'
    "{{range .metadata.ownerReferences}}{{if .controller}}{{.uid}}{{end}}{{end}}"
    '{{"\\t"}}{{with .metadata.annotations}}'
    '{{with index . "deployment.kubernetes.io/revision"}}{{.}}{{end}}{{end}}'
    '{{else}}{{"pod\\t"}}' + '{{"\\t"}}'.join(_POD_FIELDS) + '{{end}}{{"\\n"}}{{end}}'
)
# Kubernetes retries after these errors, but fails again until somebody changes something.
_STUCK = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
# The rollout of a stateful set may take the grace period plus _START_S for each of its pods, one
# after another; but at least _MIN_ROLLOUT_S in all, Kubernetes' default limit for a deployment.
_MIN_ROLLOUT_S, _START_S = 600.0, 60.0


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a container's run: exit code, reason such as ``OOMKilled``, and start time."""

    code: int
    reason: str
    started_at: str


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod.

    Args:
        waiting: why it does not run, e.g. ``CrashLoopBackOff``; "" if it is not waiting.
        end: how it ended, if it does not run now.
        last_end: how it ended before it was started again.
    """

    name: str
    restarts: int
    started_at: str
    waiting: str
    end: _End | None
    last_end: _End | None

    @property
    def crashes(self) -> int:
        """How often the container has ended."""
        return self.restarts + (self.end is not None or self.waiting == "CrashLoopBackOff")

    def trouble(self) -> str:
        """Why the container does not run, and how it last ended; "" if it runs."""
        if self.started_at:
            return ""
        end = self.end or self.last_end
        ended = f"it ended with code {end.code}" if end else ""
        if end and end.reason not in {"", "Error", "Completed"}:
            ended += f" ({end.reason})"
        return ", ".join(part for part in (self.waiting, ended) if part)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has not finished.

    Args:
        is_new: whether it belongs to the newest revision of the workload.
        is_leaving: whether it was asked to stop.
        unscheduled: why no node takes it; "" if one does.
        commands: the commands that the pod sets for its containers; those of images are left out.
        containers: the init containers that have not succeeded, and all ordinary containers.
    """

    name: str
    is_new: bool
    is_leaving: bool
    is_ready: bool
    phase: str
    unscheduled: str
    addresses: tuple[str, ...]
    grace_s: float
    hooks: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...] = field(repr=False)
    containers: tuple[Container, ...]

    @property
    def stuck(self) -> str:
        """The reason why a container cannot run until somebody changes something; else ""."""
        return next((c.waiting for c in self.containers if c.waiting in _STUCK), "")

    def trouble(self) -> str:
        """Why the pod is not ready, as far as its status shows."""
        reasons = [reason for each in self.containers if (reason := each.trouble())]
        return reasons[0] if reasons else self.unscheduled or f"{self.phase}, not ready"

    def to_process(self, workload: Workload) -> ManagedProcess:
        """The pod as a process of the workload."""
        name = workload.name
        status = "online" if self.is_ready else "launching"
        if self.is_leaving:
            status = "stopping"
        elif self.stuck:
            status = "errored"
        starts = [c.started_at for c in self.containers if c.started_at]
        ends = [end.started_at for c in self.containers for end in (c.end, c.last_end) if end]
        last_start_ms = max(map(_epoch_ms, filter(None, [*starts, *ends])), default=None)
        sleep_s = max((int(hook) for hook in self.hooks if hook != "?"), default=0)
        return ManagedProcess(
            target=name.target,
            key=f"{name.namespace}/{self.name}",
            name=name.short,
            namespace=name.namespace,
            status=status,
            pid=None,
            started_at_ms=last_start_ms if starts and status != "errored" else None,
            restarts=sum(container.restarts for container in self.containers),
            mode="",
            stop_signal="SIGTERM",
            # The grace period includes the time that the hook takes, which is usually unknown.
            kill_timeout_ms=None
            if "?" in self.hooks
            else int(max(self.grace_s - sleep_s, 0) * 1000),
            ready_timeout_ms=rollout_timeout_ms(workload, self.grace_s),
            cpu_percent=None,
            rss_bytes=None,
            last_start_ms=last_start_ms,
            addresses=self.addresses,
            stays_served=workload.stays_ready,
            signal_trouble=next(
                (t for words in self.commands if (t := trouble_of(words, "SIGTERM", None))), ""
            ),
        )


def rollout_timeout_ms(workload: Workload, grace_s: float) -> int:
    """How long a rollout may take before it counts as failed."""
    if workload.deadline_s is not None:
        return int(workload.deadline_s * 1000)
    # Kubernetes sets no limit for a stateful set, whose pods are replaced one after another.
    return int(max(_MIN_ROLLOUT_S, workload.replicas * (grace_s + _START_S)) * 1000)


def read_pods(kubectl: Kubectl, workload: Workload) -> list[Pod]:
    """The pods that the workload owns, without those that have finished.

    Compares the owners, because the selectors of two workloads may overlap.

    Raises:
        ManagerUnreachableError: as ``Kubectl.print``, or the answer is not understood.
    """
    kinds = "pods" if workload.name.kind == "statefulset" else "replicasets.apps,pods"
    rows = kubectl.print([*workload.name.options, kinds, "-l", workload.selector], _TEMPLATE)
    try:
        revisions = {
            uid: number(revision)
            for kind, uid, owner, revision in (row for row in rows if row[0] == "set")
            if kind and owner == workload.uid
        }
        newest = max(revisions, key=lambda uid: revisions[uid], default="")
        return [
            _pod(row[1:], is_new=row[2] == newest or row[3] == workload.revision != "")
            for row in rows
            if row[0] == "pod"
            and row[2] in {*revisions, workload.uid}
            and row[5] not in {"Succeeded", "Failed"}
        ]
    except (ValueError, IndexError, OverflowError):
        raise not_understood(workload.name.target) from None


def _pod(fields: Sequence[str], *, is_new: bool) -> Pod:
    name, _, _, deleted, phase, ready, unscheduled, ips, grace, hooks, commands, *states = fields
    init, main = map(_containers, states)
    return Pod(
        name=name,
        is_new=is_new,
        is_leaving=bool(deleted),
        is_ready=ready == "True",
        phase=phase,
        unscheduled=unscheduled,
        addresses=tuple(ips.split()),
        grace_s=number(grace),
        hooks=tuple(_hook(text) for text in hooks.split()),
        commands=_commands(commands),
        # Leave out an init container that has succeeded: its end would count as a crash.
        containers=(*(c for c in init if c.end is None or c.end.code), *main),
    )


def _hook(text: str) -> str:
    return text if text == "?" else str(number(text))


def _commands(text: str) -> tuple[tuple[str, ...], ...]:
    try:
        found = literal_eval(text)
        if all(isinstance(word, str) for words in found for word in words):
            return tuple(tuple(words) for words in found)
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise ValueError("not lists of words")


def _containers(text: str) -> list[Container]:
    return [_container(state.split("|")) for state in text.split(";") if state]


def _container(fields: Sequence[str]) -> Container:
    name, restarts, started_at, waiting, end, last_end = fields
    return Container(name, number(restarts), _time(started_at), waiting, _end(end), _end(last_end))


def _end(text: str) -> _End | None:
    if not text:
        return None
    code, reason, started_at = text.split(" ")
    return _End(number(code), reason, _time(started_at))


def _time(text: str) -> str:
    """The text, checked to be a time; "" for no time."""
    if text:
        _epoch_ms(text)
    return text


def _epoch_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
