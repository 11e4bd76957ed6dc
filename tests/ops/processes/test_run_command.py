"""The operator's command: what it gets, and how it is ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qctl.errors import FailedError, UsageError
from qctl.ops.processes import run_command as module
from qctl.ops.processes.restart import Interrupted
from qctl.ops.processes.run_command import require_command, run_command
from tests.labs.drains import is_alive
from tests.labs.servers import wait_until


def run(
    *argv: str,
    timeout_s: float = 30.0,
    stop: Callable[[], bool] = lambda: False,
    env: dict[str, str] | None = None,
) -> None:
    run_command(argv, env or {}, timeout_s=timeout_s, stop=stop, rest=lambda: time.sleep(0.01))


def test_no_shell_no_stdin_and_output_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print(sys.stdin.read() + sys.argv[1] + os.environ['QCTL_QUEUES'])"
    run(sys.executable, "-c", code, "a b;$HOME", env={"QCTL_QUEUES": "q\nr"})
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "a b;$HOMEq\nr\n"


def test_exit_codes_and_signals_are_failures() -> None:
    with pytest.raises(FailedError, match="exit code 3"):
        run("sh", "-c", "exit 3")
    with pytest.raises(FailedError, match="SIGKILL"):
        run("sh", "-c", "kill -9 $$")


def test_a_program_that_does_not_exist_is_found_out_before_anything_happens(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="nosuchprogram"):
        require_command(["nosuchprogram"])
    require_command(["sh"])
    broken = tmp_path / "broken"
    broken.write_text("#!/nosuchinterpreter\n")
    broken.chmod(0o755)
    with pytest.raises(FailedError, match="could not be started"):
        run(str(broken))


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["obeys", "ignores SIGTERM"])
def test_a_command_that_hangs_is_ended_with_its_children(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TERM_GRACE_S", 0.2)
    file = tmp_path / "pids"
    script = f"{trap}sleep 600 & echo $$ $! > {file}; wait; sleep 600"
    with pytest.raises(FailedError, match="did not end") as raised:
        run("sh", "-c", script, timeout_s=2.0)
    assert "--command-timeout" in raised.value.hint
    for pid in file.read_text().split():
        wait_until(lambda pid=pid: not is_alive(int(pid)), f"pid {pid} to end")


def test_a_stop_ends_the_command_first(tmp_path: Path) -> None:
    file = tmp_path / "ended"
    script = f"trap 'echo now > {file}; exit' TERM; echo up > {tmp_path / 'up'}; sleep 600 & wait"
    with pytest.raises(Interrupted):
        run("sh", "-c", script, stop=(tmp_path / "up").exists)
    assert file.exists()
