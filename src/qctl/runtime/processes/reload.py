"""Notices changed files of an app, for ``--reload`` while developing."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
from pathlib import Path

_MOST_NAMED = 3


class FileWatch:
    """The .py files of the app: those loaded from below the working folder or outside of Python's
    own folders, and their neighbours, one of which may be the module that is being written.
    """

    def __init__(self) -> None:
        self._seen = self._times()

    def changed(self) -> list[str]:
        """Names of files that are new or were written since the last call, a few at most."""
        before, self._seen = self._seen, self._times()
        names = [path.name for path, at in self._seen.items() if before.get(path) != at]
        return sorted(names)[:_MOST_NAMED]

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
