"""The `pm2` command as the fallback: a real one, and a script in its place for odd output."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from qctl.errors import UnreachableError
from qctl.manage import tool
from qctl.manage.pm2 import cli
from qctl.manage.pm2.cli import CliRestart, list_rows
from qctl.manage.pm2.manager import Pm2
from qctl.manage.pm2.rpc import encode
from tests.labs.node import MODULES, node
from tests.labs.pm2 import Pm2 as RealPm2
from tests.labs.pm2_rows import HIDDEN, answering, read_request
from tests.labs.scripts import write_script
from tests.labs.servers import wait_until

Start = Callable[[Callable[[socket.socket], None]], Path]
Script = Callable[[str], None]


@pytest.fixture
def pm2_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a shell script named ``pm2`` on PATH."""

    def put(script: str) -> None:
        write_script(tmp_path / "pm2", script)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


@pytest.fixture
def real_command(pm2_command: Script) -> None:
    pm2_command(f'exec {" ".join(map(str, node()))} {MODULES}/pm2/bin/pm2 "$@"')


def unknown_method(connection: socket.socket) -> None:
    """A PM2 with other names for its methods."""
    request, request_id = read_request(connection)
    error = f'method "{request["method"]}" does not exist'
    connection.sendall(encode({"error": error}, request_id))


@pytest.mark.usefixtures("real_command")
def test_the_real_command_lists_and_restarts(real_pm2: RealPm2) -> None:
    real_pm2.start("worker", real_pm2.home / "idle.js", kill_timeout=4000)
    (item,) = list_rows(real_pm2.home)
    assert item["name"] == "worker"

    restart = CliRestart(real_pm2.home, "0")
    wait_until(lambda: real_pm2.rows("worker")[0].restarts == 1, "the restart")
    real_pm2.wait_online("worker")
    restart.close()
    assert restart.error() is None
    (after,) = Pm2(real_pm2.home).find("worker")
    assert after.pid != item["pid"]
    assert after.kill_timeout_ms == 4000

    wrong = CliRestart(real_pm2.home, "99")
    assert wait_until(wrong.error, "the command to fail") == "God db process id unknown"
    wrong.close()


def test_the_list_stands_below_banners(pm2_command: Script, short_home: Path) -> None:
    pm2_command("echo '[PM2] Spawning'; echo 'in-memory is out of date'; echo '[{\"pm_id\": 1}]'")
    assert list_rows(short_home) == [{"pm_id": 1}]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo nothing", "printed no list"),
        (f'echo \'[{{"a": "{HIDDEN}\'', "printed no list"),
        (f"echo '[\"{HIDDEN}\"]'; echo {HIDDEN} >&2; exit 3", "code 3"),
        (f"echo '[\"{HIDDEN}\"]'; exec sleep 30", "did not end"),
    ],
    ids=["no list", "half a list", "failed", "hangs"],
)
def test_a_command_that_misbehaves(
    pm2_command: Script,
    short_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    why: str,
) -> None:
    monkeypatch.setattr(cli, "_LIST_TIMEOUT_S", 1.0)
    pm2_command(script)
    with pytest.raises(UnreachableError) as caught:
        list_rows(short_home)
    assert why in caught.value.why
    assert caught.value.__context__ is None
    assert HIDDEN not in "".join(traceback.format_exception(caught.value)) + caught.value.why


def test_no_command_at_all(short_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(short_home))
    with pytest.raises(UnreachableError, match="not understood") as caught:
        list_rows(short_home)
    assert "PATH" in caught.value.why
    with pytest.raises(UnreachableError):
        CliRestart(short_home, "0")


def test_much_output_does_not_block_a_restart(pm2_command: Script, short_home: Path) -> None:
    pm2_command(
        "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2; exit 1"
    )
    restart = CliRestart(short_home, "0")
    assert wait_until(restart.error, "the command to end") == "`pm2 restart` ended with code 1"
    restart.close()


def test_an_error_is_the_line_that_says_so(pm2_command: Script, short_home: Path) -> None:
    red = "\\033[31m[PM2][ERROR] \\033[39m"
    pm2_command(f"echo noise >&2; printf '{red}Process %s not found\\nmore' $2 >&2; exit 1")
    restart = CliRestart(short_home, "4")
    assert wait_until(restart.error, "the command to end") == "Process 4 not found"
    restart.close()
    restart.error()


def test_a_restart_that_hangs_is_ended_when_closed(
    pm2_command: Script, short_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "_CLOSE_TIMEOUT_S", 0.1)
    pm2_command("exec sleep 600")
    restart = CliRestart(short_home, "0")
    assert restart.error() is None
    restart.close()
    assert restart._process.poll() is not None


@pytest.mark.parametrize("answer", ["junk", "unknown method", "another form"])
def test_a_listing_that_is_not_understood_asks_the_command(
    pm2_command: Script, fake_daemon: Start, answer: str
) -> None:
    serve = {
        "junk": lambda connection: connection.sendall(b"junk"),
        "unknown method": unknown_method,
        "another form": answering({"args": [{"list": []}]}),
    }[answer]
    home = fake_daemon(serve)
    (home / "rows.json").write_text('[{"pm_id": 3, "name": "worker", "pm2_env": {}}]')
    pm2_command('test "$*" = "jlist -s" && cat $PM2_HOME/rows.json')
    (process,) = Pm2(home).processes()
    assert (process.key, process.name) == ("3", "worker")


def test_a_command_that_cannot_be_run(pm2_command: Script, short_home: Path) -> None:
    pm2_command("")
    # An interpreter that does not exist.
    Path(os.environ["PATH"].split(":")[0], "pm2").write_text(f"#!{short_home}/missing\n")
    for ask in (lambda: list_rows(short_home), lambda: CliRestart(short_home, "0")):
        with pytest.raises(UnreachableError) as caught:
            ask()
        assert "No such file" in caught.value.why


def restartable(home: Path, name: str, namespace: str = "default") -> Pm2:
    """A PM2 with our process, pm_id 3, and one of another name."""
    rows = [
        {"pm_id": 3, "name": "worker", "pm2_env": {}},
        {"pm_id": 4, "name": name, "pm2_env": {"namespace": namespace}},
    ]
    (home / "rows.json").write_text(json.dumps(rows))
    return Pm2(home)


SCRIPT = 'if [ "$1" = jlist ]; then cat $PM2_HOME/rows.json; else echo "$*" >> $PM2_HOME/did; fi'


def test_a_restart_that_this_pm2_does_not_know_asks_the_command(
    pm2_command: Script, fake_daemon: Start
) -> None:
    home = fake_daemon(unknown_method)
    pm2_command(SCRIPT)
    manager = restartable(home, "api")
    call = manager.begin_restart(manager.processes()[0])

    def done() -> bool:
        assert call.error() is None
        return (home / "did").exists()

    wait_until(done, "the command to be called")
    call.close()
    assert (home / "did").read_text() == "restart 3\n"


@pytest.mark.parametrize(("name", "namespace"), [("3", "default"), ("api", "3")])
def test_the_command_is_not_asked_for_a_number_that_is_a_name(
    pm2_command: Script, fake_daemon: Start, name: str, namespace: str
) -> None:
    home = fake_daemon(unknown_method)
    pm2_command(SCRIPT)
    manager = restartable(home, name, namespace)
    call = manager.begin_restart(manager.processes()[0])
    message = wait_until(call.error, "the fallback to be refused")
    call.close()
    assert "cannot be restarted" in message
    assert f"pm2:{name}" in message
    assert not (home / "did").exists()
