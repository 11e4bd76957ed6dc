"""The manager with the real ``kubectl`` and a stub of the API."""

from collections.abc import Sequence
from typing import Any

import pytest

from qctl.errors import FailedError, ManagerUnreachableError, NotFoundError, RefusedError
from qctl.manage.kubernetes.manager import Kubernetes
from qctl.manage.protocol import ManagedProcess
from tests.labs.drains import SECRET
from tests.labs.kubernetes_stub import Cluster, open_cluster
from tests.labs.servers import wait_until

# A program that is ready at once and needs no Redis.
IDLE = ("sh", "-c", "echo 'ready '; exec sleep 60")
TARGET = "kubernetes:shop/deployment/emails"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    with open_cluster() as found:
        for name, value in found.env.items():
            monkeypatch.setenv(name, value)
        yield found


def start(cluster: Cluster, *, ready: bool = True, **options: Any) -> Any:
    """A workload named emails, with its pods."""
    workload = cluster.create("emails", {"SECRET_TOKEN": SECRET}, program=IDLE, **options)
    wait_until(
        lambda: (
            len(workload.pods) == workload.replicas
            and all(pod.is_ready or not ready for pod in workload.pods)
        ),
        "the pods to be there",
    )
    return workload


def find(name: str = "deploy/emails") -> Sequence[ManagedProcess]:
    found = Kubernetes().find(name)
    assert SECRET not in repr(found)
    return found


def test_the_pods_of_a_deployment(cluster: Cluster) -> None:
    workload = start(cluster, replicas=2, pod={"terminationGracePeriodSeconds": 45})
    # The selector of another workload may choose the same pods.
    cluster.create("other", program=IDLE, labels={"app": "emails"})
    found = find()
    assert {p.key for p in found} == {f"shop/{pod.name}" for pod in workload.pods}
    assert {p.addresses for p in found} == {(pod.ip,) for pod in workload.pods}
    one = found[0]
    assert (one.target, one.status, one.pid, one.runs) == (TARGET, "online", None, True)
    assert (one.stop_signal, one.kill_timeout_ms, one.restarts) == ("SIGTERM", 45_000, 0)
    assert one.signal_trouble == ""
    assert find("shop/deployment/emails") == found


@pytest.mark.parametrize(
    ("hook", "kill_timeout_ms"),
    [({"sleep": {"seconds": 1}}, 1000), ({"exec": {"command": ["x", SECRET]}}, None)],
)
def test_a_hook_makes_the_grace_shorter_or_unknown(
    cluster: Cluster, hook: dict[str, Any], kill_timeout_ms: int | None
) -> None:
    start(cluster, container={"lifecycle": {"preStop": hook}})
    assert [p.kill_timeout_ms for p in find()] == [kill_timeout_ms]


def test_a_command_that_does_not_pass_the_signal_on(cluster: Cluster) -> None:
    words = {"command": ["/bin/sh", "-c"], "args": [f"node 'worker.js' --token \"{SECRET}\"; true"]}
    start(cluster, container=words, pod={"hostNetwork": True})
    (one,) = find()
    assert "sh -c" in one.signal_trouble
    # Other pods of the node have the same address.
    assert one.addresses == ()


def test_one_that_is_scaled_to_zero(cluster: Cluster) -> None:
    start(cluster, replicas=0)
    (one,) = find()
    assert (one.target, one.status, one.runs) == (TARGET, "stopped", False)


def test_an_image_that_cannot_be_pulled(cluster: Cluster) -> None:
    workload = start(cluster)
    before = find()
    workload.stuck = "ImagePullBackOff"
    workload.spec["template"]["metadata"]["annotations"]["new"] = "1"
    wait_until(lambda: len(workload.pods) == 2, "a new pod")
    with pytest.raises(FailedError) as caught:
        Kubernetes().shortcoming("shop/deployment/emails", before)
    text = "\n".join(caught.value.lines)
    assert "does not start" in caught.value.what
    assert "ImagePullBackOff" in text
    assert SECRET not in text
    assert {p.status for p in find()} == {"online", "errored"}


def test_only_an_init_container_that_fails_is_a_crash(cluster: Cluster) -> None:
    workload = start(cluster)
    (pod,) = workload.pods
    end = {"terminated": {"exitCode": 0, "reason": "Completed", "message": SECRET}}
    done = {"name": "init", "restartCount": 1, "state": end, "lastState": end}
    pod.init_containers = [done]
    assert [p.status for p in find()] == ["online"]
    assert Kubernetes().shortcoming("shop/deployment/emails", ()) == ""
    crashing = {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    pod.init_containers = [{**done, "state": crashing, "lastState": last}]
    with pytest.raises(FailedError) as caught:
        Kubernetes().shortcoming("shop/deployment/emails", ())
    assert "CrashLoopBackOff, it ended with code 137 (OOMKilled)" in caught.value.why


def test_a_rollout_without_progress(cluster: Cluster) -> None:
    workload = start(cluster)
    workload.progress = "ProgressDeadlineExceeded"
    with pytest.raises(FailedError, match="no progress for 600 s"):
        Kubernetes().shortcoming("shop/deployment/emails", find())


def test_old_pods_are_a_shortcoming(cluster: Cluster) -> None:
    start(cluster)
    assert "1 old pod is" in Kubernetes().shortcoming("shop/deployment/emails", find())
    assert Kubernetes().shortcoming("shop/deployment/emails", ()) == ""
    cluster.refuses = (500, "InternalError", "etcdserver: request timed out")
    assert "etcdserver" in Kubernetes().shortcoming("shop/deployment/emails", ())


@pytest.mark.parametrize(
    ("kind", "spec", "why"),
    [
        ("Deployment", {"paused": True}, "paused"),
        ("StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        (
            "StatefulSet",
            {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}},
            "partition is 2",
        ),
    ],
)
def test_what_a_rollout_would_not_replace(
    cluster: Cluster, kind: str, spec: dict[str, Any], why: str
) -> None:
    cluster.create("emails", program=IDLE, kind=kind, replicas=0, **spec)
    with pytest.raises(RefusedError) as caught:
        Kubernetes().restart_command(f"shop/{kind.lower()}/emails")
    assert why in caught.value.why
    assert caught.value.hint
    assert not any(request.startswith("PATCH") for request in cluster.requests)


def _rolling(unavailable: object, surge: object) -> dict[str, Any]:
    limits = {"maxUnavailable": unavailable, "maxSurge": surge}
    return {"strategy": {"type": "RollingUpdate", "rollingUpdate": limits}}


@pytest.mark.parametrize(
    ("kind", "replicas", "spec", "expected"),
    [
        ("Deployment", 1, _rolling(0, 1), True),
        # 25% of 1 is 0 for maxUnavailable, and 1 for maxSurge.
        ("Deployment", 1, _rolling("25%", "25%"), True),
        ("Deployment", 2, _rolling(1, 0), True),
        ("Deployment", 2, _rolling(2, 0), False),
        ("Deployment", 2, _rolling("100%", 1), False),
        # 0 and 0 mean that one pod is stopped first.
        ("Deployment", 1, _rolling("25%", 0), False),
        ("Deployment", 2, {"strategy": {"type": "Recreate"}}, False),
        ("Deployment", 2, {}, False),
        ("StatefulSet", 1, {}, False),
        ("StatefulSet", 2, {}, True),
        (
            "StatefulSet",
            2,
            {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}},
            False,
        ),
        ("StatefulSet", 2, {"updateStrategy": {"type": "OnDelete"}}, False),
    ],
)
def test_whether_a_rollout_keeps_a_pod_ready(
    cluster: Cluster, kind: str, replicas: int, spec: dict[str, Any], expected: bool
) -> None:
    start(cluster, ready=False, kind=kind, replicas=replicas, **spec)
    assert {p.stays_served for p in find(f"{kind.lower()}/emails")} == {expected}


def test_the_context_is_in_each_command(cluster: Cluster) -> None:
    cluster.write_kubeconfig("prod")
    start(cluster, ready=False)
    command = Kubernetes("prod").restart_command("deploy/emails")
    assert command == (
        *("kubectl", "--context=prod", "-n", "shop", "rollout", "restart", "deployment/emails"),
    )
    with pytest.raises(ManagerUnreachableError, match="has no context 'stub'"):
        Kubernetes("stub").find("deploy/emails")


def test_no_such_workload(cluster: Cluster) -> None:
    start(cluster, ready=False)
    with pytest.raises(NotFoundError) as caught:
        find("deploy/email")
    assert TARGET in caught.value.why
    assert caught.value.hint == f"did you mean {TARGET}?"
    with pytest.raises(NotFoundError):
        find("nowhere/deploy/emails")
