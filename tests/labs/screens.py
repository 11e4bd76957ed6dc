"""Snapshots of what qctl shows on a terminal, one text file for each screen.

After a deliberate change, ``QCTL_RECORD=1 pytest …`` writes the files anew. Look at them before you
commit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from qctl.output.text import cells

SIZES = ((80, 24), (120, 40))
_SGR = re.compile("\x1b\\[([0-9;]*)m")
# Attributes and colours that every terminal with 16 colours has, readable on a dark and on a light
# background: no white, no grey, no bright colour, none of 256. White is allowed on red.
_READABLE = {"", "0", "1", "2", "7", "31", "32", "33", "36", "39", "49"}
_WHITE_ON_RED = {"1", "37", "41"}


def check_colours(text: str) -> None:
    """Fail if a colour of ``text`` cannot be read on some background, or on 16 colours."""
    odd = {
        codes
        for codes in _SGR.findall(text)
        if not {*codes.split(";")} <= _READABLE and {*codes.split(";")} != _WHITE_ON_RED
    }
    assert not odd, f"colours that some terminals cannot show or read: {odd}"


def without_colours(text: str) -> str:
    """``text`` as a terminal without colours shows it."""
    return _SGR.sub("", text)


def compare(file: Path, shown: Callable[[int, int, bool], Iterable[str]]) -> None:
    """Compare a screen at all sizes, without and with colour, with its snapshot.

    Args:
        file: the snapshot; its folder must exist.
        shown: returns the lines for a width, a height and whether there is colour.
    """
    parts: list[str] = []
    for width, height in SIZES:
        plain = [*shown(width, height, False)]
        # A command or a path is never cut, so that it can be copied.
        wide = [line for line in plain if cells(line) > width and "qctl " not in line]
        assert not wide, f"wider than {width} cells: {wide}"
        parts += [f"== {width}x{height}", *plain]
        coloured = [*shown(width, height, True)]
        check_colours("\n".join(coloured))
        # No meaning hangs on colour alone.
        assert [without_colours(line).rstrip() for line in coloured] == [
            line.rstrip() for line in plain
        ]
        parts += [
            f"== {width}x{height}, colour",
            *(line.replace("\x1b", "\\e") for line in coloured),
        ]
    text = "\n".join(parts) + "\n"
    if os.environ.get("QCTL_RECORD"):
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs; QCTL_RECORD=1 records it anew"
