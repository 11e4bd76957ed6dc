"""Which containers a process of this host belongs to, according to the kernel."""

from __future__ import annotations

import re
from pathlib import Path

# Docker's two cgroup drivers write ``/docker/ID`` and ``/system.slice/docker-ID.scope``.
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def container_ids(pid: int) -> frozenset[str]:
    """The ids of containers in the cgroup of a process; empty if it is gone or in no container.

    A container inside another container has the ids of both. Other container engines have ids of
    the same form.
    """
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(errors="replace")
    except OSError:
        return frozenset()
    return frozenset(_ID.findall(text))
