"""What is special about Kubernetes: several kinds of workloads, addresses, and broken rollouts."""

from __future__ import annotations

import pytest

from tests.labs.drains import Lab, is_alive, kill, write_config
from tests.labs.kubernetes_stub import Cluster
from tests.labs.managed_by_kubernetes import KubernetesApp

QUIET = {"STALLED_MS": 600_000}


def restart_words(app: KubernetesApp) -> tuple[str, ...]:
    return ("restart", app.target, "--output", "ndjson")


def test_a_stateful_set_and_a_crash_during_the_drain(lab: Lab, kubernetes: Cluster) -> None:
    """The worker that came back after its crash must be replaced, too."""
    app = KubernetesApp(lab, kubernetes, kind="StatefulSet")
    app.start(LOCK_MS=2000, **QUIET)
    held = lab.hold(2)
    drain = app.start_qctl(*restart_words(app))
    drain.await_step("waiting")
    (pid,) = app.pids()
    kill(pid)
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    report = done.report
    assert (report["outcome"], report["lost"], report["recovered"]) == ("restarted", 0, 2)
    assert report["workers"][0]["new"] == 1
    (pod,) = kubernetes.pods()
    assert pod.labels["controller-revision-hash"] == "app-2"
    lab.prove(held, again=held)


def test_workers_that_no_address_shows(lab: Lab, kubernetes: Cluster) -> None:
    """Behind NAT or a service mesh, every worker of the named queues must be replaced."""
    app = KubernetesApp(lab, kubernetes)
    app.start(2, SOURCE_IP="")
    before = app.pids()
    unclear = app.start_qctl(*restart_words(app)).finish()
    assert unclear.code == 2
    held = lab.hold(2)
    words = ("drain", "q", "--then-restart", "--target", app.target, "--output", "ndjson")
    drain = app.start_qctl(*words)
    assert "all workers of the queues" in drain.await_step("plan")["warnings"][0]
    drain.await_step("waiting")
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    assert done.report["workers"] == [
        {"queue": "q", "before": 2, "left": 0, "new": 2, "expected": 2}
    ]
    assert not any(map(is_alive, before))
    lab.prove(held)


def test_how_many_pods_are_replaced_at_once_is_up_to_the_deployment(
    lab: Lab, kubernetes: Cluster
) -> None:
    app = KubernetesApp(lab, kubernetes)
    app.start()
    before = app.pids()
    done = app.start_qctl(*restart_words(app), "--max-unavailable", "1").finish()
    assert (done.code, done.out) == (2, "")
    assert "spec.strategy.rollingUpdate.maxUnavailable" in done.err
    assert app.pids() == before


def test_an_image_that_cannot_be_pulled_ends_the_drain(lab: Lab, kubernetes: Cluster) -> None:
    app = KubernetesApp(lab, kubernetes)
    app.start()
    before = app.pids()
    kubernetes.workloads[0].stuck = "ImagePullBackOff"
    done = app.start_qctl(*restart_words(app)).finish()
    assert done.code == 1
    assert "ImagePullBackOff" in done.report["error"]
    assert done.report["resumed"] is True
    # Kubernetes keeps the old pod, which works on.
    assert app.pids() == before
    ids = lab.add(1)
    lab.wait_completed(ids)
    lab.prove(ids)


def test_the_jobs_of_another_app_are_not_taken_for_interrupted(
    lab: Lab, kubernetes: Cluster
) -> None:
    """After the timeout, only the job of the pod is put back; the other worker runs on."""
    app = KubernetesApp(lab, kubernetes)
    app.start(CONCURRENCY=1, LOCK_MS=2000, WORKER_NAME="pod", **QUIET)
    lab.app("other", LOCK_MS=2000, WORKER_NAME="other", **QUIET)
    held = lab.hold(2)
    (mine,) = [i for i in held if lab.rows(i)[0]["worker"] == "pod"]
    words = ("--timeout", "1s", "--on-timeout", "restart")
    drain = app.start_qctl(*restart_words(app), *words)
    drain.await_step("recovered", ids=[mine])
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    assert (done.report["lost"], done.report["recovered"]) == (0, 1)
    assert done.report["workers"][0]["before"] == 1
    lab.prove(held, again=[mine])


def test_only_a_named_cluster_is_asked(lab: Lab, kubernetes: Cluster) -> None:
    app = KubernetesApp(lab, kubernetes)
    app.start()
    write_config(lab.folder, '[kubernetes]\ncontext = "nowhere"\n')
    assert app.start_qctl("status", "--json").finish().json["processes"] == []
    assert kubernetes.requests == []
    unknown = app.start_qctl("impact", "--target", app.target).finish()
    assert (unknown.code, "nowhere" in unknown.err) == (6, True)
    words = ("impact", "--target", "kubernetes:deploy/app", "--kube-context", "stub", "--json")
    assert [p["target"] for p in app.start_qctl(*words).finish().json["processes"]] == [app.target]


def test_a_configured_target_keeps_its_name_and_queues(lab: Lab, kubernetes: Cluster) -> None:
    """Nothing shows whose workers these are, so the config must."""
    app = KubernetesApp(lab, kubernetes)
    app.start(SOURCE_IP="")
    short = "kubernetes:deploy/app"
    write_config(lab.folder, f'[targets.app]\nprocess = "{short}"\nqueues = ["q"]\n')
    impact = app.start_qctl("impact", "q", "--json").finish().json
    assert impact["target"] == short
    done = app.start_qctl("restart", "app", "--output", "ndjson").finish()
    assert (done.code, done.report["target"]) == (0, short), done.err
    doctor = app.start_qctl("doctor", "--json").finish().json
    assert doctor["examined"]["processes"] == 1
    named = ("restart", "kubernetes:shop/deploy/app", "--dry-run", "--json")
    assert app.start_qctl(*named).finish().code == 2
    write_config(lab.folder, f'[targets.app]\nprocess = "{app.target}"\nqueues = ["q"]\n')
    assert app.start_qctl(*named).finish().json["queues"] == ["q"]


@pytest.mark.parametrize("words", [("status", "--json"), ("doctor", "--json")])
def test_a_cluster_that_hangs_hides_only_its_own_pods(
    lab: Lab, kubernetes: Cluster, words: tuple[str, ...]
) -> None:
    app = KubernetesApp(lab, kubernetes)
    app.start()
    kubernetes.hangs.set()
    done = app.start_qctl(*words).finish()
    assert app.target in done.out + done.err
    assert "did not end within 2 s" in done.out + done.err


def test_roll_is_refused(lab: Lab, kubernetes: Cluster) -> None:
    app = KubernetesApp(lab, kubernetes)
    app.start()
    done = app.start_qctl("restart", app.target, "--strategy", "roll").finish()
    assert done.code == 5
    assert "replaced together" in done.err
