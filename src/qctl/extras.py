"""How to install what an extra brings, as a command that works for this installation."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec


def install_command(extra: str) -> str:
    """Installs an extra of qctl where this qctl runs, which need not be where ``pip`` installs.

    Args:
        extra: its name, for example ``top``.
    """
    python, wanted = shlex.quote(sys.executable), shlex.quote(f"qctl[{extra}]")
    if find_spec("pip") is None:
        # An environment made by uv has no pip of its own.
        return f"uv pip install --python {python} {wanted}"
    return f"{python} -m pip install {wanted}"
