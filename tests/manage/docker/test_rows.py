"""Containers as `docker inspect` shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.manage.docker.rows import Container, to_container
from tests.labs.docker_rows import ROW


def row(**changes: Any) -> Container:
    return to_container(json.dumps({**ROW, **changes}))


def test_a_container_of_compose() -> None:
    container = row()
    process = container.process
    assert (container.project, container.service, container.number) == ("shop", "worker", 2)
    assert (process.target, process.key, process.status) == (
        "docker:shop/worker",
        "shop-worker-2",
        "online",
    )
    assert (process.stop_signal, process.kill_timeout_ms, process.starts_again) == (
        "SIGTERM",
        10_000,
        True,
    )
    assert process.started_at_ms == process.last_start_ms == 1_796_055_275_128
    assert (process.addresses, process.restarts) == (("172.18.0.3",), 0)


def test_a_container_of_its_own_and_one_that_compose_has_run_once() -> None:
    assert row(project="", service="").process.target == "docker:shop-worker-2"
    assert row(oneoff="True").process.target == "docker:shop-worker-2"


def test_a_pid_of_another_host() -> None:
    """Pid 1 exists here, but it belongs to no container of that id."""
    assert row(pid=1).process.pid is None
    assert row(pid=1).process.runs


def test_its_own_stop_signal_and_grace() -> None:
    process = row(stop_signal="INT", stop_timeout=0).process
    assert (process.stop_signal, process.kill_timeout_ms) == ("SIGINT", 0)
    assert row(stop_timeout=-1).process.kill_timeout_ms == 24 * 3_600_000


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"status": "restarting"}, "launching"),
        ({"status": "exited"}, "stopped"),
        ({"status": "created"}, "stopped"),
        ({"status": "paused"}, "paused"),
        ({"status": "removing"}, "stopping"),
        ({"status": "exited", "policy": "on-failure", "max_restarts": 3, "restarts": 3,
          "exit_code": 1}, "errored"),
        ({"status": "exited", "policy": "on-failure", "max_restarts": 3, "restarts": 2,
          "exit_code": 1}, "stopped"),
        ({"status": "exited", "policy": "on-failure", "max_restarts": 3, "restarts": 3,
          "exit_code": 0}, "stopped"),
        ({"status": ""}, "unknown"),
    ],
)  # fmt: skip
def test_statuses(changes: dict[str, Any], status: str) -> None:
    assert row(**changes).process.status == status


def test_a_container_that_has_ended() -> None:
    process = row(status="exited", policy="on-failure").process
    assert (process.started_at_ms, process.addresses, process.starts_again) == (None, (), False)
    assert process.last_start_ms is not None
    assert not process.runs


def test_a_restart_that_docker_does_not_count() -> None:
    """RestartCount is 0 after `docker restart`."""
    assert row(finished="2026-11-30T16:14:33Z").process.restarts == 1
    assert row(finished="2026-11-30T16:14:33Z", restarts=4).process.restarts == 4


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*ROW.keys() - {"id", "name"}]), VALUES))
def test_any_value_of_any_field(changes: dict[str, Any]) -> None:
    assert row(**changes).process.kill_timeout_ms >= 0


@given(st.text() | VALUES.map(json.dumps))
def test_any_other_text_is_refused_and_not_quoted(line: str) -> None:
    with pytest.raises(ValueError, match="not a container in the form that was asked"):
        to_container(line)
