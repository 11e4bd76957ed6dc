"""Which processes a name means, and what of a row is kept. Rows are made by hand here."""

from __future__ import annotations

from typing import Any

import pytest

from qctl.errors import NotFoundError, RefusedError
from qctl.manage.pm2.find import select
from qctl.manage.pm2.rows import to_process
from qctl.manage.protocol import ManagedProcess
from tests.labs.pm2_rows import HIDDEN, processes, row


def keys(found: Any) -> list[str]:
    return [process.key for process in found]


def test_a_row_without_settings_has_pm2s_defaults() -> None:
    (process,) = processes(row(0, "worker"))
    assert process.kill_timeout_ms == 1600
    assert process.ready_timeout_ms == 0
    assert process.stop_signal == "SIGINT"
    assert (process.pid, process.restarts, process.mode) == (1000, 3, "fork")
    assert (process.cpu_percent, process.rss_bytes) == (1.5, 2048)
    assert process.started_at_ms == 1_700_000_000_000


def test_a_row_with_settings() -> None:
    settings = {"kill_timeout": "30000", "wait_ready": True, "shutdown_with_message": True}
    (process,) = processes(row(0, "worker", exec_mode="cluster_mode", **settings))
    assert process.kill_timeout_ms == 30_000
    assert process.ready_timeout_ms == 3000
    assert process.stop_signal == "message"
    assert process.mode == "cluster"
    (process,) = processes(row(0, "worker", wait_ready=True, listen_timeout=500, kill_timeout=0))
    assert process.ready_timeout_ms == 500
    assert process.kill_timeout_ms == 1600


def test_a_start_without_a_command() -> None:
    """PM2 starts a process within ``kill_timeout`` and a moment after a command."""
    for after_ms, came_back in ((0, False), (14_000, False), (16_000, True)):
        (found,) = processes(
            row(0, "app", created_at=1_700_000_000_000 - after_ms, kill_timeout=5000)
        )
        assert found.came_back is came_back
    # As after PM2 gave the app up.
    (unknown,) = processes(row(0, "app", created_at=None))
    assert not unknown.came_back


def test_secrets_of_a_row_are_not_kept() -> None:
    (process,) = processes(row(0, "worker"))
    fields = {name: getattr(process, name) for name in ManagedProcess.__dataclass_fields__}
    assert HIDDEN not in repr(fields)


@pytest.mark.parametrize(
    "odd",
    [None, 5, "row", [], {}, {"pm_id": 1}, {"pm_id": "_old_1", "name": "a"}, {"name": "a"}],
)
def test_what_is_not_a_row_is_left_out(odd: Any) -> None:
    assert to_process(odd) is None


def test_a_row_with_fields_missing_or_odd() -> None:
    for env in ({}, None, {"pm_uptime": "soon", "restart_time": float("inf"), "status": 7}):
        process = to_process({"pm_id": 4, "name": "a", "pid": None, "pm2_env": env})
        assert process is not None
        assert (process.key, process.pid, process.namespace) == ("4", None, "default")


def test_a_module_of_pm2_is_left_out() -> None:
    assert processes(row(0, "pm2-logrotate", pmx_module=True)) == []


def test_a_name_means_all_its_instances() -> None:
    found = processes(row(0, "worker"), row(1, "api"), row(2, "worker"))
    assert keys(select(found, "worker")) == ["0", "2"]


def test_a_number_means_one_process_and_is_its_target() -> None:
    found = select(processes(row(0, "worker"), row(1, "worker")), "1")
    assert keys(found) == ["1"]
    assert [process.target for process in found] == ["pm2:1"]


def test_a_number_that_is_a_name_means_that_app() -> None:
    assert keys(select(processes(row(0, "worker"), row(1, "7")), "7")) == ["1"]
    # Its own number is no second meaning.
    assert keys(select(processes(row(0, "0"), row(1, "worker")), "0")) == ["0"]


def test_a_number_that_is_a_name_and_anothers_pm_id_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        select(processes(row(0, "worker"), row(1, "0")), "0")
    assert "pm2:worker" in caught.value.hint
    assert "pm2:1" in caught.value.hint


@pytest.mark.parametrize(
    "other",
    [
        {"pm_exec_path": "/srv/other/worker.js"},
        {"namespace": "jobs"},
        {"pm_cwd": "/srv/other"},
    ],
)
def test_one_name_for_two_apps_is_refused(other: dict[str, str]) -> None:
    found = processes(row(3, "worker"), row(5, "worker", **other))
    with pytest.raises(RefusedError) as caught:
        select(found, "worker")
    assert "pm2:3" in caught.value.why
    assert "pm2:5" in caught.value.why
    assert "pm2:3" in caught.value.hint
    assert keys(select(found, "5")) == ["5"]


def test_a_namespace_is_not_an_app() -> None:
    found = processes(row(0, "a", namespace="jobs"), row(1, "b", namespace="jobs"), row(2, "c"))
    with pytest.raises(NotFoundError, match="namespace") as caught:
        select(found, "jobs")
    assert "pm2:a" in caught.value.why
    assert "pm2:b" in caught.value.why
    assert "pm2:c" not in caught.value.why


def test_an_app_with_the_name_of_a_namespace_is_the_app_alone() -> None:
    found = processes(row(0, "jobs"), row(1, "b", namespace="jobs"))
    assert keys(select(found, "jobs")) == ["0"]


@pytest.mark.parametrize("name", ["wroker", "all", "", "9", "/wor/", "Worker"])
def test_an_unknown_name_lists_the_targets(name: str) -> None:
    found = processes(row(0, "worker"), row(1, "worker"), row(2, "api"))
    with pytest.raises(NotFoundError) as caught:
        select(found, name)
    assert caught.value.why == "targets: pm2:worker (2 processes), pm2:api (1 process)"


def test_the_closest_name_is_suggested() -> None:
    with pytest.raises(NotFoundError) as caught:
        select(processes(row(0, "worker"), row(1, "api")), "wroker")
    assert caught.value.hint == "did you mean pm2:worker?"


def test_nothing_managed_at_all() -> None:
    with pytest.raises(NotFoundError) as caught:
        select([], "worker")
    assert "no app at all" in caught.value.why


def test_a_long_list_of_targets_is_cut() -> None:
    with pytest.raises(NotFoundError) as caught:
        select(processes(*(row(i, f"app{i}") for i in range(50))), "zzz")
    assert caught.value.why.endswith(", 30 more")


def test_names_stay_as_they_are() -> None:
    name = "[red]\x1b[31m../;$(id)\n"
    (process,) = select(processes(row(0, name)), name)
    assert process.name == name
