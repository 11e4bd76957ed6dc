"""The command that installs an extra into this installation of qctl."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec


def install_command(extra: str) -> str:
    """A command that installs an extra for the Python that runs qctl.

    ``pip`` alone might install it for another Python.

    Args:
        extra: its name, for example ``top``.
    """
    python, wanted = shlex.quote(sys.executable), shlex.quote(f"qctl[{extra}]")
    if find_spec("pip") is None:
        # An environment created by uv has no pip.
        return f"uv pip install --python {python} {wanted}"
    return f"{python} -m pip install {wanted}"
