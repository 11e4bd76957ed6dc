"""``qctl help``: the pages of ``docs/``, which are also installed with qctl."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

import qctl
from qctl.cli.frame import App
from qctl.cli.spelling import nearest
from qctl.cli.streams import Streams
from qctl.errors import FailedError, UsageError

if TYPE_CHECKING:
    from rich.markdown import Markdown

app = App()
# Page → what it is about, in the order of the list. A test compares it with the files of docs/.
TOPICS: Mapping[str, str] = {
    "install": "pip, pipx, uv, a single file, a container image; extras",
    "tour": "every command once, with real output",
    "drain": "how a drain works, and what is left when something dies",
    "deploy": "restart workers with Docker, Kubernetes, systemd, any tool",
    "impact": "what a restart now would do, and when to restart",
    "doctor": "the checks, each with its limits and its fix",
    "jobs": "retry, promote, delete, cancel jobs; filters, failure groups",
    "jobs-and-events": "add jobs, follow events, wait, flows, schedulers",
    "queues": "limits of a queue; delete a queue",
    "top": "the live view and its keys",
    "metrics": "metrics for Prometheus, with alerts",
    "mcp": "let an agent use qctl's commands as tools",
    "configuration": "connections, config files, contexts, guards, prefixes",
    "acl": "Redis users with the least rights, by role",
    "cli": "what scripts can rely on: JSON fields and exit codes",
    "reference": "all commands and options",
    "guarantees": "what holds under faults and what cannot, each with its test",
    "worker": "run Python workers: processes, signals, readiness",
    "worker-api": "write Python workers and producers",
    "web-apps": "add jobs from FastAPI and Django; a worker that uses Django",
    "from-celery": "what Celery users look for, and what it is in qctl",
    "from-arq": "what arq users look for, and what it is in qctl",
    "from-bullmq-python": "what users of BullMQ's Python package look for",
    "logging": "logs of workers and apps, OpenTelemetry, Sentry",
    "testing": "test an app's jobs without a Redis server",
    "differences": "where qctl's workers differ from BullMQ on purpose",
    "scale": "what commands cost with millions of jobs",
    "start-up": "why qctl starts fast",
    "wire-format": "what BullMQ keeps in Redis, and how each call changes it",
    "architecture": "where to find what in qctl's source",
}
_MAX_WIDTH = 100
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]*)(?:#[^)\s]*)?\)")


def _complete() -> list[tuple[str, str]]:
    return list(TOPICS.items())


@app.command("help", bare=True)
def show_help(
    ctx: typer.Context,
    topic: Annotated[
        str, typer.Argument(metavar="[TOPIC]", help="A page", autocompletion=_complete)
    ] = "",
) -> None:
    """Show a page of the documentation; without TOPIC, list the pages.

    A terminal shows the page in $PAGER, by default less. Into a pipe, qctl writes
    the page's Markdown.
    """
    streams: Streams = ctx.obj
    if not topic:
        streams.stdout.writelines(f"{line}\n" for line in _topic_lines())
        return
    text = read_page(topic)
    if streams.stdout_is_terminal and not streams.is_dumb:
        no_color = bool(ctx.parent and ctx.parent.params.get("no_color"))
        text = _rendered(text, streams, colour=streams.may_colour(streams.stdout) and not no_color)
        if _show_in_pager(text, streams):
            return
    streams.stdout.write(text)


def read_page(topic: str) -> str:
    """The Markdown of a page.

    Raises:
        UsageError: there is no such page.
        FailedError: this installation lacks the page.
    """
    if topic not in TOPICS:
        from qctl.cli.program import COMMANDS  # noqa: PLC0415 - program.py loads this module

        near = nearest(topic, TOPICS)
        hint = f"qctl {topic} --help" if topic in COMMANDS else f"qctl help {near}".rstrip()
        raise UsageError(f"no page of the documentation is called {topic!r}", hint=hint)
    package = Path(qctl.__file__).parent
    # A wheel has the pages in the package; a checkout has them in ``docs``, beside ``src``.
    for folder in (package / "pages", package.parents[1] / "docs"):
        page = folder / f"{topic}.md"
        if page.is_file():
            return page.read_text(encoding="utf-8")
    raise FailedError(
        f"this installation of qctl lacks the page {topic}",
        why=f"{package / 'pages'} does not have it",
        hint="reinstall qctl",
    )


def _topic_lines() -> Iterator[str]:
    width = max(map(len, TOPICS))
    yield from (f"{topic:<{width}}  {line}" for topic, line in TOPICS.items())
    yield ""
    yield "Show a page: qctl help TOPIC. Options of a command: qctl COMMAND --help."


def _rendered(text: str, streams: Streams, *, colour: bool) -> str:
    """The page as a terminal shows it; links name the command that shows their page."""
    import io  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415 - slow: 40 ms

    file = io.StringIO()
    Console(
        file=file,
        force_terminal=True,
        no_color=not colour,
        color_system="standard",
        width=min(streams.terminal_width, _MAX_WIDTH),
    ).print(_markdown(_LINK.sub(_linked, text)), crop=False)
    return file.getvalue()


def _linked(link: re.Match[str]) -> str:
    page = link[2].removeprefix("docs/").removesuffix(".md")
    if page in TOPICS:
        return f"{link[1]} (`qctl help {page}`)"
    return f"{link[1]} ({link[2]})" if "://" in link[2] else link[1]


def _markdown(text: str) -> Markdown:
    """Rich's Markdown without colours that a light or a dark background could hide."""
    from rich.markdown import CodeBlock, Heading, Markdown  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Code(CodeBlock):
        def __rich_console__(self, *_: object) -> Iterator[Text]:
            # Not wrapped, so that a command can be copied.
            for line in str(self.text).rstrip().split("\n"):
                yield Text(f"    {line}", no_wrap=True, overflow="ignore")

    class Title(Heading):
        def __rich_console__(self, *_: object) -> Iterator[Text]:
            yield Text("")
            yield Text(self.text.plain, "bold underline" if self.tag == "h1" else "bold")

    class Page(Markdown):
        elements: ClassVar = {
            **Markdown.elements,
            "fence": Code,
            "code_block": Code,
            "heading_open": Title,
        }

    return Page(text, hyperlinks=False)


def _show_in_pager(text: str, streams: Streams) -> bool:
    """Show ``text`` in the operator's pager, and return True; False if there is no pager."""
    import shlex  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    words = shlex.split(streams.environ.get("PAGER", "less"))
    if not words:
        return False
    # As git: end at once if the page fits, keep colours, leave the text on the screen.
    environ = {"LESS": "FRX", "LESSCHARSET": "utf-8", **streams.environ}
    streams.stdout.flush()
    try:
        pager = subprocess.Popen(words, stdin=subprocess.PIPE, env=environ)
    except OSError:
        return False
    try:
        pager.communicate(text.encode())
    except KeyboardInterrupt:
        # Ctrl-C is meant for the pager, which has the terminal until the pager ends.
        while True:
            try:
                pager.wait()
                break
            except KeyboardInterrupt:
                continue
    return True
