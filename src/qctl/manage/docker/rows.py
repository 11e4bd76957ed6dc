"""Turns what ``docker inspect`` shows of a container into a ``ManagedProcess``.

``TEMPLATE`` picks the fields inside the ``docker`` command, so that the container's environment
never reaches qctl. The container's command reaches qctl, which keeps only the program's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qctl.manage.container_signals import has_init, signal_name, trouble_of
from qctl.manage.docker.cgroups import container_ids
from qctl.manage.numbers import whole_number
from qctl.manage.protocol import ManagedProcess

COMPOSE = "com.docker.compose."
_FIELDS = {
    "id": ".ID",
    "name": ".Name",
    "status": ".State.Status",
    "pid": ".State.Pid",
    "started": ".State.StartedAt",
    "finished": ".State.FinishedAt",
    "exit_code": ".State.ExitCode",
    "restarts": ".RestartCount",
    "policy": ".HostConfig.RestartPolicy.Name",
    "max_restarts": ".HostConfig.RestartPolicy.MaximumRetryCount",
    "stop_signal": ".Config.StopSignal",
    "stop_timeout": ".Config.StopTimeout",
    "entrypoint": ".Config.Entrypoint",
    "command": ".Config.Cmd",
    **{
        name: f'(index .Config.Labels "{COMPOSE}{label}")'
        for name, label in {
            "project": "project",
            "service": "service",
            "number": "container-number",
            "oneoff": "oneoff",
        }.items()
    },
}
_ADDRESSES = (
    "{{range .NetworkSettings.Networks}}{{json .IPAddress}},{{json .GlobalIPv6Address}},{{end}}"
)
# Prints one line for each container: a JSON object.
TEMPLATE = (
    "{"
    + ",".join(f'"{name}":{{{{json {field}}}}}' for name, field in _FIELDS.items())
    + f',"addresses":[{_ADDRESSES}""]}}'
)
# Docker's word → the word in ``ManagedProcess``. ``paused`` stays the same.
_STATUS = {
    "running": "online",
    "restarting": "launching",
    "removing": "stopping",
    "created": "stopped",
    "exited": "stopped",
    "dead": "stopped",
}
_ALIVE = frozenset({"running", "paused"})
_DEFAULT_GRACE_S = 10
# The grace of a container without a time limit (`--stop-timeout -1`).
_ENDLESS_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Container:
    """A container, and its place in a Compose service.

    Args:
        project, service: "" outside Compose, and for a container of ``docker compose run``.
        number: the container's number in its service; 0 outside Compose.
    """

    id: str
    project: str
    service: str
    number: int
    process: ManagedProcess


def to_container(line: str) -> Container:
    """The container that one line of output describes; the line's form is ``TEMPLATE``.

    Raises:
        ValueError: the line has another form. The error does not quote the line.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not _text(row.get("id")) or not _text(row.get("name")):
        raise ValueError("not a container in the form that was asked for")
    is_own = _text(row.get("oneoff")).lower() != "true"
    project, service = _text(row.get("project")), _text(row.get("service"))
    if not (project and service and is_own):
        project = service = ""
    number = whole_number(row.get("number")) or 0
    return Container(
        id=_text(row["id"]),
        project=project,
        service=service,
        number=number if project else 0,
        process=_to_process(row, target_of(_name(row), project, service)),
    )


def target_of(name: str, project: str, service: str) -> str:
    """``docker:PROJECT/SERVICE`` for a container of Compose, else ``docker:NAME``."""
    return f"docker:{project}/{service}" if project else f"docker:{name}"


def _to_process(row: Mapping[str, Any], target: str) -> ManagedProcess:
    status = _text(row.get("status"))
    is_alive = status in _ALIVE
    pid = _own_pid(row) if is_alive else None
    started_ms = _epoch_ms(row.get("started"))
    stop_signal = signal_name(_text(row.get("stop_signal")))
    command = [*_words(row.get("entrypoint")), *_words(row.get("command"))]
    name = _name(row)
    return ManagedProcess(
        target=target,
        key=name,
        name=name,
        namespace="",
        status="errored" if _has_given_up(row) else _STATUS.get(status, status or "unknown"),
        pid=pid,
        started_at_ms=started_ms if is_alive else None,
        restarts=_restarts(row),
        mode="fork",
        stop_signal=stop_signal,
        kill_timeout_ms=_grace_s(row) * 1000,
        ready_timeout_ms=0,
        cpu_percent=None,
        rss_bytes=None,
        last_start_ms=started_ms,
        starts_again=_text(row.get("policy")) in {"always", "unless-stopped"},
        addresses=_addresses(row) if is_alive else (),
        signal_trouble=trouble_of(command, stop_signal, pid),
        signals_children=has_init(command, pid),
    )


def _name(row: Mapping[str, Any]) -> str:
    return _text(row["name"]).removeprefix("/")


def _own_pid(row: Mapping[str, Any]) -> int | None:
    """The pid that the container's PID 1 has on this host; None if the container runs elsewhere.

    If the engine is remote or in a virtual machine, the pid that it reports is from there, and an
    unrelated process on this host may have the same pid.
    """
    pid = whole_number(row.get("pid"))
    return pid if pid and _text(row["id"]) in container_ids(pid) else None


def _has_given_up(row: Mapping[str, Any]) -> bool:
    """Whether Docker has restarted the container as often as its policy allows, without success."""
    limit = whole_number(row.get("max_restarts")) or 0
    return (
        row.get("status") == "exited"
        and row.get("policy") == "on-failure"
        and 0 < limit <= (whole_number(row.get("restarts")) or 0)
        and row.get("exit_code") != 0
    )


def _restarts(row: Mapping[str, Any]) -> int | None:
    count = whole_number(row.get("restarts"))
    # Docker does not count `docker restart`. But an end time shows that there was a restart.
    return 1 if count == 0 and _epoch_ms(row.get("finished")) is not None else count


def _grace_s(row: Mapping[str, Any]) -> int:
    limit_s = row.get("stop_timeout")
    if limit_s is None or isinstance(limit_s, bool) or not isinstance(limit_s, int):
        return _DEFAULT_GRACE_S
    return _ENDLESS_S if limit_s < 0 else min(limit_s, _ENDLESS_S)


def _addresses(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, _words(row.get("addresses")))))


def _epoch_ms(value: object) -> int | None:
    """A time that Docker shows, in epoch milliseconds; None for the year 1, which means no time."""
    try:
        at = datetime.fromisoformat(_text(value))
        return round(at.timestamp() * 1000) if at.year > 1 else None
    except (ValueError, OverflowError):
        return None


def _words(value: object) -> list[str]:
    return [_text(word) for word in value] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
