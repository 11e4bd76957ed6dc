"""The names of workloads: ``[NAMESPACE/]KIND/NAME``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qctl.errors import UsageError

_KINDS = {
    **dict.fromkeys(("deployment", "deployments", "deploy", "deployments.apps"), "deployment"),
    **dict.fromkeys(("statefulset", "statefulsets", "sts", "statefulsets.apps"), "statefulset"),
}
# No name may begin with a dash: kubectl would take it for an option.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_MIN_PARTS, _MAX_PARTS = 2, 3


@dataclass(frozen=True, slots=True)
class WorkloadName:
    """The name of a deployment or stateful set.

    Args:
        namespace: "" for the namespace of the kubeconfig's context.
        kind: ``deployment`` or ``statefulset``.
    """

    namespace: str
    kind: str
    name: str

    @property
    def short(self) -> str:
        """The name as in kubectl's own commands: ``deployment/emails``."""
        return f"{self.kind}/{self.name}"

    @property
    def target(self) -> str:
        """``kubernetes:default/deployment/emails``."""
        return f"kubernetes:{f'{self.namespace}/' if self.namespace else ''}{self.short}"

    @property
    def options(self) -> tuple[str, ...]:
        """kubectl's options that choose the namespace."""
        return ("-n", self.namespace) if self.namespace else ()


def parse_name(text: str) -> WorkloadName:
    """The workload that ``[NAMESPACE/]KIND/NAME`` names.

    Raises:
        UsageError: the text has another form, or qctl does not know the kind.
    """
    parts = text.split("/")
    if not _MIN_PARTS <= len(parts) <= _MAX_PARTS:
        raise _malformed(text, "the kind is missing" if len(parts) < _MIN_PARTS else "")
    namespace, kind, name = parts if len(parts) == _MAX_PARTS else ("", *parts)
    if kind.lower() not in _KINDS:
        raise _malformed(text, f"qctl restarts deployments and stateful sets, not {kind!r}")
    for part in (name, *parts[: len(parts) - 2]):
        if not _NAME.fullmatch(part):
            raise _malformed(text, f"{part!r} is not a valid Kubernetes name")
    return WorkloadName(namespace, _KINDS[kind.lower()], name)


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(
        f"kubernetes:{text} names no deployment or stateful set",
        why=why,
        hint="kubernetes:deployment/NAME or kubernetes:NAMESPACE/statefulset/NAME",
    )
