"""Ctrl-C, SIGTERM, a lost terminal, a reader that goes away: the drain puts everything back."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.labs.drains import PUT_RIGHT_S, Lab
from tests.labs.servers import wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_during_the_wait(lab: Lab, number: signal.Signals) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    pid = lab.pm2.pid("app")
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    drain.signal(number)
    done = drain.finish()
    assert done.code == 130, done.err
    report = done.report
    assert (report["outcome"], report["resumed"]) == ("aborted", True)
    assert (report["interrupted"], report["lost"]) == (0, 0)
    assert report["jobs"] == [{"queue": "q", "id": added[0], "result": "running", "was": "active"}]
    assert report["old_pids"] == []
    assert f"{number.name}: putting everything back" in done.err
    lab.prove_tidy("q")
    assert lab.pm2.pid("app") == pid
    lab.release()
    lab.prove(added)


@pytest.mark.parametrize(
    ("number", "graceful"), [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, False)]
)
def test_during_the_restart(lab: Lab, number: signal.Signals, graceful: bool) -> None:
    lab.app(HANDLE_SIGINT=int(graceful), BOOT_MS=800)
    first = lab.hold()
    old = lab.pm2.pid("app")
    drain = lab.steps(*DRAIN)
    drain.await_step("paused")
    later = lab.add(10, 10)
    lab.release()
    drain.await_step("restarting")
    drain.signal(number)
    done = drain.finish()
    assert done.code == 130, done.err
    report = done.report
    assert (report["outcome"], report["resumed"]) == ("aborted", True)
    assert (report["interrupted"], report["lost"]) == (0, 0)
    assert report["old_pids"] == [old]
    assert any(str(old) in note for note in report["notes"])
    lab.prove_tidy("q")
    # PM2 goes on with what it was asked to do.
    lab.wait_workers()
    lab.prove([*first, *later])
    # The process that was being stopped has taken none of them.
    assert {row["pid"] for job in later for row in lab.rows(job)} == {lab.pm2.pid("app")}


def test_a_second_signal_does_not_hurt(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    for _ in range(3):
        drain.signal(signal.SIGINT)
    assert drain.finish().code == 130
    lab.release()
    lab.prove(added)


@pytest.mark.parametrize("output", ["ndjson", "table"])
def test_a_reader_that_goes_away(lab: Lab, output: str) -> None:
    """As with ``qctl drain … | head -1``."""
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = subprocess.Popen(
        [sys.executable, "-m", "qctl", *DRAIN, "--output", output],
        env=lab.env, cwd=lab.folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert drain.stdout is not None
    assert drain.stderr is not None
    try:
        (drain.stdout if output == "ndjson" else drain.stderr).readline()
        drain.stdout.close()
        drain.stderr.close()
        assert drain.wait(60) != 0
    finally:
        lab.release()
        drain.kill()
        drain.wait(10)
    wait_until(
        lambda: not lab.is_paused() and not lab.traces(), "the pause to go", timeout_s=PUT_RIGHT_S
    )
    lab.prove(added)
