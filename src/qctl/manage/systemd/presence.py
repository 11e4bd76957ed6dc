"""Whether a systemd runs on this host, judged by its files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_SYSTEM_FOLDER = Path("/run/systemd/system")
# This path is below XDG_RUNTIME_DIR.
_USER_SOCKET = "systemd/private"


def is_present(kind: str) -> bool:
    """Whether there is a systemd to ask. Only looks for its files.

    Args:
        kind: ``systemd`` for the system's systemd, ``systemd-user`` for this user's systemd.
    """
    if kind == "systemd-user":
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        is_here = bool(runtime) and Path(runtime or "", _USER_SOCKET).exists()
    else:
        is_here = _SYSTEM_FOLDER.is_dir()
    return is_here and shutil.which("systemctl") is not None
