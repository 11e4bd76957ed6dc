"""An agent: the client of the package ``mcp`` with ``qctl mcp`` behind it, over stdio."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.labs.drains import cmdline

# Importing it takes as long as all of qctl: the workers that only collect these tests do without.
if find_spec("mcp") is None:
    pytest.skip("could not import 'mcp'", allow_module_level=True)


class Agent:
    """A client that is connected.

    Attributes:
        seen: everything that the server has answered, as text.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.seen = ""

    async def call(self, tool: str, /, *, fails: bool = False, **arguments: Any) -> dict[str, Any]:
        """The answer of a tool."""
        result = await self.client.call_tool(tool, arguments)
        self.seen += result.model_dump_json()
        answer: dict[str, Any] = result.structured_content
        assert result.is_error == fails, answer
        return answer

    async def carry_out(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that writes for its plan, then with ``confirm``."""
        assert (await self.call(tool, **arguments))["dry_run"] is True
        return await self.call(tool, confirm=True, **arguments)


def with_agent(
    work: Callable[[Agent], Awaitable[None]],
    *words: str,
    env: dict[str, str],
    folder: Path,
    mode: str = "auto",
    program: Sequence[str | Path] = (sys.executable, "-m", "qctl"),
) -> str:
    """Let an agent work with ``qctl mcp WORDS``; what the server wrote on stderr.

    Args:
        mode: of the client: ``legacy`` for the protocol before 2026.
        program: qctl.
    """
    import mcp  # noqa: PLC0415

    log = folder / "mcp-stderr.log"
    own = {"XDG_CONFIG_HOME": str(folder), "PM2_HOME": "/nonexistent", **env}
    command, *args = map(str, (*program, "mcp", *words))
    server = mcp.StdioServerParameters(command=command, args=args, env=own, cwd=folder)

    async def run() -> None:
        with log.open("w") as errors:
            async with mcp.Client(mcp.stdio_client(server, errors), mode=mode) as client:
                await work(Agent(client))

    asyncio.run(run())
    return log.read_text()


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds, while the client goes on."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


def server_processes() -> list[psutil.Process]:
    """The processes of ``qctl mcp`` that this test has started."""
    children = psutil.Process().children()
    return [child for child in children if "mcp" in cmdline(child)]
