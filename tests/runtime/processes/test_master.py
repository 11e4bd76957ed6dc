"""A master and its processes: signals, replacements, crash loops, limits."""

from __future__ import annotations

import fcntl
import os
import signal
import termios
import time

from qctl.runtime.api.state import WorkerState
from qctl.runtime.processes.child import LATE_S, is_late
from tests.labs import masters as labs
from tests.labs.masters import MasterLab
from tests.labs.servers import wait_until

master_lab = labs.master_lab


def test_a_stop_lets_jobs_finish_and_takes_no_more(master_lab: MasterLab) -> None:
    master = master_lab.run("--processes", "2")
    assert len(master.pids) == 2
    # Longer than any wait for a marker.
    running = master_lab.add(2, s=2.5)
    master_lab.wait_started(*running)
    master.signal(signal.SIGINT)
    # Also of jobs that started a moment ago.
    (row,) = master.wait_log("finishing jobs")
    assert row["jobs"] == 2
    pids = master.pids
    wait_until(lambda: not connected(master_lab), "the workers to fetch no more", timeout_s=2)
    assert len(master_lab.ids("active")) == 2
    late = master_lab.add(1)
    assert master.wait_end() == 0
    assert sorted(master_lab.ids("completed")) == running
    assert (master_lab.ids("wait"), master_lab.ids("active")) == (late, [])
    assert all(map(labs.is_gone, pids))


def workers_connected(lab: MasterLab) -> int:
    return str(lab.client.call("CLIENT", "LIST")).count(":w:")


def connected(lab: MasterLab) -> bool:
    return workers_connected(lab) > 0


def test_a_stop_bounds_what_a_replacement_does_not(master_lab: MasterLab) -> None:
    master = master_lab.run("--grace", "0.3s")
    (job,) = master_lab.add(s=60)
    master_lab.wait_started(job)
    master.signal(signal.SIGHUP)
    master.wait_log("replaced")
    # Its grace is over by far, and it still has its time.
    (quick,) = master_lab.add(s=0.6)
    master_lab.wait_completed([quick])
    assert master_lab.ids("active") == [job]
    master.signal()
    assert master.wait_end() == 0
    assert master_lab.ids("wait") == [job]


def test_at_the_end_of_the_grace_jobs_go_back(master_lab: MasterLab) -> None:
    master = master_lab.run("--grace", "0.3s")
    (cancelled,) = master_lab.add(1, s=60)
    (stuck,) = master_lab.add(1, "thread")
    master_lab.wait_started(cancelled, stuck)
    # One in the whole group, as systemd and PM2 send it, is no second signal for anyone.
    for pid in [*master.pids, master.process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert master.wait_end() == 0
    assert sorted(master_lab.ids("wait")) == sorted([cancelled, stuck])
    for job_id in (cancelled, stuck):
        job = master_lab.job(job_id)
        assert (job.get("atm"), job.get("stc")) == (None, None)
        assert not master_lab.client.call("EXISTS", labs.Q.lock(job_id))
    assert master.rows("the grace is over: giving jobs back")


def test_a_second_signal_gives_jobs_back_at_once(master_lab: MasterLab) -> None:
    master = master_lab.run("--grace", "0")
    (job_id,) = master_lab.add(1, s=60)
    master_lab.wait_started(job_id)
    master.signal()
    master.wait_log("stopping")
    master.signal()
    assert master.wait_end() == 0
    assert (master_lab.ids("wait"), master_lab.ids("active")) == ([job_id], [])


def test_a_process_that_is_blocked_is_killed_and_its_jobs_go_back_uncounted(
    master_lab: MasterLab,
) -> None:
    master = master_lab.run("--grace", "0.1s")
    (job_id,) = master_lab.add(1, "block")
    master_lab.wait_started(job_id)
    master.stop()
    assert master.rows("process does not end, killing it")
    assert master_lab.ids("wait") == [job_id]
    assert master_lab.job(job_id).get("stc") is None


def test_hup_replaces_without_a_gap(master_lab: MasterLab) -> None:
    master = master_lab.run("--processes", "2")
    old = master.pids
    (long,) = master_lab.add(1, s=1.5)
    master_lab.wait_started(long)
    ids = [long]
    master.signal(signal.SIGHUP)
    while len(master.rows("replaced")) < 2:
        ids += master_lab.add(1, s=0.01)
        time.sleep(0.01)
    # The old ones may still be at work; once they have heard of it they take no new jobs.
    wait_until(lambda: workers_connected(master_lab) == 2, "the old ones to have heard")
    ids += (after := master_lab.add(5, s=0.01))
    master_lab.wait_completed(ids)
    wait_until(lambda: not set(old) & set(master.pids), "the old processes to leave")
    assert len(master.pids) == 2
    pids = dict(master_lab.starts())
    assert pids[long] in old
    assert {pids[job_id] for job_id in after} <= set(master.pids)
    assert set(master_lab.counts().values()) == {1}
    # Each new one took jobs before its old one was told to leave.
    text = master.text
    assert text.count("worker started") == 4
    second = [i for i in range(len(text)) if text.startswith("worker started", i)][2]
    assert second < text.index("worker stopped")
    master.stop()


def test_hup_of_a_lost_terminal_is_a_stop(master_lab: MasterLab) -> None:
    ours, theirs = os.openpty()
    master = master_lab.run(
        pass_fds=(theirs,), before=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    )
    os.close(theirs)
    old = master.pids
    # With its terminal it is what it is without one.
    master.signal(signal.SIGHUP)
    master.wait_log("replaced")
    wait_until(lambda: not set(old) & set(master.pids), "the old process to leave")
    os.close(ours)
    assert master.wait_end() == 0, master.text
    assert len(master.rows("replaced")) == 1


def test_nohup_is_respected(master_lab: MasterLab) -> None:
    master = master_lab.run(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    pids = master.pids
    for pid in [master.process.pid, *pids]:
        os.kill(pid, signal.SIGHUP)
    master_lab.wait_completed(master_lab.add(3))
    assert (master.pids, master.rows("replacing")) == (pids, [])
    master.stop()


def test_hup_to_broken_code_keeps_the_old_ones(master_lab: MasterLab) -> None:
    master = master_lab.run("--processes", "2")
    old = master.pids
    master_lab.write("import nothing_like_that\n")
    master.signal(signal.SIGHUP)
    (row,) = master.wait_log("not replaced, the old process stays")
    assert "No module named 'nothing_like_that'" in row["why"]
    assert master.pids == old
    master_lab.wait_completed(master_lab.add(5))
    # Mended code is taken with the next one.
    master_lab.write(labs.APP)
    master.signal(signal.SIGHUP)
    master.wait_log("replaced", 2)
    master.stop()


def test_a_crash_loop_ends_with_the_last_words(master_lab: MasterLab) -> None:
    # A module that ends the interpreter itself has last words, too.
    master_lab.write(
        "import os, sys\nprint('no database today', file=sys.stderr, flush=True)\nos._exit(7)\n"
    )
    master = master_lab.run(ready=False)
    assert master.wait_end() == 1
    last = master.text[master.text.rindex("error: ") :]
    assert "5 processes in a row died before they were ready" in last
    assert "    no database today\n    (exit code 7)" in last


def test_after_so_many_jobs_a_process_is_replaced(master_lab: MasterLab) -> None:
    master = master_lab.run("--max-jobs", "10")
    old = master.pids
    ids = master_lab.add(12)
    (row,) = master.wait_log("replaced")
    assert [row["old_pid"]] == old
    assert master.rows("replacing")[0]["why"] == "12 jobs done"
    ids += master_lab.add(3)
    master_lab.wait_completed(ids)
    assert set(master_lab.counts().values()) == {1}
    master.stop()


def test_a_process_that_uses_too_much_is_replaced(master_lab: MasterLab) -> None:
    # Every process uses more, so they follow each other as fast as they start.
    master = master_lab.run("--max-rss", "1MB")
    assert "MB in use" in master.wait_log("replacing")[0]["why"]
    master.wait_log("replaced")
    master.stop()


def test_reload_follows_the_files(master_lab: MasterLab) -> None:
    master = master_lab.run("--reload")
    old = master.pids
    master_lab.write(labs.APP.replace("note(job)\n        await", "await"))
    master.wait_log("replaced")
    assert master.rows("replacing")[0]["why"] == "changed: app.py"
    wait_until(lambda: not set(old) & set(master.pids), "the old process to leave")
    # What is new is known, and not taken for a change once more.
    ids = master_lab.add(3)
    master_lab.wait_completed(ids)
    assert not master_lab.counts()
    master.stop()


def test_when_a_fetch_is_late() -> None:
    def state(since_fetch_s: float | None, *, busy: int = 0, limited: bool = False) -> WorkerState:
        return WorkerState("q", "bull", "w", "o", 2, busy, False, limited, 0, 0, since_fetch_s)

    soon = 3 * 5 + LATE_S
    assert not is_late(state(soon - 1), 5)
    assert is_late(state(soon + 1), 5)
    assert is_late(state(None), 5)
    # A full worker, and one that may not, do not fetch.
    assert is_late(state(soon + 1, busy=1), 5)
    assert not is_late(state(soon + 1, busy=2), 5)
    assert not is_late(state(soon + 1, limited=True), 5)
