"""Finds the place in the app's code where an error came from."""

from __future__ import annotations

import traceback
from pathlib import Path


def place_in_app(error: BaseException) -> str:
    """The place in the app's code that comes last in an error's traceback, as ``app.py:12``.

    "" if the traceback has no such place. The app's code is the code below the working
    folder, without installed packages.
    """
    here = Path.cwd()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and not {"site-packages", ".venv"} & set(path.parts):
            return f"{path.relative_to(here)}:{frame.lineno}"
    return ""
