"""Snapshots of what qctl shows on a terminal, one text file for each screen.

After a deliberate change, ``QCTL_RECORD=1 pytest …`` writes the files anew. Look at them before you
commit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from qctl.output.text import cells

SIZES = ((80, 24), (120, 40))


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
        coloured = [line.replace("\x1b", "\\e") for line in shown(width, height, True)]
        parts += [f"== {width}x{height}, colour", *coloured]
    text = "\n".join(parts) + "\n"
    if os.environ.get("QCTL_RECORD"):
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs; QCTL_RECORD=1 records it anew"
