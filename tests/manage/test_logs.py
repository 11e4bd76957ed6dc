"""Reading log files: the last lines, and new lines."""

from __future__ import annotations

import os
from pathlib import Path

from qctl.manage.logs import read_new, read_tail


def test_the_last_lines_of_logs_of_all_kinds(tmp_path: Path) -> None:
    log = tmp_path / "err.log"

    def lines(content: bytes, start: int = 0) -> list[str]:
        log.write_bytes(content)
        return read_tail(log, start)[0]

    assert lines(b"") == []
    assert lines(b"one\r\ntwo") == ["one", "two"]
    assert lines(b"a\x0bb\n\n\xff\n") == ["a\x0bb", "", "\ufffd"]
    # Cut in the middle of a line: the rest of it is no line.
    assert lines(b"x" * 70_000 + b"\nlast\n") == ["last"]
    assert lines(b"y" * 70_000) == ["y" * 65_536]
    assert lines(b"old\nnew\n", 4) == ["new"]
    # It was cut since.
    assert lines(b"new\n", 400) == ["new"]
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "missing", tmp_path, tmp_path / "pipe", Path("/dev/null")):
        assert read_tail(odd) == ([], 0)


def test_where_the_last_lines_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{n}\n" for n in range(20_000)))
    rows, end = read_tail(log)
    assert end == log.stat().st_size
    # The limit cuts a line, which is left out.
    assert rows == [str(n) for n in range(20_000 - len(rows), 20_000)]
    assert 9_000 < len(rows) < 20_000
    with log.open("a") as file:
        file.write("new\nhalf")
    assert read_tail(log, end) == (["new", "half"], end + 8)


def test_new_lines_are_complete(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_new(log, 0) == ([], 0)
    log.write_text("one\ntwo\nha")
    assert read_new(log, 0) == (["one", "two"], 8)
    assert read_new(log, 8) == ([], 8)
    with log.open("a") as file:
        file.write("lf\n\n")
    assert read_new(log, 8) == (["half", ""], 14)
    # Truncated, and written anew.
    log.write_text("new\n")
    assert read_new(log, 14) == (["new"], 4)
    # A line without an end does not block it for ever.
    log.write_text("x" * 2_000_000)
    rows, end = read_new(log, 0)
    assert (len(rows), end) == (1, 1024 * 1024)
