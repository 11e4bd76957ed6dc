"""The lines that the app and qctl write under ``qctl worker run``."""

from __future__ import annotations

import json
from typing import Any

from tests.labs import masters as labs
from tests.labs.masters import MasterLab

master_lab = labs.master_lab

APP = """
    import asyncio, logging, threading
    from qctl import Worker

    log = logging.getLogger("shop.mail")
    worker = Worker("q", concurrency=4, drain_delay_s=0.5)

    @worker.task("async")
    async def run(job):
        await asyncio.gather(part(), asyncio.to_thread(log.info, "thread of it"))

    async def part():
        log.info("part of it", extra={"to": "ada"})

    @worker.task("thread")
    def thread(job):
        log.info("in a thread")

    @worker.task("isolated", isolate=True)
    def isolated(job):
        log.info("in a process")

    @worker.task("broken")
    async def broken(job):
        raise ValueError("no answer")
"""


def about(master: labs.RunningMaster, job_id: str) -> list[tuple[str, str, str]]:
    """(logger, level, message) of each line about a job."""
    rows = map(json.loads, master.text.splitlines())
    return [
        (row["logger"], row["level"], row["message"]) for row in rows if row.get("job") == job_id
    ]


def test_every_line_of_a_job_names_it(master_lab: MasterLab) -> None:
    master_lab.write(APP)
    secret = master_lab.redis_url.replace("//", "//default:geheim@", 1)
    master = master_lab.run("--log-level", "debug", QCTL_REDIS_URL=secret)
    jobs = {name: master_lab.add(1, name)[0] for name in ("async", "thread", "isolated")}
    failed = master_lab.queue.add("broken", attempts=2)
    master_lab.wait_completed(list(jobs.values()))
    master.wait_log("job failed")
    master.stop()

    def rows(message: str) -> list[dict[str, Any]]:
        return master.rows(message)

    (started,) = rows("worker started")
    assert started["tasks"] == "async,broken,isolated,thread"
    assert (started["queue"], started["concurrency"], started["prefix"]) == ("q", 4, "bull")
    assert started["redis"] == master_lab.redis_url.replace("//", "//default@", 1)
    assert "geheim" not in master.text
    own = "qctl.worker"
    for name, said in (("thread", "in a thread"), ("isolated", "in a process")):
        assert about(master, jobs[name]) == [
            (own, "debug", "job started"), ("shop.mail", "info", said), (own, "debug", "job done"),
        ], master.text  # fmt: skip
    assert [row["to"] for row in rows("part of it") if row["job"] == jobs["async"]] == ["ada"]
    assert rows("thread of it")[0]["job"] == jobs["async"]
    assert [(row["name"], row["queue"], row["attempt"]) for row in rows("in a process")] == [
        ("isolated", "q", 1)
    ]
    (again,), (final,) = rows("job failed, runs again"), rows("job failed")
    assert (again["level"], again["attempt"], again["in_s"]) == ("warning", 1, 0)
    assert (final["level"], final["attempt"], final["job"]) == ("error", 2, failed)
    assert (final["error"], final["why"]) == ("ValueError", "no answer")
    assert final["traceback"].endswith("ValueError: no answer")
    assert master.text.count("Traceback") == 2


def test_an_app_that_sets_up_logging_gets_qctls_lines_too(master_lab: MasterLab) -> None:
    own = """
    logging.basicConfig(format="mine|%(name)s|%(job_id)s|%(message)s", level="INFO")
    from qctl import JobFields
    logging.getLogger().handlers[0].addFilter(JobFields())
    """
    master_lab.write(APP + own)
    master = master_lab.run()
    thread, isolated = master_lab.add(1, "thread")[0], master_lab.add(1, "isolated")[0]
    master_lab.wait_completed([thread, isolated])
    master.stop()
    lines = [line for line in master.text.splitlines() if not line.startswith("{")]
    assert f"mine|shop.mail|{thread}|in a thread" in lines
    assert any(line.startswith("mine|qctl.worker||worker started queue=q") for line in lines)
    assert f"mine|shop.mail|{isolated}|in a process" in lines
