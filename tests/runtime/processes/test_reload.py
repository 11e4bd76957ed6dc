"""``--reload`` watches the app's files and no others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import qctl
from qctl.runtime.processes.reload import FileWatch, app_folders


def test_no_folder_of_qctl_or_an_installed_package_is_watched():
    folders = app_folders()
    excluded = [Path(qctl.__file__).parent, Path(pytest.__file__).parent]
    assert not [f for f in folders if any(f.is_relative_to(e) for e in excluded)]


def test_written_and_new_files_beside_a_loaded_module_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    app = tmp_path / "reloaded_app.py"
    app.write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__(app.stem)
    try:
        watch = FileWatch()
        assert watch.changed() == []
        app.write_text("x = 2\n")
        (tmp_path / "fresh.py").write_text("")
        assert watch.changed() == ["fresh.py", "reloaded_app.py"]
        assert watch.changed() == []
    finally:
        del sys.modules[app.stem]
