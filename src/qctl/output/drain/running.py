"""The running jobs of a drain, a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qctl.ops.drain.steps import RunningJob
from qctl.output.block import Block
from qctl.output.text import cells, duration, shortened, visible

MAX_JOBS = 10


def running_jobs(
    block: Block, jobs: Iterable[RunningJob], indent: str, most: int = MAX_JOBS
) -> Iterator[str]:
    """The jobs that have run longest, a line each, and how many more there are."""
    ordered = sorted(jobs, key=lambda job: -(job.runtime_s or 0))
    if not ordered or most < 1:
        return
    rows = [_job_columns(job) for job in ordered[:most]]
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    # The queue, the id and the name are narrowed; the times are not.
    texts = block.width - len(indent) - sum(widths[3:]) - 2 * (len(widths) - 1)
    while sum(widths[:3]) > texts and max(widths[:3]) > 1:
        widths[widths.index(max(widths[:3]))] -= 1
    for row in rows:
        shown = [
            shortened(text, width, keep_end=True) for text, width in zip(row, widths, strict=True)
        ]
        padded = [
            text + " " * (width - cells(text)) for text, width in zip(shown, widths, strict=True)
        ]
        yield indent + "  ".join(padded).rstrip()
    if len(ordered) > most:
        yield f"{indent}and {len(ordered) - most:,} more"


def _job_columns(job: RunningJob) -> tuple[str, ...]:
    """Queue, id, name, how long the job has run, and how much longer it needs."""
    name = visible(job.name) if job.name is not None else "(no data)"
    ran = "?" if job.runtime_s is None else duration(job.runtime_s)
    left = "" if job.estimate_s is None else f"about {duration(job.estimate_s)} to go"
    return visible(job.queue), visible(job.id), name, ran, left
