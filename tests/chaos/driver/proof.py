"""What must be so at the end of a round, by Redis and by the ledger."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chaos.driver.hits import Hit
from tests.chaos.driver.producers import HOPELESS, QUEUE
from tests.chaos.driver.stage import CHILDREN, Stage
from tests.labs.drains import Running

# Managers and Redis; watchdogs stay for a minute after a resume that a failover may undo.
MAY_RUN = {"ops.drain.watchdog", "pm2_start.js", "God Daemon", "supervisord", "redis-server"}

Row = dict[str, Any]
Ledger = dict[str, list[Row]]


@dataclass(frozen=True)
class Ran:
    """A command of a round that has ended.

    Args:
        words: what was typed after ``qctl``.
        code: its exit code; negative: the signal that ended it.
        disturbed: whether there was a fault before its end.
    """

    words: tuple[str, ...]
    running: Running
    code: int
    disturbed: bool

    @property
    def name(self) -> str:
        return " ".join(self.words[:4])


def check_round(
    stage: Stage, acknowledged: Mapping[str, float], unsure: set[str], ran: list[Ran]
) -> Iterator[str]:
    """The violations of a round."""
    ledger = stage.rows()
    client, keys = stage.lab.client, stage.lab.keys(QUEUE)
    gone = {
        job_id: at
        for job_id, at in acknowledged.items()
        if job_id not in ledger and not client.call("EXISTS", keys(job_id))
    }
    hits = [*stage.hits, *stage.repairs, *stage.standstills]
    forgotten = {
        job_id for job_id, at in acknowledged.items() if any(hit.may_forget(at) for hit in hits)
    }
    yield from _check_states(stage, ledger, acknowledged, forgotten, ran, hits)
    yield from check_starts(ledger, hits)
    strangers = ledger.keys() - set(acknowledged) - unsure
    if strangers:
        yield f"jobs ran that nobody added: {sorted(strangers)[:5]}"
    beside = (Ran(words, run, run.finish().code, True) for words, run in stage.beside)
    for each in [*ran, *beside]:
        yield from _check_command(each)
        if report := _drain_report(each):
            for text in check_report(report, each, ledger, hits):
                yield f"{each.name}: {text}"
            for text in check_forgotten(report, each, gone, hits):
                yield f"{each.name}: {text}"
    yield from _check_leftovers(stage)
    yield from _check_doctor(stage)


def _check_states(
    stage: Stage,
    ledger: Ledger,
    acknowledged: Mapping[str, float],
    forgotten: set[str],
    ran: list[Ran],
    hits: list[Hit],
) -> Iterator[str]:
    """Each acknowledged job is in exactly one state, and has completed once."""
    client, keys = stage.lab.client, stage.lab.keys(QUEUE)
    completed = Counter(client.call("ZRANGE", keys("completed"), 0, -1))
    failed = set(client.call("ZRANGE", keys("failed"), 0, -1))
    typed = [*(each.words for each in ran), *(words for words, _ in stage.beside)]
    deleted = any(words[0] == "purge" or words[1] == "remove" for words in typed)
    for job_id in acknowledged:
        rows = ledger.get(job_id, [])
        may_fail = _is_hopeless(rows) or was_refused(rows, hits)
        if job_id in completed and job_id in failed:
            yield f"job {job_id} is both completed and failed"
        elif job_id in completed:
            times = stage.completions.get(job_id, [])
            kept = [at for at in times if not any(hit.may_forget(at) for hit in hits)]
            if not times or len(kept) > 1:
                yield f"job {job_id} completed {len(times)} times, at {times}"
            if not any(row["ev"] == "end" for row in rows):
                yield f"job {job_id} is completed, and its handler never ended: {_history(rows)}"
        elif job_id in failed:
            if not may_fail:
                why = client.call("HGET", keys(job_id), "failedReason")
                yield f"job {job_id} failed, and was meant to complete: {why}: {_history(rows)}"
        elif job_id in forgotten or (may_fail and deleted):
            continue
        else:
            exists = client.call("EXISTS", keys(job_id))
            hash_ = "its hash exists" if exists else "its hash is gone"
            yield f"job {job_id} is in no state, {hash_}: {_history(rows)}"


def _is_hopeless(rows: list[Row]) -> bool:
    """Whether a job may be in ``failed``, or was purged from there."""
    return bool(rows) and rows[-1]["name"] == HOPELESS and rows[-1]["ev"] == "fail"


def was_refused(rows: list[Row], hits: list[Hit]) -> bool:
    """Whether Redis may have refused that a job completed: BullMQ then lets the job fail."""
    return any(
        row["ev"] == "end"
        and row["worker"] != "qctl"
        and any(hit.refuses and hit.began <= row["at"] <= hit.over for hit in hits)
        for row in rows
    )


def check_starts(ledger: Ledger, hits: list[Hit]) -> Iterator[str]:
    """Each start after the first follows a failure, or a fault that cut the run before it short."""
    for job_id, rows in ledger.items():
        begun: dict[int, float] = {}
        for row, again in itertools.pairwise(rows):
            if row["ev"] == "start":
                begun[row["pid"]] = row["at"]
            if again["ev"] != "start" or row["ev"] == "fail":
                continue
            first = {**row, "since": begun.get(row["pid"], row["at"])}
            if not any(hit.explains(first, again) for hit in hits):
                yield f"job {job_id} started again, and no fault explains it: {_history(rows)}"


def _history(rows: list[Row]) -> str:
    runs = (
        f"{r['ev']} {r['at']:.3f} {r['worker'] or 'node'} pid {r['pid']} "
        f"attempt {r['ats']}/{r['atm']}"
        for r in rows
    )
    return ", ".join(runs) or "it never started"


def _check_command(each: Ran) -> Iterator[str]:
    """A command ends with a documented code and a report, and without a fault it succeeds."""
    said = each.running.remarks.strip()
    if "Traceback" in said:
        yield f"{each.name}: a traceback: {said[-1500:]}"
    # A signal may come before its handler is there, and then nothing has happened yet.
    is_early = each.code == -15 and not said and not each.running.said
    if each.code not in {0, 1, 3, 4, 5, 6, 7, 130, -9} and not is_early:
        yield f"{each.name}: exit code {each.code}: {said}"
    if not each.disturbed and each.code != 0:
        yield f"{each.name}: exit code {each.code} without a fault: {said}"


def _drain_report(each: Ran) -> dict[str, Any] | None:
    steps = each.running.steps() if each.words[0] in {"drain", "restart"} else []
    return steps[-1] if steps and steps[-1]["step"] == "report" else None


def check_report(
    report: dict[str, Any], each: Ran, ledger: Ledger, hits: list[Hit]
) -> Iterator[str]:
    """The drain's report equals the ledger."""
    over = each.running.arrivals[-1]
    begun = each.running.arrivals[0]
    forgot = [hit for hit in hits if hit.forgets and hit.began <= over and begun <= hit.over]
    # Who starts later has nothing to lose, but the workers still run jobs that Redis forgot.
    may_lose = any(hit.forgets and each.running.began <= hit.forgets[1] for hit in forgot)
    if report["lost"] and not may_lose:
        yield f"{report['lost']} jobs reported as lost: {report['jobs']}"
    if each.code == 0 and report["outcome"] not in {"drained", "restarted"}:
        yield f"exit code 0 and outcome {report['outcome']}"
    results = Counter(job["result"] for job in report["jobs"])
    for word in ("completed", "failed", "retried", "interrupted"):
        if report[word] is not None and report[word] != results[word]:
            yield f"{word} is {report[word]}, and {results[word]} jobs have that result"
    for job in report["jobs"]:
        rows = ledger.get(job["id"], [])
        before = [row for row in rows if row["at"] <= over]
        wanted = {"completed": "end", "failed": "fail", "retried": "fail"}.get(job["result"])
        if job["result"] == "retried" and (forgot or not _had_started(each, rows)):
            # Its worker was not told that it got the job, and has given it back; or Redis forgot
            # that it has ended.
            continue
        if wanted == "fail" and was_refused(before, hits):
            continue
        if wanted and not any(row["ev"] == wanted for row in before):
            yield f"job {job['id']} is reported as {job['result']}: {_history(rows)}"
    if not forgot:
        yield from _check_active(report, each, ledger)
    interrupted = {job["id"] for job in report["jobs"] if job["result"] == "interrupted"}
    if interrupted and not hits:
        yield f"jobs {sorted(interrupted)} are reported as interrupted, and there was no fault"
    if (
        report["interrupted"] is not None
        and report["outcome"] in {"drained", "restarted"}
        and not forgot
    ):
        missing = _cut_while_paused(each, ledger, hits) - interrupted
        if missing:
            told = {job["id"]: job["result"] for job in report["jobs"]}
            yield from (
                f"job {job_id} was cut short, and is reported as {told.get(job_id, 'nothing')}: "
                f"{_history(ledger[job_id])}"
                for job_id in sorted(missing)
            )


def check_forgotten(
    report: dict[str, Any], each: Ran, gone: Mapping[str, float], hits: list[Hit]
) -> Iterator[str]:
    """If Redis forgot jobs between the pause of a drain and its end, no drain says "lost 0".

    Args:
        gone: jobs that have never run and are gone → when they were acknowledged.
    """
    times = _times(each)
    if report["lost"] != 0 or not {"paused", "drained"} <= times.keys():
        return
    forgetting = [hit for hit in hits if hit.forgets]
    for hit in forgetting:
        if not times["paused"] <= hit.began <= times["drained"]:
            continue
        # If a later fault forgot too, it may be the one that these jobs did not survive.
        if hit.forgets and hit.forgets[0] and len(forgetting) > 1:
            continue
        earlier = [other for other in forgetting if other.began < hit.began]
        held = sum(
            at < times["plan"]
            and hit.may_forget(at)
            and not any(other.may_forget(at) for other in earlier)
            for at in gone.values()
        )
        if held > report["proof"]["deleted"]:
            yield f"Redis forgot {held} waiting jobs ({hit.kind}), reported is {report}"


def _check_active(report: dict[str, Any], each: Ran, ledger: Ledger) -> Iterator[str]:
    """Each job that ran during the whole pause of a drain is in its report."""
    times = _times(each)
    if report["outcome"] not in {"drained", "restarted"} or not {"plan", "paused"} <= times.keys():
        return
    told = {job["id"] for job in report["jobs"]}
    for job_id, rows in ledger.items():
        for first, last in itertools.pairwise(rows):
            whole = first["at"] < times["plan"] and times["paused"] < last["at"]
            is_one_run = first["ev"] == "start" != last["ev"] and first["pid"] == last["pid"]
            if whole and is_one_run and job_id not in told:
                yield f"job {job_id} was active, and is not reported: {_history(rows)}"


def _times(each: Ran) -> dict[str, float]:
    """When a command printed each step; the last time of each."""
    pairs = zip(each.running.steps(), each.running.arrivals, strict=False)
    return {step["step"]: at for step, at in pairs}


def _had_started(each: Ran, rows: list[Row]) -> bool:
    """Whether a job had started when a drain had paused its queue."""
    paused = _times(each).get("paused", each.running.arrivals[0])
    return any(row["at"] <= paused for row in rows)


def _cut_while_paused(each: Ran, ledger: Ledger, hits: list[Hit]) -> set[str]:
    """The jobs that the killed processes had in hand between a drain's pause and its resume."""
    times = _times(each)
    if not {"paused", "resumed"} <= times.keys():
        return set()
    found = set()
    for hit in hits:
        if not hit.pids or not times["paused"] <= hit.began <= times["resumed"]:
            continue
        for job_id, rows in ledger.items():
            before = [row for row in rows if row["at"] <= hit.began]
            after = rows[len(before) :]
            cut = before and before[-1]["ev"] == "start" and before[-1]["pid"] in hit.pids
            # The process may have gone on for a moment.
            if cut and after and after[0]["ev"] == "start":
                found.add(job_id)
    return found


def _check_doctor(stage: Stage) -> Iterator[str]:
    """qctl itself finds no error in the queue."""
    done = stage.qctl("doctor", QUEUE, "--full", "--json").finish()
    for finding in done.json["findings"]:
        if finding["severity"] == "error":
            yield f"doctor: {finding['check']}: {finding['what']} {finding['evidence']}"


def _check_leftovers(stage: Stage) -> Iterator[str]:
    """Nothing is left paused, leased, locked or running."""
    lab = stage.lab
    if lab.is_paused(QUEUE):
        yield "the queue is left paused"
    if traces := lab.traces():
        yield f"qctl left keys: {traces}"
    nodes = lab.client.masters()
    if locks := [lock for node in nodes for lock in node.call("KEYS", lab.keys(QUEUE).lock("*"))]:
        yield f"locks are left: {locks[:5]}"
    left = [place for place in ("wait", "paused", "active", "prioritized", "delayed")
            if lab.client.call("EXISTS", lab.keys(QUEUE)(place))]  # fmt: skip
    if left:
        yield f"jobs are left in {left}"
    processes = stage.processes()
    wanted = {
        "worker.js": stage.scene.instances,
        "runtime.processes.background": 1,
        "runtime.processes.child": CHILDREN,
        # Besides the process that commands are forked from, those that have not ended.
        "forked_qctl.py": 1,
        "bull.js": 1,
    }
    if wrong := {name: n for name, n in processes.items() if n != wanted.get(name, n)}:
        yield f"processes run: {wrong}, and should be {wanted}"
    if unknown := processes.keys() - wanted.keys() - MAY_RUN:
        yield f"unknown processes are left: {unknown}"
