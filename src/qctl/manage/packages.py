"""Finds an app's BullMQ in the folders where Node looks for it, from the app's script upwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from qctl.manage.protocol import ManagedProcess

_MAX_BYTES = 256 * 1024


def installed_bullmq(process: ManagedProcess) -> str | None:
    """The BullMQ version in the nearest ``node_modules`` above the script, else above the cwd.

    None if BullMQ is not there or cannot be read. A process that started before BullMQ was updated
    still runs the version from before the update.
    """
    files = (folder / "node_modules/bullmq/package.json" for folder in _folders(process))
    return next((found for file in files if (found := _version(file)) is not None), None)


def _folders(process: ManagedProcess) -> Iterator[Path]:
    # If the script is npm, only the cwd leads to the app.
    for start in (process.script and str(Path(process.script).parent), process.cwd):
        path = Path(start)
        if start and path.is_absolute():
            yield from (path, *path.parents)


def _version(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            package = json.loads(opened.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    version = package.get("version") if isinstance(package, dict) else None
    return version if isinstance(version, str) else None
