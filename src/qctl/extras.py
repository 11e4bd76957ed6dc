"""Finds the command that adds an extra to this installation of qctl."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec


def install_command(extra: str) -> str:
    """A command that installs an extra, such as ``top``, for the Python that runs qctl.

    A plain ``pip install`` might install for another Python.
    """
    python, wanted = shlex.quote(sys.executable), shlex.quote(f"qctl[{extra}]")
    if find_spec("pip") is None:
        # An environment created by uv has no pip.
        return f"uv pip install --python {python} {wanted}"
    return f"{python} -m pip install {wanted}"
