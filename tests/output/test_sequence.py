"""The summary of a sequence of drains."""

from __future__ import annotations

from qctl.ops.drain.sequence import SequenceReport
from qctl.ops.drain.steps import DrainReport
from qctl.output.sequence import summary_lines


def report(prefix: str | None, *queues: str, still_paused: tuple[str, ...] = ()) -> DrainReport:
    return DrainReport(
        outcome="restarted", queues=queues, target="pm2:a", strategy="pause", prefix=prefix,
        still_paused=still_paused,
    )  # fmt: skip


def test_queues_of_several_prefixes_are_shown_with_them() -> None:
    reports = (report("bull", "emails"), report("staging", "emails"), report(None, "x@a", "y@b"))
    lines = list(summary_lines(SequenceReport("restarted", reports, None), ["a", "b", "c"]))
    assert [line.partition("queues: ")[2] for line in lines] == [
        "emails@bull",
        "emails@staging",
        "x@a, y@b",
    ]


def test_what_stays_paused_is_said_again() -> None:
    one = report("bull", "emails", "images", still_paused=("images",))
    (line,) = summary_lines(SequenceReport("restarted", (one,), None), ["a"])
    assert line == "a  restarted; queues: emails, images; still paused: images"
