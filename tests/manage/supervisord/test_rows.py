"""Rows of supervisord as processes, and the targets of groups."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.errors import NotFoundError
from qctl.manage.protocol import ManagedProcess
from qctl.manage.supervisord.find import select
from qctl.manage.supervisord.rows import targets_of, to_process, to_program

SECRET = "hunter2-secret"  # noqa: S105 - a test value
# As supervisord 4.3 reports them.
CONFIG: dict[str, Any] = {
    "group": "mail", "name": "mail", "command": f"/usr/bin/node app.js --token={SECRET}",
    "directory": "/srv/mail", "killasgroup": False, "stopsignal": 2, "stopwaitsecs": 30,
    "startsecs": 5, "redirect_stderr": False, "exitcodes": [0], "serverurl": "none",
}  # fmt: skip
INFO: dict[str, Any] = {
    "group": "mail", "name": "mail", "statename": "RUNNING", "state": 20, "pid": 77,
    "start": 1000, "stop": 900, "now": 1010, "spawnerr": "", "exitstatus": 0,
    "stdout_logfile": "/var/log/mail.log", "stderr_logfile": "/var/log/mail.err",
}  # fmt: skip


def process(
    info: dict[str, Any] | None = None, config: dict[str, Any] | None = None
) -> ManagedProcess:
    program = to_program(CONFIG | (config or {}))
    assert program is not None
    found = to_process(INFO | (info or {}), {program.key: program}, targets_of([program]))
    assert found is not None
    return found


def test_a_running_process() -> None:
    found = process()
    assert (found.target, found.key, found.status) == ("supervisord:mail", "mail:mail", "online")
    assert (found.pid, found.started_at_ms, found.ready_timeout_ms) == (77, 1_000_000, 5000)
    assert (found.stop_signal, found.kill_timeout_ms) == ("SIGINT", 30_000)
    assert (found.script, found.cwd) == ("/usr/bin/node", "/srv/mail")
    assert str(found.error_log) == "/var/log/mail.err"
    fields = [getattr(found, name) for name in ManagedProcess.__slots__]
    assert SECRET not in repr([found, fields])


@pytest.mark.parametrize(
    ("info", "status", "starts_again"),
    [
        ({"statename": "STARTING"}, "launching", True),
        ({"statename": "BACKOFF", "pid": 0}, "launching", True),
        ({"statename": "STOPPING"}, "stopping", True),
        ({"statename": "STOPPED", "pid": 0}, "stopped", True),
        ({"statename": "FATAL", "pid": 0}, "errored", True),
        ({"statename": "UNKNOWN", "pid": 0}, "unknown", True),
        # supervisord decides within a second whether it starts it again.
        ({"statename": "EXITED", "pid": 0, "stop": 1009}, "launching", True),
        ({"statename": "EXITED", "pid": 0, "stop": 1006}, "stopped", False),
    ],
)
def test_states(info: dict[str, Any], status: str, starts_again: bool) -> None:
    found = process(info)
    assert (found.status, found.starts_again) == (status, starts_again)
    if info.get("pid") == 0:
        assert (found.pid, found.started_at_ms, found.last_start_ms) == (None, None, 1_000_000)


@pytest.mark.parametrize(
    ("info", "config", "log"),
    [
        ({"stderr_logfile": ""}, {"redirect_stderr": True}, "/var/log/mail.log"),
        ({"stderr_logfile": ""}, {}, None),
        ({"stderr_logfile": "syslog"}, {}, None),
        # qctl would read its own stderr.
        ({"stderr_logfile": "/dev/stderr"}, {}, None),
    ],
)
def test_the_log_with_the_errors(
    info: dict[str, Any], config: dict[str, Any], log: str | None
) -> None:
    found = process(info, config).error_log
    assert (found and str(found)) == log


def test_a_supervisord_that_reports_no_configuration() -> None:
    """Version 3 does not."""
    keep = {"group", "name"}
    found = process(config={key: None for key in CONFIG if key not in keep})
    assert (found.stop_signal, found.kill_timeout_ms) == ("", None)


def test_children_get_the_signals_only_as_a_group() -> None:
    assert not process().tree_kill
    assert process(config={"killasgroup": True}).tree_kill
    assert process(config={"stopsignal": 9}).signal_trouble
    # This process is no shell.
    assert process({"pid": os.getpid()}).signal_trouble == ""


def programs(*keys: str, command: str = "node {}") -> list[ManagedProcess]:
    rows = [dict(zip(("group", "name"), key.split(":"), strict=True)) for key in keys]
    found = [
        program
        for number, row in enumerate(rows)
        if (program := to_program({**CONFIG, **row, "command": command.format(number)}))
    ]
    by_key = {program.key: program for program in found}
    targets = targets_of(found)
    return [each for row in rows if (each := to_process(INFO | row, by_key, targets))]


def test_targets_of_groups() -> None:
    alone, numbered = programs("mail:mail"), programs("mail:mail_00", "mail:mail_01")
    assert [each.target for each in alone] == ["supervisord:mail"]
    # The port in the command differs.
    assert [each.target for each in numbered] == ["supervisord:mail:*"] * 2
    assert [each.target for each in programs("mail:mail_00")] == ["supervisord:mail:*"]
    # To restart one of several programs must not restart the others.
    mixed = programs("app:web", command="puma") + programs("app:worker")
    both = [to_program({**CONFIG, "group": "app", "name": name, "command": name}) for name in "ab"]
    assert targets_of([each for each in both if each]) == {"app:a": "app:a", "app:b": "app:b"}
    assert len(select(mixed, "app:*")) == 2


def test_names() -> None:
    everything = [*programs("mail:mail"), *programs("img:img_00", "img:img_01")]

    def targets(name: str) -> list[str]:
        return [each.target for each in select(everything, name)]

    assert targets("mail") == targets("mail:mail") == targets("mail:*") == ["supervisord:mail"]
    assert targets("img:*") == ["supervisord:img:*"] * 2
    assert targets("img:img_01") == ["supervisord:img:img_01"]
    for name in ("img", "img_01", "mail:x", "x:*", "", ":", "*"):
        with pytest.raises(NotFoundError):
            select(everything, name)
    with pytest.raises(NotFoundError) as caught:
        select(everything, "mial")
    assert caught.value.hint == "did you mean supervisord:mail?"


odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.integers(), max_size=2), st.sampled_from(["EXITED", "'", "/a\0b", "g:n"]),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(sorted(CONFIG)), odd),
    st.dictionaries(st.sampled_from(sorted(INFO)), odd),
)
def test_odd_rows_do_no_harm(config: dict[str, Any], info: dict[str, Any]) -> None:
    program = to_program(CONFIG | config)
    found = [program] if program else []
    by_key = {each.key: each for each in found}
    row = to_process(INFO | info, by_key, targets_of(found))
    if row is not None:
        assert row.target.startswith("supervisord:")
        assert row.kill_timeout_ms is None or row.kill_timeout_ms >= 0


@pytest.mark.parametrize("row", [None, [], "x", {}, {"group": "a"}, {"group": 1, "name": "b"}])
def test_what_is_no_row(row: object) -> None:
    assert to_program(row) is None
    assert to_process(row, {}, {}) is None
