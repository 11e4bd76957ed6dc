"""How an app is named, and which workers a name means."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from qctl.errors import UsageError
from qctl.runtime.processes.app import load_workers
from qctl.runtime.processes.messages import check_app


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)

    def write_module(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        for each in set(sys.modules) - before:
            if getattr(sys.modules[each], "__file__", None) == str(tmp_path / f"{each}.py"):
                del sys.modules[each]

    return write_module


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("app:", "does not name an app", "app:worker"),
        (":worker", "does not name an app", "app:worker"),
        ("a b:worker", "does not name an app", "app:worker"),
        ("app:wor ker", "does not name an app", "app:worker"),
        ("", "does not name an app", "app:worker"),
        ("app.py:worker", "names a file", "type app:worker"),
        ("./jobs/app.py", "names a file", "type jobs.app"),
        ("queue:worker", "'queue' is a module of Python's standard library", "queue_app.py"),
    ],
)
def test_names_that_are_refused_before_a_process_starts(spec: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_app(spec)
    assert hint in caught.value.hint


def test_a_module_alone_means_its_only_worker(write: Callable[[str, str], None]) -> None:
    write(
        "life_shared",
        """
        from qctl import Worker
        worker = Worker("q")
        """,
    )
    # The same worker under two names is one worker.
    write("life_one", "from life_shared import worker\nalias = worker\n")
    (worker,) = load_workers(["life_one"])
    assert load_workers(["life_one:alias", "life_shared"]) == [worker]

    write("life_two", "from qctl import Worker\na, b = Worker('a'), Worker('b')\n")
    with pytest.raises(UsageError, match="has these workers: a, b") as caught:
        load_workers(["life_two"])
    assert caught.value.hint == "type life_two:a life_two:b"
    write("life_none", "")
    with pytest.raises(UsageError, match="no variable with a Worker"):
        load_workers(["life_none"])


def test_a_file_of_the_app_replaces_no_standard_module(write: Callable[[str, str], None]) -> None:
    write("colorsys", "raise AssertionError")
    write("life_app", "import colorsys\nfrom qctl import Worker\nworker = Worker('q')\n")
    assert len(load_workers(["life_app"])) == 1
    # But it comes before installed packages.
    here = sys.path.index(str(Path.cwd()))
    assert here < next(i for i, folder in enumerate(sys.path) if "site-packages" in folder)


def test_an_error_in_the_app_names_its_line(write: Callable[[str, str], None]) -> None:
    write("life_bad", "from qctl import Worker\n\nworker = Worker('a:b')\n")
    with pytest.raises(UsageError, match=r"in life_bad\.py:3"):
        load_workers(["life_bad"])
    with pytest.raises(UsageError, match="there is no module 'life_missing'"):
        load_workers(["life_missing:worker"])
    write("life_bad_too", "")
    with pytest.raises(UsageError, match="has these workers: none"):
        load_workers(["life_bad_too:x"])
