"""``impact`` as typed: what it looks like, its JSON and its exit codes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.output.text import cells
from qctl.wire.keys import QueueKeys
from qctl.wire.read import heartbeats
from qctl.wire.states import DELAY_FACTOR
from qctl.wire.write.pausing import hold_lease
from tests.labs import impact as labs
from tests.labs.build import Q, holder, put
from tests.labs.cli import Ran, run
from tests.labs.impact import BEAT, Apps

apps = labs.apps
Typed = Callable[..., Ran]


@pytest.fixture
def qctl(redis_url: str, apps: Apps) -> Typed:
    """Runs ``qctl impact``; pm2:app serves q."""

    def typed(*words: str, **options: Any) -> Ran:
        return run("impact", *words, QCTL_REDIS_URL=redis_url, **options)

    return typed


def fill(client: Client, jobs: int = 3, name: str = "import") -> int:
    """Running jobs with a history of 200 of 10 s each; the time now."""
    now = int(time.time() * 1000)
    for number in range(200):
        at = now - 600_000 - number * 1_000_000
        put(
            client, f"old{number}", "completed",
            score=at, name=name, processedOn=at - 10_000, finishedOn=at,
        )  # fmt: skip
    for number in range(jobs):
        stalls = {"stc": 1} if number == 0 else {}
        put(
            client, f"run{number}", "active",
            lock="t", name=name, processedOn=now - 4000, **stalls,
        )  # fmt: skip
    return now


def schedule(client: Client, next_ms: int) -> None:
    client.call("HSET", Q("repeat:sync"), "ic", 1, "name", "sync", "every", 60_000)
    client.call("ZADD", Q("repeat"), next_ms, "sync")
    put(client, f"repeat:sync:{next_ms}", "delayed", score=next_ms * DELAY_FACTOR)


def verdict(out: str) -> list[str]:
    """The lines of the verdict, which is the first block."""
    return out.partition("\n\n")[0].splitlines()


def rows(out: str) -> dict[str, str]:
    """The table's rows by aspect, each on one line."""
    found: dict[str, str] = {}
    aspect = ""
    for line in out.partition("ASPECT")[2].partition("\n\n")[0].splitlines()[1:]:
        aspect = line[:13].strip() or aspect
        found[aspect] = f"{found.get(aspect, '')} {' '.join(line[13:].split())}".strip()
    return found


def test_one_screen_with_the_answer_first(qctl: Typed, client: Client) -> None:
    schedule(client, fill(client) + 90_000)
    ran = qctl(terminal=True, NO_COLOR="1")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert max(map(cells, lines)) <= 80
    assert lines[0].startswith("drain first: a plain restart")
    assert verdict(ran.out)[-1] == "    qctl restart pm2:app"
    assert "a plain restart now of pm2:app, which serves q" in lines
    assert "  id 0, pid 4711, online: SIGINT, SIGKILL 1.6 s later" in lines
    told = rows(ran.out)
    assert told["Active jobs"].startswith("3 of 3 interrupted")
    assert "usually 10 s, p95 10 s (measured on 200 jobs)" in " ".join(ran.out.split())
    assert "1 job" in told["Fail for good"]
    assert "run0" in told["Fail for good"]
    assert "1 unaffected" in told["Delayed"]
    assert "every 1 min" in told["Scheduled"]
    assert "none by a restart" in told["Data loss"]
    assert "until the jobs end" in " ".join(told["Downtime"].split())
    assert "\x1b" not in ran.out


def test_colours_are_for_terminals(qctl: Typed, client: Client) -> None:
    fill(client)
    assert "\x1b[" in qctl(terminal=True).out
    assert "\x1b[" not in qctl().out


def test_repeatables_that_it_cannot_read_are_not_none(qctl: Typed, client: Client) -> None:
    put(client, "1", "completed")
    assert "none" in rows(qctl("q").out)["Scheduled"]
    client.call("ZADD", Q("repeat"), 1, "old::::* * * * *")
    ran = qctl("q")
    assert "unknown" in rows(ran.out)["Scheduled"]
    assert "1 more was not looked at" in ran.out
    assert json.loads(qctl("q", "--json").out)["schedules_unread"] == 1


def test_a_scheduler_that_is_overdue_is_not_called_unaffected(qctl: Typed, client: Client) -> None:
    put(client, "1", "completed")
    schedule(client, int(time.time() * 1000) - 3_600_000)
    ran = qctl("q")
    assert "1 overdue" in rows(ran.out)["Scheduled"]
    assert "next due 1 h ago" in ran.out


def test_without_a_stalled_check_nobody_promises_a_second_run(qctl: Typed, client: Client) -> None:
    fill(client, jobs=1)
    line = rows(qctl("q").out)["Run again"]
    assert "unknown" in line
    assert "no stalled check has run lately" in line
    client.call("SET", Q("stalled-check"), round(time.time() * 1000), "PX", 30_000)
    line = rows(qctl("q").out)["Run again"]
    assert line.startswith("in ")
    assert "unknown" not in line


def test_a_paused_queue_runs_nothing_again(qctl: Typed, client: Client) -> None:
    fill(client)
    client.call("HSET", Q("meta"), "paused", 1)
    told = rows(qctl().out)
    assert "q is paused, so no job runs there until a resume" in told["Run again"]


def test_nothing_runs(qctl: Typed, client: Client) -> None:
    put(client, "1", "completed")
    ran = qctl("q", terminal=True, NO_COLOR="1")
    told = rows(ran.out)
    assert told["Active jobs"] == "none running"
    assert "Fail for good" not in told
    assert "Run again" not in told
    assert "Best time: unknown" in ran.out
    assert verdict(ran.out) == [
        "safe now: no job is running, and no job is known that could start at this moment",
        "    qctl restart pm2:app",
    ]


def test_many_queues_and_long_names_fit(qctl: Typed, apps: Apps, client: Client) -> None:
    long = "x" * 120
    apps.owned = {
        "0": tuple(apps.worker(index, queue=f"{long}{index}") for index in range(30)),
    }
    for index in range(30):
        keys = QueueKeys("bull", f"{long}{index}")
        put(client, "1" * 200, "active", keys=keys, lock="t", name=long)
    ran = qctl(terminal=True, NO_COLOR="1")
    assert ran.code == 0
    # A command is never cut: it is there to be copied.
    shown = [line for line in ran.out.splitlines() if not line.startswith("    qctl")]
    assert max(map(cells, shown)) <= 80
    assert len(shown) < 80


def test_a_thousand_queues_fit_on_a_screen(qctl: Typed, apps: Apps, client: Client) -> None:
    apps.processes, apps.owned = [], {}
    names = [f"queue-{index:04d}" for index in range(1000)]
    client.pipeline([("HSET", f"bull:{n}:meta", "version", "bullmq:6.7.0") for n in names])
    client.pipeline([("RPUSH", f"bull:{n}:wait", "1") for n in names])
    ran = qctl(terminal=True, NO_COLOR="1")
    lines = ran.out.splitlines()
    assert (ran.code, len(lines) < 50) == (0, True)
    assert "may start at any moment; and 995 more (--json has all)" in " ".join(ran.out.split())
    first = " ".join(names[:5])
    assert verdict(ran.out)[-3:] == [
        f"    # qctl drain {first} and 995 more (--json has all)",
        "    # then restart the workers, and",
        f"    # qctl resume {first} and 995 more (--json has all)",
    ]
    told = json.loads(qctl("--json").out)["verdict"]
    assert len(told["reasons"]) == 1000
    assert told["commands"][0] == f"qctl drain {' '.join(names)}"
    # With options behind the names.
    apps.processes = labs.Apps().processes
    shown = verdict(qctl("--target", "pm2:app").out)[-1]
    options = "--then-restart --target pm2:app"
    assert shown == f"    # qctl drain {first} and 995 more {options} (--json has all)"


def test_a_dozen_queues_can_be_copied(qctl: Typed, apps: Apps, client: Client) -> None:
    apps.processes, apps.owned = [], {}
    names = [f"q{index:02d}" for index in range(12)]
    for name in names:
        put(client, "1", keys=QueueKeys("bull", name))
    assert f"    qctl drain {' '.join(names)}\n" in qctl().out


def test_a_queue_of_bull_is_named(qctl: Typed, apps: Apps, client: Client) -> None:
    apps.owned = {"0": (apps.worker(1, queue="old"),)}
    client.call("SET", "bull:old:id", "7")
    client.call("LPUSH", "bull:old:active", "7")
    client.call("HSET", "bull:old:7", "name", "x", "timestamp", "1")
    ran = qctl("--target", "pm2:app")
    assert "a plain restart now of pm2:app, which serves old\n" in ran.out
    assert rows(ran.out)["Active jobs"] == "none known not read: old"
    assert "not now: old is a queue of Bull 3 or 4, which qctl cannot judge" in ran.out
    assert verdict(ran.out)[-1] == "    qctl status old"


def test_ten_thousand_jobs(qctl: Typed, client: Client) -> None:
    ids = [f"j{index}" for index in range(10_000)]
    put(client, "1", "completed")
    commands = [("HSET", Q(i), "name", "import", "processedOn", 1) for i in ids]
    commands += [("SET", Q.lock(i), "t") for i in ids]
    client.pipeline([*commands, ("RPUSH", Q("active"), *ids)])
    ran = qctl(terminal=True, NO_COLOR="1")
    assert rows(ran.out)["Active jobs"].startswith("10,000 of 10,000 ")
    assert "and 9,990 more (--json has all)" in " ".join(ran.out.split())


def test_json_is_one_object_with_the_fields_of_the_contract(qctl: Typed, client: Client) -> None:
    schedule(client, fill(client) + 90_000)
    ran = qctl("q", "--away", "3m", "--json")
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert told["verdict"]["word"] == "drain first"
    assert told["interrupted"][0] == {"queue": "q", "id": "run0"}
    assert told["fails_for_good"] == [{"queue": "q", "id": "run0"}]
    assert told["asked_at"].endswith("Z")
    assert (told["away_s"], told["schedules"][0]["skipped"]) == (180, 1)
    assert told["runtimes"] == [
        {"queue": "q", "name": "import", "active": 3, "sample": 200, "p50_s": 10.0, "p95_s": 10.0}
    ]
    assert len(told["best_time"]["jobs_by_hour"]) == 24
    assert told["data"][0]["persistence"] == "none"


def test_best_and_worst_case(qctl: Typed, apps: Apps, client: Client) -> None:
    apps.processes = [replace(apps.processes[0], kill_timeout_ms=30_000)]
    fill(client)
    text = " ".join(qctl().out.split())
    assert "0 to 3 of 3 interrupted" in text
    assert "3 if the app exits at once on SIGINT; 0 if the app finishes" in text


def test_stalled_jobs_are_named_apart(qctl: Typed, client: Client) -> None:
    put(client, "lost", "active", stc=1)
    told = rows(qctl().out)
    # Its worker may be too busy to renew the lock.
    assert told["Active jobs"] == "none known to run"
    assert "1 already" in told["Stalled jobs"]
    assert "1 would fail for good at the next stalled check" in told["Stalled jobs"]


def test_workers_that_are_known_to_finish(qctl: Typed, apps: Apps, client: Client) -> None:
    apps.owned = {"0": (apps.worker(1, "ours"),)}
    heartbeats.beat(client, BEAT, int(time.time() * 1000))
    apps.processes = [replace(apps.processes[0], kill_timeout_ms=30_000)]
    fill(client)
    client.call("SET", Q.lock("run0"), "own-1:1")
    text = " ".join(qctl().out.split())
    assert "0 of 3 interrupted" in text
    assert "SIGKILL ends the jobs that need more than 30 s" in text
    assert "3 jobs are running, and will probably, but not certainly, end before the kill" in text


def test_workers_that_may_not_get_the_signal(qctl: Typed, apps: Apps, client: Client) -> None:
    """They would finish their jobs, as their heartbeats show."""
    trouble = "its command is npm, which may not pass SIGINT on"
    apps.processes = [replace(apps.processes[0], kill_timeout_ms=30_000, signal_trouble=trouble)]
    apps.owned = {"0": (apps.worker(1, "ours"),)}
    heartbeats.beat(client, BEAT, int(time.time() * 1000))
    fill(client)
    client.call("SET", Q.lock("run0"), "own-1:1")
    text = " ".join(qctl().out.split())
    assert f"SIGKILL 30 s later {trouble}" in text
    assert "0 to 3 of 3 interrupted" in text
    assert "drain first: a plain restart would interrupt 0 to 3 jobs" in text


def test_an_unknown_grace_is_never_safe(qctl: Typed, apps: Apps, client: Client) -> None:
    """Even workers that are known to finish their jobs may be killed before."""
    apps.processes = [replace(apps.processes[0], stop_signal="", kill_timeout_ms=None)]
    apps.owned = {"0": (apps.worker(1, "ours"),)}
    heartbeats.beat(client, BEAT, int(time.time() * 1000))
    fill(client)
    text = " ".join(qctl().out.split())
    assert "unknown stop signal, SIGKILL after an unknown time" in text
    assert "the time before SIGKILL is unknown, so all running jobs are counted" in text
    assert "a plain restart would interrupt 3 jobs" in text
    shown = json.loads(qctl("--json").out)
    assert shown["verdict"]["word"] == "drain first"
    assert (shown["kill_after_s"], shown["downtime"]["plain_s"]) == (None, None)
    assert shown["interrupted_if_handled"] is None
    (process,) = shown["processes"]
    assert (process["stop_signal"], process["kill_timeout_ms"]) == (None, None)


def test_it_says_what_it_does_not_know(qctl: Typed, apps: Apps, client: Client) -> None:
    apps.processes, apps.owned, apps.others = [], {}, (apps.worker(1),)
    fill(client)
    ran = qctl("q")
    assert "a restart now of all workers of q: no managed process on this host" in ran.out
    assert "the stop signal is unknown" in " ".join(ran.out.split())
    assert verdict(ran.out)[-3:] == [
        "    qctl drain q",
        "    # then restart the workers, and",
        "    qctl resume q",
    ]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nosuch",), 3, "no queue is called 'nosuch'"),
        (("pm2:app",), 3, "--target pm2:app"),
        (("q", "--target", "pm2:nosuch"), 3, "nosuch"),
        (
            ("q", "--away", "soon"),
            2,
            "--away 'soon' is not a duration",
        ),
    ],
)
def test_exit_codes(
    qctl: Typed, client: Client, words: tuple[str, ...], code: int, text: str
) -> None:
    put(client, "1")
    ran = qctl(*words)
    assert (ran.code, ran.out) == (code, "")
    assert text in ran.err


def test_a_queue_that_cannot_be_read_is_exit_7(qctl: Typed, apps: Apps, client: Client) -> None:
    apps.owned = {"0": (apps.worker(1), apps.worker(2, queue="other"))}
    put(client, "1", "completed")
    client.call("SET", "bull:other:meta", "text")
    ran = qctl("q")
    assert ran.code == 7
    assert "not now: other cannot be read" in ran.out


def test_a_drain_is_at_work(qctl: Typed, client: Client) -> None:
    put(client, "1", "completed")
    hold_lease(client, Q, holder("them", "drain"))
    assert "not now: " in qctl("q").out


def shape(value: Any) -> Any:
    """The keys of JSON, of what stands in its lists too."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def agree(documented: Any, real: Any, where: str = "") -> None:
    """The same keys, wherever both sides have some."""
    if isinstance(documented, dict) and isinstance(real, dict):
        assert list(documented) == list(real), where
        for key in documented:
            agree(documented[key], real[key], f"{where}.{key}")
    elif isinstance(documented, list) and isinstance(real, list):
        agree(documented[0], real[0], f"{where}[]")


def test_the_documented_json_is_the_real_one(qctl: Typed, client: Client) -> None:
    schedule(client, fill(client) + 90_000)
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    (block,) = re.findall(r"`impact`: one object.*?```json\n(.*?)```", page, re.DOTALL)
    agree(shape(json.loads(block)), shape(json.loads(qctl("q", "--json").out)))


def test_only_a_resume_comes_after_the_restart(client: Client, qctl: Typed, apps: Apps) -> None:
    apps.processes, apps.owned = [], {}
    put(client, "done", "completed", processedOn=1000, finishedOn=3_601_000)
    put(client, "1", "active", lock="t", processedOn=int(time.time() * 1000))
    hold_lease(client, Q, holder("them", "drain"))
    lines = verdict(qctl("q").out)
    assert lines[-4:] == [
        "    qctl status q",
        "    qctl drain q --timeout 90m",
        "    # then restart the workers, and",
        "    qctl resume q",
    ]


def test_a_platform_that_cannot_be_asked(qctl: Typed, client: Client) -> None:
    """Its grace and signal count, for all workers of the queues; no manager is asked."""
    fill(client)
    ran = qctl("q", "--grace", "1h", "--signal", "term", "--json")
    told = json.loads(ran.out)
    assert (told["target"], told["kill_after_s"], told["stop_signal"]) == (None, 3600.0, "SIGTERM")
    assert len(told["interrupted"]) == 3
    # The usual runs are of 10 s, so each job ends within the hour.
    assert told["interrupted_if_handled"] == []
    assert told["verdict"]["word"] == "drain first"
    assert json.loads(qctl("q", "--grace", "0s", "--json").out)["interrupted_if_handled"]
    shown = " ".join(qctl("q", "--grace", "1h", "--signal", "TERM").out.split())
    assert "if the app exits at once on SIGTERM" in shown


def test_a_grace_in_place_of_the_managers(qctl: Typed, client: Client) -> None:
    fill(client)
    told = json.loads(qctl("--target", "pm2:app", "--grace", "30s", "--json").out)
    (process,) = told["processes"]
    assert (process["kill_timeout_ms"], told["kill_after_s"]) == (30_000, 30.0)
    assert process["stop_signal"] == "SIGINT"


@pytest.mark.parametrize(
    "words", [("--signal", "TERM"), ("--grace", "soon"), ("--grace", "5s", "--signal", "NONE")]
)
def test_a_malformed_platform(qctl: Typed, words: tuple[str, ...]) -> None:
    assert qctl("q", *words).code == 2
