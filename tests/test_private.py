"""qctl's own files, folders and sockets are open to its user alone, whatever the umask."""

from __future__ import annotations

import ast
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from qctl import private
from qctl.config.prefixes import only
from qctl.connection.address import parse_url
from qctl.connection.connect import connect
from qctl.connection.embedded.server import start_kept
from qctl.errors import FailedError, UsageError
from qctl.manage.qctl.state import MasterFolder
from qctl.ops.queues import names
from qctl.ops.queues.names import QueueNameCache
from qctl.testing import FakeQueues
from qctl.wire.keys import QueueKeys
from tests.labs import masters as labs
from tests.labs.build import put
from tests.labs.cli import run
from tests.labs.masters import MasterLab

master_lab = labs.master_lab


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(*tops: Path) -> dict[str, str]:
    """Of each file, folder and socket at and below ``tops`` that others may use: its mode."""
    found = [path for top in tops for path in (top, *top.rglob("*"))]
    assert found
    modes = {str(path): stat.S_IMODE(path.lstat().st_mode) for path in found}
    return {path: oct(mode) for path, mode in modes.items() if mode & 0o077}


# Calls that create something with the rights that the umask leaves.
MAKERS = {"mkdir", "makedirs", "write_text", "write_bytes", "touch", "mkfifo", "mknod", "bind"}
# The reference is written into a checkout; the other is inspect.Signature.bind.
EXEMPT = {"private.py", "cli/reference.py", "runtime/api/lifespan.py"}


def test_nothing_else_creates_files() -> None:
    """All that creates a file, folder or socket is in ``qctl.private``."""
    src = Path(private.__file__).parent
    found = []
    for path in sorted(src.rglob("*.py")):
        name = path.relative_to(src).as_posix()
        for node in ast.walk(ast.parse(path.read_text())) if name not in EXEMPT else ():
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if (called and node.func.attr in MAKERS) or _creates(node):
                found.append(f"{name}:{node.lineno}")
    assert found == []


def _creates(node: ast.AST) -> bool:
    """``os.O_CREAT``; ``open`` with a mode that writes; a server on the path of a socket."""
    if isinstance(node, ast.Attribute):
        return node.attr == "O_CREAT"
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name == "start_unix_server":
        return not any(each.arg == "sock" for each in node.keywords)
    modes = [each.value for each in node.args if isinstance(each, ast.Constant)]
    return name == "open" and any(
        isinstance(mode, str) and re.fullmatch("[wax+][bt+]*|r[bt]*[+][bt]*", mode)
        for mode in modes
    )


def test_what_commands_write_with_no_umask(
    no_umask: None, master_lab: MasterLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Walks all that is there, so that a new file with the rights of the umask fails this test."""
    lab = master_lab
    # As a folder that an older version has left.
    home = lab.state_home / "qctl"
    (home / "workers").mkdir(parents=True)
    lab.add(1)
    started = lab.qctl("worker", "start", "w", "app:worker")
    assert started.returncode == 0, started.stderr
    # A slow scan keeps the names, and a later command scans in the background, under a lock.
    monkeypatch.setattr(names, "SLOW_SCAN_S", -1)
    assert run("status", **lab.environ).code == 0
    # An error, which a run of doctor keeps.
    put(lab.client, "1", "paused", keys=QueueKeys("bull", "other"))
    assert run("doctor", **lab.environ).code == 1
    monkeypatch.setattr(QueueNameCache, "_start", lambda *_: None)
    QueueNameCache(home, parse_url(lab.redis_url), only("bull")).scan_in_background()
    written = {path.relative_to(home).parts[0] for path in home.rglob("*")}
    assert written == {"workers", "queues", "doctor"}
    assert {path.name for path in (home / "workers/w").iterdir()} >= {
        "control.sock", "lock", "log", "state.json",
    }  # fmt: skip
    assert any(path.suffix == ".lock" for path in (home / "queues").iterdir())
    assert open_to_others(home) == {}


def test_an_embedded_redis_with_no_umask(no_umask: None, tmp_path: Path) -> None:
    folder = tmp_path / "new/data"
    with start_kept(folder) as server:
        client = connect(server.url)[1]
        client.call("SET", "a", "1")
        client.close()
        assert (folder / "redis.sock").is_socket()
        assert (folder / "appendonlydir").is_dir()
        assert open_to_others(folder.parent) == {}
    shared = tmp_path / "shared"
    shared.mkdir()
    with pytest.raises(UsageError) as caught:
        start_kept(shared)
    assert caught.value.why == "every user can write to it"


def test_the_stand_in_with_no_umask(no_umask: None) -> None:
    with FakeQueues() as fake:
        folder = Path(fake.url.removeprefix("unix://")).parent
        assert [path.name for path in folder.iterdir()] == ["redis.sock"]
        assert open_to_others(folder) == {}


def test_rights_that_a_file_has_are_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    file.chmod(0o666)
    os.close(private.open_file(file, os.O_WRONLY))
    assert open_to_others(file) == {}
    assert file.read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "qctl"
    (home / "workers").mkdir(parents=True)
    os.chown(home, 12345, -1)
    with pytest.raises(FailedError) as caught:
        MasterFolder(home, "w").make()
    assert caught.value.why == f"{home} belongs to another user"
