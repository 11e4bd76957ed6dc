"""What ``systemctl show`` prints, as a process; names, time spans and control groups."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.errors import NotFoundError
from qctl.manage.systemd import units
from qctl.manage.systemd.groups import service_of
from qctl.manage.systemd.names import family_of, unit_pattern
from qctl.manage.systemd.spans import parse_span_s, parse_time_ms
from qctl.manage.systemd.units import (
    PROPERTIES,
    parse_units,
    to_process,
    why_not_restartable,
    why_not_started_again,
)

DAY_MS = 86_400_000
PARTS = {"y": 31_557_600, "month": 2_629_800, "w": 604_800, "d": 86_400, "h": 3600, "min": 60}
UNIT = {
    "Id": "emails@2.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Type": "exec",
    "MainPID": "4194305",
    "NRestarts": "3",
    "Restart": "always",
    "RestartUSec": "100ms",
    "RestartPreventExitStatus": "",
    "KillMode": "control-group",
    "KillSignal": "15",
    "RestartKillSignal": "15",
    "SendSIGKILL": "yes",
    "TimeoutStopUSec": "1min 30s",
    "TimeoutStartUSec": "20s",
    "ExecMainStartTimestamp": "Mon 2026-11-30 16:14:34 UTC",
    "ControlGroup": "/system.slice/system-emails.slice/emails@2.service",
    "WorkingDirectory": "!-/srv/app",
}


def process(**changes: str):
    return to_process("systemd", {**UNIT, **changes})


# Time spans


@given(st.dictionaries(st.sampled_from(list(PARTS)), st.integers(1, 99), min_size=1))
def test_a_span_is_the_sum_of_its_parts(parts: dict[str, int]) -> None:
    text = " ".join(f"{parts[unit]}{unit}" for unit in PARTS if unit in parts)
    assert parse_span_s(text) == sum(count * PARTS[unit] for unit, count in parts.items())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("500ms", 0.5), ("250us", 0.00025), ("infinity", math.inf),
        ("1d 2h 3min 4.005006s", 93_784.005006), ("2y 1month 1w", 66_349_800),
    ],
)  # fmt: skip
def test_spans_as_systemd_prints_them(text: str, seconds: float) -> None:
    assert parse_span_s(text) == pytest.approx(seconds)


@given(st.text(max_size=30))
def test_other_text_is_no_span_and_no_time(text: str) -> None:
    span = parse_span_s(text)
    assert span is None or span >= 0
    assert parse_time_ms(text) is None


@pytest.mark.parametrize("text", ["", "[not set]", "90", "1 min", "1min  30s", "-1s", "1fortnight"])
def test_what_is_no_span(text: str) -> None:
    assert parse_span_s(text) is None


# Names


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("emails", "emails.service"), ("emails.service", "emails.service"),
        ("emails@2", "emails@2.service"), ("emails@", "emails@*.service"),
        ("emails@*.service", "emails@*.service"), ("a.b-c", "a.b-c.service"),
        ("mail\\x2dout@*", "mail\\x2dout@*.service"),
    ],
)  # fmt: skip
def test_names_of_services(name: str, unit: str) -> None:
    assert unit_pattern(name) == unit


@pytest.mark.parametrize(
    "name", ["emails.timer", "app.slice", "emai*", "*", "@1", "a b", "a/b", "e@1*", "e@*.servicex"]
)
def test_what_is_no_service(name: str) -> None:
    with pytest.raises(NotFoundError, match=r"service"):
        unit_pattern(name)


def test_instances_share_a_target() -> None:
    assert process().target == "systemd:emails@*.service"
    assert family_of("emails@.service") == "emails@*.service"
    assert process(Id="emails.service").target == "systemd:emails.service"


def test_a_unit_of_the_user_has_another_key_than_one_of_the_system() -> None:
    assert process().key == "emails@2.service"
    mine = to_process("systemd-user", UNIT)
    assert (mine.target, mine.key) == ("systemd-user:emails@*.service", "user/emails@2.service")


# Control groups


@pytest.mark.parametrize(
    ("group", "system", "user"),
    [
        ("/system.slice/emails.service", "emails.service", None),
        ("/system.slice/system-emails.slice/emails@1.service", "emails@1.service", None),
        ("/user.slice/user-7.slice/user@7.service/app.slice/e.service", "user@7.service",
         "e.service"),
        ("/user.slice/user-7.slice/session-3.scope", None, None),
        ("/system.slice/docker-ab.scope", None, None),
        ("/system.slice/docker.service/docker/ab", None, None),
        ("/system.slice/pm2-deploy.service", None, None),
        ("/system.slice/supervisor.service", None, None),
        ("/system.slice/cron.service", None, None),
        ("/", None, None),
    ],
)  # fmt: skip
def test_the_service_of_a_control_group(group: str, system: str | None, user: str | None) -> None:
    """The manager of user 7 is dropped later: its own group is another one."""
    assert service_of(group, user=False) == system
    assert service_of(group, user=True) == user


# Fields


def test_the_units_of_one_answer() -> None:
    text = "Id=a.service\nMainPID=1\n\nId=b.service\nMainPID=0\nRestart=a=b\n"
    first, second = parse_units(text)
    assert first == {"Id": "a.service", "MainPID": "1"}
    assert second["Restart"] == "a=b"


@given(st.text())
def test_nonsense_is_understood_as_little_as_possible(text: str) -> None:
    for unit in parse_units(text):
        to_process("systemd", unit)
        why_not_started_again(unit)


def test_no_property_with_secrets_is_asked_for() -> None:
    assert not [name for name in PROPERTIES if name.startswith(("Env", "Exec", "Pass", "SetCred"))
                and name != "ExecMainStartTimestamp"]  # fmt: skip


def test_what_is_read() -> None:
    found = process()
    assert (found.status, found.pid, found.restarts) == ("online", 4194305, 3)
    assert found.started_at_ms == found.last_start_ms == 1_796_055_274_000
    assert (found.stop_signal, found.kill_timeout_ms) == ("SIGTERM", 90_000)
    assert (found.ready_timeout_ms, found.cwd) == (0, "/srv/app")
    assert found.starts_again
    assert found.tree_kill
    assert found.signal_trouble == ""


@pytest.mark.parametrize(
    ("state", "sub", "status"),
    [
        ("active", "running", "online"), ("active", "exited", "stopped"),
        ("reloading", "reload", "online"), ("activating", "start", "launching"),
        ("activating", "auto-restart", "launching"), ("deactivating", "stop-sigterm", "stopping"),
        ("failed", "failed", "errored"), ("inactive", "dead", "stopped"),
        ("maintenance", "x", "maintenance"), ("", "", "unknown"),
    ],
)  # fmt: skip
def test_states(state: str, sub: str, status: str) -> None:
    assert process(ActiveState=state, SubState=sub).status == status


def test_a_service_without_a_process() -> None:
    found = process(MainPID="0")
    assert (found.pid, found.started_at_ms) == (None, None)
    assert found.last_start_ms is not None


@pytest.mark.parametrize(
    ("changes", "signal", "timeout_ms"),
    [
        ({"KillSignal": "2", "RestartKillSignal": "2"}, "SIGINT", 90_000),
        ({"RestartKillSignal": "1"}, "SIGHUP", 90_000),
        ({"RestartKillSignal": "", "KillSignal": "3"}, "SIGQUIT", 90_000),
        ({"RestartKillSignal": "37"}, "SIGRTMIN+3", 90_000),
        ({"RestartKillSignal": "34"}, "SIGRTMIN", 90_000),
        ({"TimeoutStopUSec": "infinity"}, "SIGTERM", DAY_MS),
        ({"TimeoutStopUSec": "500ms"}, "SIGTERM", 500),
        ({"SendSIGKILL": "no"}, "SIGTERM", DAY_MS),
        ({"TimeoutStopUSec": "?"}, "SIGTERM", 90_000),
    ],
)
def test_signal_and_grace(changes: dict[str, str], signal: str, timeout_ms: int) -> None:
    found = process(**changes)
    assert (found.stop_signal, found.kill_timeout_ms) == (signal, timeout_ms)


def test_the_time_to_get_ready() -> None:
    assert process(Type="notify").ready_timeout_ms == 20_000
    assert process(Type="notify", TimeoutStartUSec="infinity").ready_timeout_ms == 90_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"Restart": "on-success"}, "Restart=on-success"),
        ({"Restart": "on-failure"}, "Restart=on-failure"),
        ({"Restart": "no"}, "Restart=no"),
        ({"RestartPreventExitStatus": "0 TERM"}, "RestartPreventExitStatus"),
        ({"RestartUSec": "5min"}, "5min"),
    ],
)
def test_whether_it_is_started_again(changes: dict[str, str], reason: str) -> None:
    found = why_not_started_again({**UNIT, **changes})
    assert reason in found
    assert bool(found) == bool(reason)
    again = changes.get("Restart") in {None, "always"} and "PreventExit" not in reason
    assert process(**changes).starts_again == again


@pytest.mark.parametrize(
    ("words", "mode", "trouble"),
    [
        (["/usr/bin/node", "worker.js"], "process", ""),
        (["npm start"], "control-group", ""),
        (["npm start"], "process", "only npm"),
        (["/bin/sh", "-c", "token=hunter2 node worker.js"], "mixed", "only sh"),
        (["node", "/usr/lib/node_modules/npm/bin/npm-cli.js", "run"], "mixed", "only npm"),
        (["PM2 v6.0.8: God Daemon (/root/.pm2)"], "control-group", "own time limits"),
        (["node", "/usr/bin/pm2-runtime", "app.js"], "mixed", "pm2-runtime"),
    ],
)
def test_main_processes_that_pass_no_signal_on(
    words: list[str], mode: str, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "command_line", lambda _pid: words)
    found = process(KillMode=mode).signal_trouble
    assert trouble in found
    assert bool(found) == bool(trouble)
    assert "hunter2" not in found


def test_a_kill_mode_that_spares_workers() -> None:
    none = {**UNIT, "KillMode": "none"}
    assert "KillMode=none" in to_process("systemd", none).signal_trouble
    assert not to_process("systemd", none).tree_kill
    assert "KillMode=none" in why_not_restartable(none)
    # The process with this pid is gone, so nothing shows that it is a shell.
    assert why_not_restartable({**UNIT, "KillMode": "process"}) == ""
    assert "SIGKILL" in process(RestartKillSignal="9").signal_trouble
