"""A deployment or stateful set as the API shows it, and the selector of its pods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qctl.errors import ManagerUnreachableError
from qctl.manage.kubernetes.kubectl import Kubectl
from qctl.manage.kubernetes.names import WorkloadName

_FIELDS = (
    "{{.metadata.namespace}}",
    "{{.metadata.uid}}",
    "{{.metadata.generation}}",
    "{{with .status.observedGeneration}}{{.}}{{end}}",
    "{{with .spec.replicas}}{{.}}{{end}}",
    "{{with .spec.paused}}{{.}}{{end}}",
    # How the pods are replaced: "strategy" of a deployment, "updateStrategy" of a stateful set.
    "{{with .spec.updateStrategy}}{{.type}}{{end}}",
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
_OPERATORS = {"In": "in", "NotIn": "notin"}


@dataclass(frozen=True, slots=True)
class Workload:
    """A deployment or stateful set.

    Args:
        name: with its namespace.
        uid: the id by which its pods or replica sets name their owner.
        is_seen: whether Kubernetes has acted on the last change of its specification.
        replicas: how many pods it wants.
        paused: whether its rollouts are paused.
        strategy: ``RollingUpdate`` or ``OnDelete`` for a stateful set; "" for a deployment.
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
        strategy, partition, deadline, revision, progress, selector = rest
        return Workload(
            name=WorkloadName(namespace, name.kind, name.name),
            uid=uid,
            is_seen=number(observed) >= number(generation),
            replicas=number(replicas),
            paused=paused == "true",
            strategy=strategy,
            partition=number(partition),
            deadline_s=float(deadline) if deadline else None,
            revision=revision,
            progress=progress,
            selector=_selector(selector),
        )
    except ValueError:
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
        ValueError: the text is no number.
    """
    return int(float(text)) if text else 0


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
