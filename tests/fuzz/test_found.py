"""Examples that the fuzzers of this folder found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from qctl.config.commands import AppCommands
from qctl.config.prefixes import parse_prefixes
from qctl.config.settings import load_settings
from qctl.durations import duration_s
from qctl.errors import ManagerUnreachableError, QctlError, UsageError
from qctl.manage.command import manager as command
from qctl.manage.docker.rows import to_container
from qctl.manage.kubernetes.manager import Kubernetes
from qctl.manage.pm2.rows import to_process
from qctl.manage.qctl.state import MasterFolder
from qctl.manage.systemd import units
from qctl.ops.jobs.model import Job
from qctl.ops.jobs.where import parse_where
from qctl.output.text import without_passwords
from qctl.runtime.processes import control
from qctl.runtime.processes.messages import decode
from qctl.wire.read.info import can_lose_writes
from qctl.wire.read.server import read_servers
from qctl.wire.schedulers.scheduling import next_iteration_call
from tests.fuzz.cases import POD, WORKLOAD, Master, Reader, Scripted, Writer, kubernetes_with
from tests.labs.build import Q
from tests.labs.hostile import DEEP


@pytest.mark.parametrize("cpu", [10**400, float("nan"), float("inf"), True, "5", -1])
def test_a_row_of_pm2_with_a_number_that_is_none(cpu: Any) -> None:
    env = {"autorestart": [], "pm_uptime": 10**400, "restart_time": "?"}
    row = {"pm_id": 1, "name": "w", "pid": 5, "monit": {"cpu": cpu}, "pm2_env": env}
    process = to_process(row)
    assert process is not None
    assert (process.cpu_percent, process.started_at_ms, process.restarts) == (None, None, None)


def test_a_deep_row_of_docker() -> None:
    with pytest.raises(ValueError, match="not a container"):
        to_container(DEEP)


@pytest.mark.parametrize("span", ["9" * 306 + "s", "9" * 400 + "y"])
def test_a_unit_of_systemd_with_long_numbers(span: str) -> None:
    unit = {"Id": "w.service", "MainPID": "9" * 5000, "TimeoutStopUSec": span}
    process = units.to_process("systemd", unit)
    assert (process.pid, process.restarts, process.kill_timeout_ms) == (None, None, 90_000)


def test_a_status_that_prints_a_long_number() -> None:
    (process,) = command._running(AppCommands("app", ("true",)), "9" * 5000)
    assert (process.status, process.pid) == ("online", None)


@pytest.mark.parametrize(
    ("workload", "pod"),
    [
        ({4: "1e999"}, {}),
        ({10: "nan"}, {}),
        ({13: "a Bad b,"}, {}),
        ({}, {9: "inf"}),
        ({}, {10: "x "}),
        ({}, {11: "(" * 9999}),
        ({}, {11: "[[1]]"}),
        ({}, {13: "main|1|today|||;"}),
        ({}, {13: "main|1e999||||;"}),
    ],
)
def test_answers_of_kubectl(workload: dict[int, str], pod: dict[int, str]) -> None:
    def text(row: tuple[str, ...], changes: dict[int, str]) -> str:
        return "\t".join(changes.get(at, word) for at, word in enumerate(row))

    with pytest.raises(ManagerUnreachableError, match="is not understood"):
        kubernetes_with(text(WORKLOAD, workload), text(POD, pod)).find("ns/deployment/w")
    assert isinstance(kubernetes_with(text(WORKLOAD, {}), text(POD, {})), Kubernetes)


@pytest.mark.parametrize(
    "change", [{"pid": "self"}, {"pid": True}, {"birth_s": [1]}, {"apps": [1]}, {"cwd": 5}]
)
def test_a_state_file_of_another_form(tmp_path: Path, change: dict[str, Any]) -> None:
    good = {
        **{"name": "w", "pid": 1, "birth_s": 1.0, "started_at_s": 1e9, "apps": ["a:b"]},
        **{"cwd": "/", "processes": 1, "grace_s": 30.0},
    }
    folder = MasterFolder(tmp_path, "w")
    folder.make()
    folder.restore(json.dumps(good | {"added": "by a newer version"}).encode())
    assert folder.read() is not None
    for text in (json.dumps(good | change), DEEP):
        folder.restore(text.encode())
        assert folder.read() is None
        assert folder.running() is None


@pytest.mark.parametrize("request_", [[], 5, {"do": []}, {"do": "replace", "slot": []}])
def test_a_request_of_another_form_is_answered(request_: Any) -> None:
    assert "error" in json.loads(answer(Master(), request_))


@pytest.mark.parametrize("slot", [0.0, False, "0"])
def test_only_the_number_of_a_process_names_it(slot: Any) -> None:
    master = Master()
    assert "error" in json.loads(answer(master, {"do": "replace", "slot": slot}))
    assert master.replaced == []
    answer(master, {"do": "replace", "slot": 0})
    assert master.replaced == master.slots


def answer(master: Master, request: Any) -> bytes:
    writer = Writer()
    line = json.dumps(request).encode()
    asyncio.run(control.answer(master, Reader(line), writer))  # type: ignore[arg-type]
    return writer.data


def test_deep_requests_and_messages_are_ignored() -> None:
    writer = Writer()
    asyncio.run(control.answer(Master(), Reader(DEEP.encode()), writer))  # type: ignore[arg-type]
    assert writer.data == b""
    assert decode(DEEP.encode()) == {}


def test_a_pattern_of_many_stars_takes_no_exponential_time() -> None:
    pattern = "a*" * 20 + "b"
    assert not parse_prefixes([pattern]).include("a" * 200, "q")
    assert parse_prefixes([pattern]).include("a" * 200 + "b", "q")
    assert parse_prefixes(["a*b?*c"]).include("a-b-bxc", "q")


def test_passwords_in_a_long_text_take_no_quadratic_time() -> None:
    text = "://a:" * 200_000
    assert without_passwords(text) == text
    masked = without_passwords("x=redis://u:p@q@h,b://u:r@h c://:s@h")
    assert masked == "x=redis://u:***@h c://:***@h"


@pytest.mark.parametrize(
    "info", ["connected_slaves:many\naof_enabled:0", "aof_enabled:0", "connected_slaves:0"]
)
def test_an_info_that_leaves_out_replicas_does_not_mean_that_there_are_none(info: str) -> None:
    client: Any = Scripted(lambda *_: info)
    assert can_lose_writes(client)
    client = Scripted(lambda *_: "connected_slaves:0\naof_enabled:0")
    assert not can_lose_writes(client)


def test_a_huge_number_of_replicas_takes_no_memory() -> None:
    info = "connected_slaves:9007199254740992\nslave0:ip=a,port=1,state=online,offset=5,lag=0"
    client: Any = Scripted(lambda name, *_: {"INFO": info, "TIME": ["1", "1"]}.get(name, []))
    (server,) = read_servers(client)
    assert [replica.address for replica in server.replicas] == ["a:1"]


@pytest.mark.parametrize("tz", [5, {"a": 1}, ["UTC"]])
def test_a_time_zone_that_is_no_text(tz: Any) -> None:
    opts = json.dumps({"repeat": {"pattern": "* * * * *", "tz": tz}})
    with pytest.raises(UsageError, match="no time zone"):
        next_iteration_call(Q, "x", {"rjk": "s", "opts": opts}, 1)


@pytest.mark.parametrize(
    "text", ["x = " + DEEP, '[redis]\npassword_file = "\\u0000"\nurl = "redis://h"']
)
def test_config_files_that_python_cannot_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "qctl" / "config.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(QctlError, match="cannot be read"):
        load_settings(environ={"XDG_CONFIG_HOME": str(tmp_path)}).full_url()


def test_many_spaces_in_an_expression_take_no_quadratic_time() -> None:
    assert parse_where(" " * 100_000 + "name = x")(Job(id="1", name="x", state="failed"))


def test_a_long_number_that_is_no_duration_takes_no_quadratic_time() -> None:
    assert duration_s("0" * 1_000_000 + ":") is None
    assert [duration_s(text) for text in ("5", "5.", ".5", "1.5 h", "5..", ".")] == [
        *(5, 5, 0.5, 5400),
        *(None, None),
    ]
