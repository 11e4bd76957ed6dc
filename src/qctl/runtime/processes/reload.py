"""Finds changed files of an app, for ``--reload``."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from pathlib import Path

import qctl

MAX_NAMED_FILES = 3


class FileWatch:
    """Watches all .py files in ``app_folders()``, including files not loaded as modules."""

    def __init__(self) -> None:
        self._times_ns = self._read_times_ns()

    def changed(self) -> list[str]:
        """Return at most 3 names of files that are new or changed since the last call."""
        before, self._times_ns = self._times_ns, self._read_times_ns()
        names = [path.name for path, at in self._times_ns.items() if before.get(path) != at]
        return sorted(names)[:MAX_NAMED_FILES]

    def _read_times_ns(self) -> dict[Path, int]:
        times: dict[Path, int] = {}
        for folder in app_folders():
            with contextlib.suppress(OSError):
                for path in folder.glob("*.py"):
                    with contextlib.suppress(OSError):
                        times[path] = path.stat().st_mtime_ns
        return times


def app_folders() -> set[Path]:
    """The folders of loaded modules, without the standard library, installed packages and qctl."""
    excluded = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    excluded.append(Path(qctl.__file__).parent)
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    folders = {Path(file).parent for file in files if file and file.endswith(".py")}
    return {f for f in folders if not any(f.is_relative_to(e) for e in excluded)}
