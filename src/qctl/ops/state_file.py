"""Small files in which a command remembers something for later commands on the same Redis."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Address
from qctl.private import make_folder, open_file

# A file's name is cut to this many bytes: file systems allow 255, and suffixes are added.
_MAX_FILE_NAME = 150


class StateFile:
    """A file with one JSON object, in qctl's folder for state.

    Each combination of address, Redis user and prefixes has a file of its own. Only the
    operating-system user who runs qctl may read the file. Neither the file nor its name contains
    the password.

    Args:
        state_home: qctl's folder for state.
        folder: its subfolder for this kind of file.
    """

    def __init__(self, state_home: Path, folder: str, address: Address, prefixes: Prefixes) -> None:
        # A long file name is cut, so the content repeats the address and the prefixes.
        self._about = [str(address), str(prefixes)]
        name = quote(" ".join(self._about), safe="", errors="surrogateescape")
        self.path = state_home / folder / name[-_MAX_FILE_NAME:]
        self._state_home = state_home

    def read(self) -> dict[str, Any] | None:
        """The object; None if there is none, or if it cannot be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            record = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and record.get("about") == self._about:
                return record
        return None

    def make_folder(self) -> None:
        """Create the folder of the file.

        Raises:
            OSError: the folder cannot be created, or belongs to another user.
        """
        make_folder(self.path.parent, self._state_home)

    def write(self, record: Mapping[str, Any]) -> None:
        """Replace the object.

        Raises:
            OSError: the file cannot be written.
        """
        self.make_folder()
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        descriptor = open_file(draft, os.O_TRUNC | os.O_WRONLY)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"about": self._about, **record}, file)
            draft.replace(self.path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def delete(self) -> None:
        """Delete the file, if there is one.

        Raises:
            OSError: the file cannot be deleted.
        """
        self.path.unlink(missing_ok=True)
