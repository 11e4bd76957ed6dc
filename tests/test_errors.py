"""What counts as an outage, and which code an error has."""

from __future__ import annotations

import pytest

import qctl
from qctl.errors import (
    FailedError,
    ManagerUnreachableError,
    QctlError,
    ReplyError,
    UnreachableError,
    is_outage,
)

AWAY = [
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MOVED 1 127.0.0.1:7000",
    "ASK 1 127.0.0.1:7000",
    "READONLY You can't write against a read only replica.",
    "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -READONLY You can't "
    "write against a read only replica.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "ERR max number of clients reached",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist",
    "NOREPLICAS Not enough good replicas to write.",
    # A Redis that has just started may not have got its users and passwords yet.
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
]
HERE = [
    "ERR syntax error",
    "ERR unknown command 'FOO', with args beginning with: ",
    "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -NOPERM this user",
    "NOPERM this user has no permissions to run the 'del' command",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "NOSCRIPT No matching script. Please use EVAL.",
]


@pytest.mark.parametrize("message", AWAY, ids=lambda text: " ".join(text.split()[:3]))
def test_an_error_that_passes_is_an_outage(message: str) -> None:
    assert is_outage(ReplyError(message))


@pytest.mark.parametrize("message", HERE, ids=lambda text: " ".join(text.split()[:3]))
def test_an_error_that_stays_is_none(message: str) -> None:
    assert not is_outage(ReplyError(message))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnreachableError("refused, reset or timed out"), True),
        (ManagerUnreachableError("PM2 does not run"), False),
        (FailedError("no"), False),
        (QctlError("no"), False),
        (OSError("disk full"), False),
    ],
)
def test_a_connection_that_failed_is_an_outage(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected


def test_the_text_of_an_error_has_its_reason() -> None:
    assert str(QctlError("the data is not JSON", why="a set", hint="a list")) == (
        "the data is not JSON: a set"
    )
    assert str(QctlError("no")) == "no"


def test_the_public_names_complete_in_a_shell() -> None:
    assert {"Queue", "Worker", "Job"} <= set(dir(qctl))
    assert all(hasattr(qctl, name) for name in dir(qctl))


def test_the_code_of_a_command_in_a_script_is_read_from_old_servers_too() -> None:
    old = "ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation against"
    assert ReplyError(old).code == "WRONGTYPE"
    assert ReplyError("ERR user_script:1: Script attempted to call nil").code == "ERR"
