"""A ``systemctl`` that answers nonsense or refuses: a script in place of the real one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.errors import ManagerUnreachableError, NotFoundError, QctlError
from qctl.manage.protocol import ManagedProcess
from qctl.manage.systemd.calls import RestartJob
from qctl.manage.systemd.manager import Systemd
from qctl.manage.systemd.presence import is_present
from tests.labs.scripts import write_script
from tests.labs.servers import wait_until

Script = Callable[[str], None]
PROCESS = ManagedProcess(
    target="systemd:a.service", key="a.service", name="a.service", namespace="", status="online",
    pid=7, started_at_ms=1, restarts=0, mode="fork", stop_signal="SIGTERM", kill_timeout_ms=1,
    ready_timeout_ms=0, cpu_percent=None, rss_bytes=None, last_start_ms=1,
)  # fmt: skip


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a shell script named ``systemctl`` on PATH."""

    def put(script: str) -> None:
        write_script(tmp_path / "systemctl", script)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


@pytest.mark.parametrize("answer", ["", "echo", "echo =; echo x", "printf 'Id=\\n\\nMainPID=z'"])
def test_nonsense_is_no_service(systemctl: Script, answer: str) -> None:
    systemctl(answer)
    with pytest.raises(NotFoundError, match=r"no service emails\.service"):
        Systemd("systemd").find("emails")
    assert Systemd("systemd").processes() == []
    assert Systemd("systemd").process("emails.service") is None


def test_an_error_repeats_no_answer(systemctl: Script) -> None:
    systemctl("echo Environment=hunter2; echo it broke >&2; exit 4")
    with pytest.raises(ManagerUnreachableError) as caught:
        Systemd("systemd-user").find("emails")
    assert caught.value.why == "it broke"
    assert "XDG_RUNTIME_DIR" in caught.value.hint
    assert "hunter2" not in repr(vars(caught.value))


def test_one_that_hangs(systemctl: Script) -> None:
    systemctl("exec sleep 60")
    began = time.monotonic()
    with pytest.raises(QctlError, match="gave no answer"):
        Systemd("systemd", timeout_s=0.2).targets()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("message", "now", "error"),
    [
        ("Failed to restart a.service: Access denied", PROCESS, "run qctl as root"),
        ("Failed to restart a.service: Interactive authentication required.", PROCESS,
         "run qctl as root"),
        ("Failed to restart a.service: Unit a.service not found.", PROCESS, "not found"),
        ("Job for a.service failed because of x.", replace(PROCESS, status="errored", pid=None),
         "of x, and started nothing"),
        # It has started a process, which has crashed: the caller reports that, with its log.
        ("Job for a.service failed because of x.",
         replace(PROCESS, status="errored", pid=None, last_start_ms=2), None),
        ("Job for a.service canceled.", replace(PROCESS, status="stopped", pid=None), None),
        ("Job for a.service canceled.", None, None),
    ],
)  # fmt: skip
def test_what_counts_as_a_refusal(
    systemctl: Script, message: str, now: ManagedProcess | None, error: str | None, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    systemctl(f"echo '{message}' >&2; touch {ended}; exit 1")
    call = RestartJob(["systemctl", "restart", "a.service"], {}, lambda: now, PROCESS)
    with contextlib.closing(call):
        if error is None:
            wait_until(ended.exists, "the script to end")
            assert call.error() is None
        else:
            assert error in wait_until(call.error, "the refusal")


def test_it_is_not_asked_for_where_it_does_not_run(
    systemctl: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    systemctl("exit 1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert not is_present("systemd-user")
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd/private").touch()
    assert is_present("systemd-user")
    monkeypatch.setenv("PATH", "/nowhere")
    assert not is_present("systemd-user")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert not is_present("systemd-user")
