"""For messages: the name of each process manager, and the manager's own commands to recommend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """The words for one kind of manager.

    Args:
        title: the manager's name in a sentence.
        listing: the command that lists the manager's processes.
        show, log, restart, start: commands for one process, with ``{key}``, ``{name}`` and
            ``{namespace}`` to fill in (see ``ManagedProcess``); ``{last}`` stands for the part of
            the key after its last slash.
        grace: how to make the manager wait longer between the stop signal and SIGKILL; ``{s}``
            stands for seconds, ``{ms}`` for milliseconds.
        errored: what the status ``errored`` means.
        spares_children: how to say that ``ManagedProcess.tree_kill`` is False.
        tree_kill: what the operator must change to make ``ManagedProcess.tree_kill`` True.
        max_unavailable: where the operator sets how many processes are replaced at a time; only
            for a manager that is a ``Rollout``.
    """

    title: str
    listing: str
    show: str
    log: str
    restart: str
    start: str
    grace: str
    errored: str = "its manager has given it up (errored)"
    spares_children: str = "treekill is off"
    tree_kill: str = "remove treekill: false from the app's ecosystem file"
    max_unavailable: str = ""


def _systemd(title: str, systemctl: str, journalctl: str) -> Kind:
    return Kind(
        title=title,
        listing=f"{systemctl} list-units --type=service",
        show=f"{systemctl} status {{name}}",
        log=f"{journalctl} {{name}}",
        restart=f"{systemctl} restart {{name}}",
        start=f"{systemctl} start {{name}}",
        grace="set TimeoutStopSec={s} or more in the unit",
        errored="it has failed, and systemd does not start it again (errored)",
        spares_children="systemd stops only its main process",
        tree_kill="set KillMode=control-group in the unit",
    )


KINDS: Mapping[str, Kind] = {
    "pm2": Kind(
        title="PM2",
        listing="pm2 ls",
        show="pm2 describe {key}",
        log="pm2 logs {key}",
        restart="pm2 restart {key}",
        start="pm2 start {key}",
        grace="set kill_timeout to {ms} ms or more in the app's ecosystem file",
        errored="PM2 has given it up (errored)",
    ),
    "docker": Kind(
        title="Docker",
        listing="docker ps",
        show="docker inspect {key}",
        log="docker logs --tail 100 {key}",
        restart="docker restart {key}",
        start="docker start {key}",
        grace="set stop_grace_period to {s}s or more in compose.yaml, or create the container with "
        "--stop-timeout {s}",
        errored="Docker has restarted it as often as its restart policy allows (errored)",
    ),
    "qctl": Kind(
        title="qctl",
        listing="qctl worker list",
        show="qctl worker list",
        log="qctl worker logs {name}",
        restart="qctl worker restart {name}",
        start="qctl worker start {name} APP",
        grace="start it with --grace {s}s or more",
    ),
    "supervisord": Kind(
        title="supervisord",
        listing="supervisorctl status",
        show="supervisorctl status {key}",
        log="supervisorctl tail {key} stderr",
        restart="supervisorctl restart {key}",
        start="supervisorctl start {key}",
        grace="set stopwaitsecs to {s} or more in the program's section of supervisord's config",
        errored="it failed too often to start, and supervisord has given it up (FATAL)",
        spares_children="supervisord stops only the process itself",
        tree_kill="set stopasgroup=true in the program's section of supervisord's config",
    ),
    "command": Kind(
        title="command",
        listing="qctl status",
        show="the process manager that runs {name}",
        log="the log of {name}",
        restart="qctl restart command:{name}",
        start="start {name} as you usually do",
        grace="make its own manager wait {s} s or more; set the same grace in [commands.{name}]",
        max_unavailable="the command decides: see restart in its [commands.NAME]",
    ),
    "systemd": _systemd("systemd", "systemctl", "journalctl -u"),
    "systemd-user": _systemd("the user's systemd", "systemctl --user", "journalctl --user-unit"),
    "kubernetes": Kind(
        title="Kubernetes",
        listing="kubectl get deployments,statefulsets",
        show="kubectl{context} -n {namespace} describe pod {last}",
        log="kubectl{context} -n {namespace} logs --previous {last}",
        restart="kubectl{context} -n {namespace} rollout restart {name}",
        start="kubectl{context} -n {namespace} scale {name} --replicas=1",
        grace="set terminationGracePeriodSeconds to {s} or more in the pod template",
        errored="a container cannot run, and Kubernetes keeps trying (errored)",
        max_unavailable="set maxUnavailable in the workload itself: for a deployment, "
        "spec.strategy.rollingUpdate.maxUnavailable",
    ),
}


def words_of(kind: str) -> Kind:
    """The words for a kind of manager. Other kinds, which only tests use, get PM2's words."""
    return KINDS.get(kind, KINDS["pm2"])
