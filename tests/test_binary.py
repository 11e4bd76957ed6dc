"""The single file without its build: how it starts qctl's helpers, and how it unpacks itself.

The real one is tested in ``interop/test_binary.py``.
"""

from __future__ import annotations

import ast
import gzip
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def entry() -> ModuleType:
    spec = spec_from_file_location("binary_entry", ROOT / "scripts/binary_entry.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def own_calls() -> Iterator[list[str]]:
    """The words behind each ``sys.executable`` of the package, as far as they are constants."""
    for path in (ROOT / "src/qctl").rglob("*.py"):
        source = path.read_text()
        if "sys.executable" not in source:
            continue
        for node_ in ast.walk(ast.parse(source)):
            if isinstance(node_, ast.List | ast.Tuple):
                words = [each.value for each in node_.elts if isinstance(each, ast.Constant)]
                if "-m" in words:
                    yield words


def test_the_binary_understands_every_call_of_a_helper() -> None:
    module_of = entry().module_of
    calls = list(own_calls())
    found = {module_of(words) for words in calls}
    assert found >= {"qctl", "qctl.ops.drain.watchdog", "qctl.runtime.processes.child"}
    assert len(calls) >= 7
    assert all(name and find_spec(name) for name in found)
    for words in ([], ["status"], ["-m"], ["-P"], ["-m", "http.server"], ["jobs", "-m", "qctl"]):
        assert module_of(words) == ""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"LD_LIBRARY_PATH": "/opt/qctl"}, {}),
        ({"LD_LIBRARY_PATH": "/opt/qctl", "LD_LIBRARY_PATH_ORIG": "/a"}, {"LD_LIBRARY_PATH": "/a"}),
    ],
)
def test_other_programs_load_their_own_libraries(
    before: dict[str, str], after: dict[str, str]
) -> None:
    entry().restore_library_path(before)
    assert before == after


@pytest.fixture
def small_binary(tmp_path: Path) -> Path:
    """The real start script; in the archive, a program that prints its place and its arguments."""
    program = b'#!/bin/sh\necho "$0" "$@"\nexit 4\n'
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("./qctl")
        member.size, member.mode = len(program), 0o755
        tar.addfile(member, io.BytesIO(program))
    script = (ROOT / "scripts/binary-start.sh").read_text().replace("@HASH@", "abc")
    script = script.replace("@LINES@", str(len(script.splitlines()) + 1))
    file = tmp_path / "qctl"
    file.write_bytes(script.encode() + gzip.compress(archive.getvalue()))
    file.chmod(0o755)
    return file


def start(file: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [file, *words], env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip


def test_the_first_start_unpacks_and_later_ones_do_not(small_binary: Path, tmp_path: Path) -> None:
    program = tmp_path / "home/.cache/qctl/abc/qctl"
    for _ in range(2):
        ran = start(small_binary, "status", "a b", HOME=str(tmp_path / "home"))
        assert (ran.returncode, ran.stdout) == (4, f"{program} status a b\n"), ran.stderr
        # A second start that unpacked would put the first archive's program back.
        program.write_text('#!/bin/sh\necho "$0" "$@"\nexit 4\n# kept')
    assert program.read_text().endswith("# kept")
    assert [path.name for path in program.parents[1].iterdir()] == ["abc"]


def test_nobody_else_can_change_what_was_unpacked(small_binary: Path, tmp_path: Path) -> None:
    top = tmp_path / "cache/qctl"
    umask = os.umask(0)
    try:
        assert start(small_binary, XDG_CACHE_HOME=str(top.parent)).returncode == 4
    finally:
        os.umask(umask)
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(top, 12345, -1)
    ran = start(small_binary, XDG_CACHE_HOME=str(top.parent))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"{top} belongs to another user" in ran.stderr


def test_starts_at_once_do_not_disturb_each_other(small_binary: Path, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    running = [
        subprocess.Popen([small_binary], env=environ, stdout=subprocess.DEVNULL) for _ in range(8)
    ]
    assert [process.wait(30) for process in running] == [4] * 8
    assert [path.name for path in (tmp_path / "home/.cache/qctl").iterdir()] == ["abc"]


def test_no_place_to_unpack_is_an_error(small_binary: Path, tmp_path: Path) -> None:
    ran = start(small_binary)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "try: XDG_CACHE_HOME=FOLDER" in ran.stderr
    (tmp_path / "file").touch()
    ran = start(small_binary, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-1].startswith("try: XDG_CACHE_HOME=FOLDER")
