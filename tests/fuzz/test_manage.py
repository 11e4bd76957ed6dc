"""What process managers answer: each answer is understood, or refused with a message."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any
from xmlrpc import client as xmlrpc

from hypothesis import strategies as st

from qctl.config.commands import AppCommands
from qctl.errors import ManagerUnreachableError, QctlError, UsageError
from qctl.manage.command import manager as command
from qctl.manage.docker.rows import to_container
from qctl.manage.host import read_birth_s
from qctl.manage.kubernetes.manager import Kubernetes
from qctl.manage.last_words import error_first
from qctl.manage.pm2 import rows as pm2
from qctl.manage.protocol import ManagedProcess
from qctl.manage.qctl.manager import Qctl
from qctl.manage.qctl.state import MasterFolder
from qctl.manage.supervisord import rows as supervisord
from qctl.manage.supervisord import rpc
from qctl.manage.supervisord.address import Address, parse_url
from qctl.manage.systemd import units as systemd
from qctl.manage.tool import printable
from qctl.ops.masters.listing import list_masters
from qctl.ops.queues.status import ProcessStatus, StatusReport
from qctl.output.status import masters_text, status_text
from tests.fuzz.cases import POD, WORKLOAD, answering, kubernetes_with
from tests.labs.fuzzing import (
    ANY_TEXT,
    JSON,
    TEXT,
    assert_clean,
    assert_json,
    broken_rows,
    fuzz,
    mixed,
)
from tests.labs.reports import REDIS


def assert_shown(*processes: ManagedProcess) -> None:
    """The processes can be shown, and their numbers are numbers."""
    for process in processes:
        for number in (process.pid, process.restarts, process.rss_bytes, process.kill_timeout_ms):
            assert number is None or (type(number) is int and number >= 0)
        assert process.pid != 0
    rows = tuple(
        ProcessStatus(
            target=process.target,
            key=process.key,
            pid=process.pid,
            status=process.status,
            uptime_s=None,
            restarts=process.restarts,
            cpu_percent=process.cpu_percent,
            rss_bytes=process.rss_bytes,
            queues=(),
        )
        for process in processes
    )
    report = StatusReport(REDIS, (), rows)
    assert_clean(status_text(report, width=100, colour=False))
    assert_json(report)
    assert_json(processes)


PM2_ENV = {
    "status": "online", "pm_uptime": 1_700_000_000_000, "restart_time": 3, "exec_mode": "fork_mode",
    "kill_timeout": 1600, "created_at": 1_700_000_000_000, "min_uptime": 1000, "max_restarts": 16,
    "listen_timeout": 3000, "wait_ready": True, "pm_err_log_path": "/var/x.log", "namespace": "n",
    "pm_exec_path": "/app/worker.js", "pm_cwd": "/app", "autorestart": True, "stop_exit_codes": [],
    "treekill": True, "shutdown_with_message": False, "name": "w", "pm_id": 1,
}  # fmt: skip
PM2_ROW = {"pm_id": 1, "name": "worker", "pid": 4711, "monit": {"memory": 1, "cpu": 0.5}}


@fuzz(
    row=broken_rows(PM2_ROW, JSON),
    env=broken_rows(PM2_ENV, JSON) | JSON,
    monit=st.none() | st.fixed_dictionaries({"memory": JSON, "cpu": JSON}),
)
def test_rows_of_pm2(row: dict[str, Any], env: Any, monit: Any) -> None:
    row = {**row, "pm2_env": env, **({"monit": monit} if monit else {})}
    process = pm2.to_process(row)
    if process is not None:
        assert_shown(process)


DOCKER_ROW = {
    "id": "a" * 64, "name": "/w", "status": "running", "pid": 1, "started": "2026-01-01T00:00:00Z",
    "finished": "0001-01-01T00:00:00Z", "exit_code": 0, "restarts": 0, "policy": "always",
    "max_restarts": 0, "stop_signal": "SIGTERM", "stop_timeout": 10, "entrypoint": ["node"],
    "command": ["x.js"], "project": "p", "service": "s", "number": "1", "oneoff": "False",
    "addresses": ["10.0.0.1", ""],
}  # fmt: skip


@fuzz(line=mixed(broken_rows(DOCKER_ROW, JSON).map(json.dumps), ANY_TEXT))
def test_rows_of_docker(line: str) -> None:
    try:
        container = to_container(line)
    except ValueError:
        return
    assert_shown(container.process)


UNIT = {
    "Id": "worker@1.service", "LoadState": "loaded", "ActiveState": "active", "SubState": "running",
    "Type": "notify", "MainPID": "4194305", "NRestarts": "3", "Restart": "always",
    "RestartUSec": "100ms", "RestartPreventExitStatus": "", "KillMode": "mixed",
    "KillSignal": "15", "RestartKillSignal": "15", "SendSIGKILL": "yes",
    "TimeoutStopUSec": "1min 30s", "TimeoutStartUSec": "1min 30s",
    "ExecMainStartTimestamp": "Mon 2026-11-30 16:14:34 UTC", "ControlGroup": "/system.slice/w",
    "WorkingDirectory": "/app",
}  # fmt: skip
SPANS = st.builds("{}{}".format, st.from_regex(r"[0-9]{1,400}(\.[0-9]{1,9})?", fullmatch=True),
                  st.sampled_from(["us", "s", "min", "y", ""]))  # fmt: skip


@fuzz(unit=broken_rows(UNIT, ANY_TEXT | SPANS))
def test_units_of_systemd(unit: dict[str, str]) -> None:
    for properties in systemd.parse_units("\n".join(f"{k}={v}" for k, v in unit.items())):
        assert_shown(systemd.to_process("systemd", properties))
        systemd.why_not_started_again(properties)


CONFIG_ROW = {
    "group": "w", "name": "w", "stopsignal": 15, "stopwaitsecs": 10, "startsecs": 1,
    "killasgroup": True, "command": "node worker.js --port 1", "directory": "/app",
    "redirect_stderr": True,
}  # fmt: skip
PROCESS_ROW = {
    "group": "w", "name": "w", "pid": 4711, "start": 1_700_000_000, "stop": 0, "now": 1_700_000_001,
    "statename": "RUNNING", "stdout_logfile": "/x", "stderr_logfile": "/y",
}  # fmt: skip


@fuzz(config=broken_rows(CONFIG_ROW, JSON), row=broken_rows(PROCESS_ROW, JSON))
def test_rows_of_supervisord(config: dict[str, Any], row: dict[str, Any]) -> None:
    program = supervisord.to_program(config)
    found = [program] if program else []
    by_key = {each.key: each for each in found}
    process = supervisord.to_process(row, by_key, supervisord.targets_of(found))
    if process is not None:
        assert_shown(process)


XML = st.builds(
    "".join,
    st.lists(
        st.sampled_from(
            (
                *("<value>", "</value>", "<array>", "</array>", "<data>", "</data>", "<struct>"),
                *("</struct>", "<member>", "</member>", "<name>x</name>", "<int>1</int>", "<nil/>"),
                *("<params>", "</params>", "<param>", "</param>", "<methodResponse>", "<fault>"),
                *("</methodResponse>", "</fault>", "<double>1e999</double>", "<int>x</int>"),
                *("<boolean>2</boolean>", "<dateTime.iso8601>x</dateTime.iso8601>", "<base64>%"),
                *("</base64>", "<methodName>x</methodName>", "<i8>" + "9" * 5000 + "</i8>", "&lt;"),
                *("<value>" * 3000, "<int></int>", "<bigdecimal>x</bigdecimal>", "<!x>"),
            )
        )
        | TEXT,
        max_size=14,
    ),
)
HEADS = st.sampled_from(
    ("HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 401 No\r\n\r\n", "HTTP/1.1\r\n\r\n", "")
)


def answers_of(row: Any) -> str:
    try:
        return xmlrpc.dumps((row,), methodresponse=True, allow_none=True)
    except (TypeError, OverflowError, RecursionError, UnicodeError):
        return ""


@fuzz(head=HEADS, body=XML | JSON.map(answers_of))
def test_answers_of_supervisord(head: str, body: str) -> None:
    address = Address(Path("/run/x.sock"))
    try:
        answer = (head + body).encode(errors="replace")
        rpc._parse(rpc._body(answer, address), address, float("inf"))
    except rpc.FaultError as error:
        assert_clean(str(error))
    except ManagerUnreachableError:
        pass


@fuzz(
    url=st.builds("{}{}".format, st.sampled_from(("unix://", "http://", "http://a:b@")), TEXT)
    | st.from_regex(r"http://[^/]{0,9}@(127.0.0.1|\[::1\])(:\d{0,6})?/?", fullmatch=True)
)
def test_urls_of_supervisord(url: str) -> None:
    try:
        address = parse_url(url)
    except UsageError:
        return
    rpc._request(address, b"")


WORDS = TEXT | st.sampled_from(
    ("nan", "inf", "1e999", "-1", "<no value>", "25%", "a Bad b,", "[" * 500, "1|2|3|4|5|6;",
     "main|1|today|||;", "main|1e999||||;", "[[1]]", "[1]", "{}", "(" * 300, "9" * 5000, "?")
)  # fmt: skip


def changed(row: tuple[str, ...]) -> st.SearchStrategy[str]:
    places = st.dictionaries(st.integers(0, len(row)), WORDS, max_size=3)
    return places.map(
        lambda new: "\t".join(new.get(at, word) for at, word in enumerate((*row, "")))
    )


@fuzz(workload=changed(WORKLOAD), pods=st.lists(changed(POD), max_size=2))
def test_answers_of_kubectl(workload: str, pods: list[str]) -> None:
    def kubernetes() -> Kubernetes:
        return kubernetes_with(workload.removesuffix("\t"), "\n".join(pods).replace("\t\n", "\n"))

    try:
        assert_shown(*kubernetes().find("ns/deployment/w"))
        kubernetes().shortcoming("ns/deployment/w", ())
        kubernetes().restart_command("ns/deployment/w")
    except QctlError:
        pass


@fuzz(output=ANY_TEXT)
def test_outputs_of_a_status(output: str) -> None:
    assert_shown(*command._running(AppCommands("app", ("true",)), output))


@fuzz(lines=st.lists(ANY_TEXT | st.sampled_from(("Error: x", "    at f (x.js:1)", "^^^"))))
def test_logs(lines: list[str]) -> None:
    assert len(error_first(lines)) <= 10
    assert_clean(*map(printable, lines))


STATE = {
    "name": "w", "pid": 1, "birth_s": 1.0, "started_at_s": 1.0, "apps": ["app:worker"], "cwd": "/",
    "processes": 1, "grace_s": 30.0,
}  # fmt: skip
SLOT = {
    "slot": 0, "status": "online", "pid": 12, "started_at_ms": 1_700_000_000_000, "restarts": 0,
    "busy": 0, "done": 0, "rss_bytes": 1, "queues": ["q"],
}  # fmt: skip
ANSWER = {
    "pid": 1, "started_at_ms": 1, "ready": True, "stopping": False, "grace_s": 30, "leaving": [1],
}  # fmt: skip


@fuzz(text=broken_rows(STATE, JSON).map(json.dumps) | ANY_TEXT)
def test_state_files_of_masters(text: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = MasterFolder(Path(home), "w")
        folder.make()
        folder.restore(text.encode(errors="surrogatepass"))
        folder.running()
        Qctl(Path(home)).stopped()
        masters = list_masters(Path(home))
    assert_clean(masters_text(masters, 1_800_000_000, width=100, colour=False))
    assert_json(masters)


@fuzz(
    answer=st.builds(
        lambda answer, slots: {**answer, "slots": slots},
        broken_rows(ANSWER, JSON),
        st.lists(broken_rows(SLOT, JSON), max_size=2) | JSON,
    ).map(json.dumps)
    | ANY_TEXT
)
def test_answers_of_masters(answer: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = MasterFolder(Path(home), "w")
        folder.make()
        birth_s = read_birth_s(os.getpid())
        folder.restore(json.dumps({**STATE, "pid": os.getpid(), "birth_s": birth_s}).encode())
        data = answer.encode(errors="replace").replace(b"\n", b" ") + b"\n"
        with answering(folder.socket, data):
            masters = list_masters(Path(home))
            assert_shown(*Qctl(Path(home)).processes())
    assert_clean(masters_text(masters, 1_800_000_000, width=100, colour=False))
    assert_json(masters)
