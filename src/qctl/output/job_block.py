"""One job in full, as a block for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from qctl.ops.jobs.model import JobDetail
from qctl.ops.processes.suggest import command
from qctl.output.block import INDENT, Block
from qctl.output.console import styled
from qctl.output.jobs import MAX_LINE_TEXT, facts, sections
from qctl.output.text import cells, folded, shortened, visible

_MARKS = {
    "completed": ("✔", "green"),
    "failed": ("✖", "bold red"),
    "stalled": ("!", "yellow"),
    "active": ("●", "cyan"),
    "unknown": ("?", "yellow"),
}
_FATES = {"recovered": "green", "fails": "red"}
# State → what can be done next, and the command for it.
_NEXT = {
    "failed": ("to run it again", "jobs retry"),
    "delayed": ("to run it now", "jobs promote"),
    "stalled": ("to put it back", "jobs retry-stalled"),
}
_RED = {"reason", "will fail with"}


def job_block(
    job: JobDetail, now: datetime, prefix: str, *, width: int, colour: bool
) -> Iterator[str]:
    """The job with its state as a mark, its facts, its data, and what to type next.

    Args:
        prefix: the prefix of the job's queue.
        width: of the terminal, in cells; longer texts are folded.
    """
    block = Block(width=width, colour=colour)
    mark, style = _MARKS.get(job.state, ("·", ""))
    of = f"job {visible(job.id)}"
    room = width - cells(f"{mark}   {job.state}")
    head = f"{mark} {shortened(of, max(room, 1), keep_end=True)}"
    yield f"{block.head(head, style)}  {block.styled(job.state, style)}"
    known = [(label, text) for label, text in facts(job, now, prefix) if text is not None]
    values = [*sections(job)]
    short = [section.title for section in values if section.is_short]
    wide = max(map(len, [*(label for label, _ in known), *short]))
    for label, text in known:
        shown = visible(text[:MAX_LINE_TEXT])
        if len(text) > MAX_LINE_TEXT:
            shown += f"… ({len(text):,} characters; --json shows all)"
        value_style = _value_style(job, label)
        for number, line in enumerate(folded(shown, max(width - wide - 4, 1))):
            head = styled(f"{label:<{wide}}", "dim", colour=colour) if number == 0 else " " * wide
            yield f"{INDENT}{head}  {styled(line, value_style, colour=colour)}".rstrip()
    for section in values:
        room = width - len(INDENT) * 2
        if section.is_short and wide + 2 + cells(section.lines[0]) <= room:
            label = styled(f"{section.title:<{wide}}", "dim", colour=colour)
            yield f"{INDENT}{label}  {section.lines[0]}"
            continue
        yield INDENT + styled(section.title, "dim", colour=colour)
        for line in section.lines:
            for part in folded(line, max(room, 1), keep_indent=True):
                yield f"{INDENT * 2}{part}"
    if job.state in _NEXT:
        label, verb = _NEXT[job.state]
        words = [job.queue] if job.state == "stalled" else [job.queue, job.id]
        text = command(prefix, verb, *words)
        yield f"{INDENT}{styled(f'{label}:', 'bold', colour=colour)} {text}"


def _value_style(job: JobDetail, label: str) -> str:
    if label == "state":
        return _MARKS.get(job.state, ("", ""))[1]
    if label == "fate" and job.fate is not None:
        return _FATES.get(job.fate.outcome, "yellow")
    return "red" if label in _RED else ""
