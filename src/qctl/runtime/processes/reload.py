"""Finds changed files of an app, for ``--reload``."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from pathlib import Path

_MAX_NAMED = 3


class FileWatch:
    """The .py files of the app.

    These are all in the folders from which a module was loaded, except Python's own folders and
    qctl's. So a new file beside a loaded one is found, too.
    """

    def __init__(self) -> None:
        self._seen = self._times()

    def changed(self) -> list[str]:
        """Names of files that are new or were written since the last call, at most 3."""
        before, self._seen = self._seen, self._times()
        names = [path.name for path, at in self._seen.items() if before.get(path) != at]
        return sorted(names)[:_MAX_NAMED]

    def _times(self) -> dict[Path, int]:
        times: dict[Path, int] = {}
        for folder in _folders():
            with contextlib.suppress(OSError):
                for path in folder.glob("*.py"):
                    with contextlib.suppress(OSError):
                        times[path] = path.stat().st_mtime_ns
        return times


def _folders() -> set[Path]:
    own = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    own.append(Path(__file__).parents[1])
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    folders = {Path(file).parent for file in files if file and file.endswith(".py")}
    return {f for f in folders if not any(f.is_relative_to(o) for o in own)}
