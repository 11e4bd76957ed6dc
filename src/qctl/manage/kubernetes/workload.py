"""A deployment or stateful set as the API shows it, and the selector of its pods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.errors import ManagerUnreachableError
from qctl.manage.kubernetes.kubectl import Kubectl
from qctl.manage.kubernetes.names import WorkloadName
from qctl.manage.numbers import MAX_NUMBER

_FIELDS = (
    "{{.metadata.namespace}}",
    "{{.metadata.uid}}",
    "{{.metadata.generation}}",
    "{{with .status.observedGeneration}}{{.}}{{end}}",
    "{{with .spec.replicas}}{{.}}{{end}}",
    "{{with .spec.paused}}{{.}}{{end}}",
    # How the pods are replaced: "strategy" of a deployment, "updateStrategy" of a stateful set.
    "{{with .spec.strategy}}{{.type}}{{end}}{{with .spec.updateStrategy}}{{.type}}{{end}}",
    # During a rollout: how many pods may be missing, and how many extra pods may exist. Each is a
    # number or a percentage. No "with" tests the value itself: for 0, it would print nothing.
    "{{with .spec.strategy}}{{with .rollingUpdate}}{{.maxUnavailable}}{{end}}{{end}}"
    "{{with .spec.updateStrategy}}{{with .rollingUpdate}}{{.maxUnavailable}}{{end}}{{end}}",
    "{{with .spec.strategy}}{{with .rollingUpdate}}{{.maxSurge}}{{end}}{{end}}",
    "{{with .spec.updateStrategy}}{{with .rollingUpdate}}{{with .partition}}{{.}}{{end}}{{end}}"
    "{{end}}",
    "{{with .spec.progressDeadlineSeconds}}{{.}}{{end}}",
    "{{with .status.updateRevision}}{{.}}{{end}}",
    '{{range .status.conditions}}{{if eq .type "Progressing"}}{{with .reason}}{{.}}{{end}}{{end}}'
    "{{end}}",
    "{{range $key, $value := .spec.selector.matchLabels}}{{$key}}={{$value}},{{end}}"
    "{{range .spec.selector.matchExpressions}}{{.key}} {{.operator}}{{range .values}} {{.}}{{end}},"
    "{{end}}",
)
_TEMPLATE = '{{"\\t"}}'.join(_FIELDS)
# What a Go template prints for a field that is not there.
_NO_VALUE = "<no value>"
_OPERATORS = {"In": "in", "NotIn": "notin"}


@dataclass(frozen=True, slots=True)
class Workload:
    """A deployment or stateful set.

    Args:
        name: with its namespace.
        uid: its id. Its pods or replica sets have this id as the id of their owner.
        is_seen: whether Kubernetes has acted on the last change of its specification.
        replicas: how many pods it wants.
        paused: whether its rollouts are paused.
        strategy: ``RollingUpdate``, or ``Recreate`` (a deployment), or ``OnDelete`` (a stateful
            set); "" if unknown.
        stays_ready: whether a rollout keeps at least one pod ready; False if that is unknown.
        partition: a stateful set replaces only pods whose number is at least this.
        deadline_s: a deployment's rollout has failed if it makes no progress for this time.
        revision: the label ``controller-revision-hash`` that a stateful set's new pods have.
        progress: the reason that its condition ``Progressing`` has, e.g.
            ``ProgressDeadlineExceeded``.
        selector: as ``kubectl -l`` takes it.
    """

    name: WorkloadName
    uid: str
    is_seen: bool
    replicas: int
    paused: bool
    strategy: str
    stays_ready: bool
    partition: int
    deadline_s: float | None
    revision: str
    progress: str
    selector: str


def read_workload(kubectl: Kubectl, name: WorkloadName) -> Workload:
    """The workload of this name.

    Raises:
        MissingError: there is no such workload.
        ManagerUnreachableError: as ``Kubectl.print``, or the answer is not understood.
    """
    rows = kubectl.print([*name.options, f"{name.kind}s.apps", name.name], _TEMPLATE)
    try:
        (row,) = rows
        namespace, uid, generation, observed, replicas, paused, *rest = row
        strategy, unavailable, surge, partition, deadline, revision, progress, selector = rest
        count = number(replicas)
        missing = _max_missing(name.kind, count, unavailable, surge)
        return Workload(
            name=WorkloadName(namespace, name.kind, name.name),
            uid=uid,
            is_seen=number(observed) >= number(generation),
            replicas=count,
            paused=paused == "true",
            strategy=strategy,
            stays_ready=strategy == "RollingUpdate" and missing is not None and missing < count,
            partition=number(partition),
            deadline_s=number(deadline) if deadline else None,
            revision=revision,
            progress=progress,
            selector=_selector(selector),
        )
    except (ValueError, KeyError):
        raise not_understood(name.target) from None


def read_names(kubectl: Kubectl, namespace: str) -> list[WorkloadName]:
    """The deployments and stateful sets of a namespace; "" is the namespace of the context."""
    options = ("-n", namespace) if namespace else ()
    template = (
        '{{range .items}}{{.kind}}{{"\\t"}}{{.metadata.namespace}}{{"\\t"}}{{.metadata.name}}'
        '{{"\\n"}}{{end}}'
    )
    rows = kubectl.print([*options, "deployments.apps,statefulsets.apps"], template)
    return [WorkloadName(row[1], row[0].lower(), row[2]) for row in rows if len(row) == len("knn")]


def number(text: str) -> int:
    """A whole number as a Go template prints it (``1e+06`` for a million); 0 for an empty text.

    Raises:
        ValueError: the text is no number from 0 to ``MAX_NUMBER``.
    """
    value = float(text or 0)
    if not 0 <= value <= MAX_NUMBER:
        raise ValueError("out of range")
    return int(value)


def _max_missing(kind: str, replicas: int, unavailable: str, surge: str) -> int | None:
    """How many pods a rolling update may stop before new ones are ready; None if unknown."""
    if kind == "statefulset":
        # Without a ``maxUnavailable``, one pod is replaced after another.
        is_set = unavailable not in {"", _NO_VALUE}
        return _pods(unavailable, replicas, round_up=True) if is_set else 1
    missing = _pods(unavailable, replicas, round_up=False)
    # If maxUnavailable and maxSurge are both 0, no pod could be replaced, so Kubernetes takes 1 for
    # maxUnavailable.
    may_add = bool(_pods(surge, replicas, round_up=True))
    return 1 if missing == 0 and not may_add else missing


def _pods(text: str, replicas: int, *, round_up: bool) -> int | None:
    """The number of pods that ``2`` or ``25%`` (of the replicas) means; None for other texts."""
    if text.endswith("%") and text[:-1].isdecimal():
        return (int(text[:-1]) * replicas + 99 * round_up) // 100
    return number(text) if text[:1].isdecimal() else None


def not_understood(target: str) -> ManagerUnreachableError:
    """The error for an answer of kubectl that has another form than expected."""
    return ManagerUnreachableError(
        f"the answer of kubectl about {target} is not understood",
        why="its fields are not as expected",
        hint="check that `kubectl version` works",
    )


def _selector(text: str) -> str:
    """``app=x,tier In a b,`` → ``app=x,tier in (a,b)``."""
    return ",".join(_requirement(part.split(" ")) for part in text.split(",") if part)


def _requirement(words: Sequence[str]) -> str:
    key, *more = words
    if not more:
        return key
    operator, *values = more
    if operator == "Exists":
        return key
    if operator == "DoesNotExist":
        return f"!{key}"
    return f"{key} {_OPERATORS[operator]} ({','.join(values)})"
