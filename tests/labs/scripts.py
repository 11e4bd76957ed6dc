"""Stand-ins for other programs."""

from __future__ import annotations

from pathlib import Path


def write_script(file: Path, commands: str) -> Path:
    """Make ``file`` a shell script that anybody can run."""
    file.write_text(f"#!/bin/sh\n{commands}\n")
    file.chmod(0o755)
    return file
