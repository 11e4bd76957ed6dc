"""``qctl top``: the keys against a real Redis, and the whole of it in a real terminal."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from qctl.cli.environment import Environment
from qctl.cli.options import CommonOptions
from qctl.cli.streams import Streams
from qctl.cli.top_actions import CommandActions
from qctl.cli.top_details import CommandDetails
from qctl.config.files import Origin
from qctl.config.guards import Guards
from qctl.config.settings import Settings
from qctl.connection.address import Client
from qctl.connection.connect import connect
from qctl.errors import RefusedError
from qctl.extras import install_command
from qctl.ops.live.view import LiveReader
from qctl.output.top.app import TopApp
from qctl.wire.keys import QueueKeys
from qctl.wire.write.pausing import hold_lease
from tests.labs.build import Q, holder, is_paused, put, row
from tests.labs.cli import run
from tests.labs.servers import wait_until
from tests.output.top.pilot import drive, until


@pytest.fixture
def app(redis_url: str, tmp_path: Path) -> Iterator[TopApp]:
    environ = {"XDG_STATE_HOME": str(tmp_path), "PM2_HOME": str(tmp_path), "HOME": str(tmp_path)}
    env = Environment(
        replace(Streams.standard(), environ=environ), CommonOptions(redis_url=redis_url)
    )
    address, client = connect(redis_url)
    reader = LiveReader(client, address, env.settings)
    _, other = connect(redis_url)
    details = CommandDetails(other, address, env.settings, reader.keys_of)
    yield TopApp(reader.read, CommandActions(env, reader.keys_of), details, interval_s=0.3)
    client.close()
    other.close()
    env.close()


def test_pause_and_resume(app: TopApp, client: Client) -> None:
    put(client, "1", "active", lock="t")

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, ">  q ")
        await pilot.press("p")
        await until(pilot, app, "Pause q?", "q will be paused; 1 active job will continue", "y yes")
        assert not is_paused(client)
        await pilot.press("y")
        await until(pilot, app, "Esc closes")
        assert is_paused(client)
        await pilot.press("escape")
        await until(pilot, app, "paused", "q: ")
        await pilot.press("r")
        await until(pilot, app, "Resume q?", "q was paused by qctl pause of", "q will be resumed")
        await pilot.press("y")
        await until(pilot, app, "Esc closes")
        assert not is_paused(client)
        # The queue's clients are of BullMQ 5 and BullMQ 6.
        client.call("HSET", Q("meta"), "version", "bullmq:6.7.0")
        client.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
        await pilot.press("escape", "p")
        await until(pilot, app, "Nothing was changed", "with: m --mixed-versions")
        await pilot.press("m")
        await until(pilot, app, "Pause q --mixed-versions?", "q will be paused")
        assert not is_paused(client)
        await pilot.press("y")
        await until(pilot, app, "Esc closes")
        assert is_paused(client)

    drive(app, steps)


def test_a_queue_that_is_being_drained_is_not_resumed(app: TopApp, client: Client) -> None:
    put(client, "1")
    client.call("HSET", Q("meta"), "paused", "1")
    assert hold_lease(client, Q, holder("other", "drain")) is None

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "draining")
        await pilot.press("r")
        await until(
            pilot, app, "Nothing was changed", "queue q is being drained", "ada@host", "f --force"
        )
        await pilot.press("f")
        await until(pilot, app, "Resume q --force?", "q will be resumed")
        await pilot.press("n", "d")
        await until(pilot, app, "1  drain; the queue stays paused")
        await pilot.press("1")
        await until(pilot, app, "Nothing was changed", "error:")

    drive(app, steps)
    assert is_paused(client)


def test_a_stalled_job_is_put_back_and_a_running_one_is_not(app: TopApp, client: Client) -> None:
    put(client, "1", "active")
    put(client, "2", "active", lock="t")
    put(client, "3", "active")

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "ACTIVE JOBS of q 1/3")
        await pilot.press("tab", "end", "t")
        await until(pilot, app, "Nothing was changed", "job '2' of q is not stalled")
        await pilot.press("escape", "home", "t")
        await until(pilot, app, "Put job 1 of q back?")
        await pilot.press("y")
        await until(pilot, app, "q: 1 job put back: 1")

    drive(app, steps)
    assert row(client, "wait") == ["1"]
    assert sorted(row(client, "active")) == ["2", "3"]


def test_a_failed_job_is_retried_once(app: TopApp, client: Client) -> None:
    put(client, "0")

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "FAILURES", ">  q ")
        put(client, "7", "failed", failedReason="bang", finishedOn=1)
        # Until the view follows the stream: what was there before it is not shown.
        for _ in range(200):
            client.call(
                *("XADD", Q("events"), "*", "event", "failed", "jobId", "7"),
                *("failedReason", "bang\x1b[2J"),
            )
            await pilot.pause(0.1)
            if app.query_one("#failures").chosen:  # type: ignore[attr-defined]
                break
        await until(pilot, app, "bang\\x1b[2J")
        for answer in ("q: job 7 retried", "it is no longer failed"):
            await pilot.press("shift+tab" if "retried" in answer else "escape", "t")
            await until(pilot, app, "Retry job 7 of q?")
            await pilot.press("y")
            await until(pilot, app, answer)

    drive(app, steps)
    assert row(client, "wait") == ["7", "0"]


def test_a_job_in_full(app: TopApp, client: Client) -> None:
    put(
        client,
        "1",
        "active",
        lock="t",
        data=json.dumps({"to": "ada\x1b[31m", "list": ["x" * 60]}),
        stacktrace=json.dumps(["Error: bang\n    at run (app.js:1:1)"]),
    )
    client.call("RPUSH", Q("1:logs"), "first row", "escape \x1b[2J", *map(str, range(600)))

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, "ACTIVE JOBS of q 1/1")
        await pilot.press("tab", "enter")
        await until(pilot, app, "Job 1 of q", "state", "active", "t, ", "data:", '  "list": [')
        await pilot.press("end")
        await until(
            pilot,
            app,
            *("stack trace 1 of 1", "at run (app.js:1:1)"),
            *("last rows of the log (602 in all", "  599"),
        )
        await pilot.press("l")
        await until(pilot, app, "Log of job 1 of q", "last 500 of 602 rows", "599")
        client.call("DEL", Q("1:logs"))
        client.call("RPUSH", Q("1:logs"), "escape \x1b[2J")
        await until(pilot, app, "escape \\x1b[2J", "1 row, read every second")

    drive(app, steps)


def test_a_group_of_failures_is_retried(
    app: TopApp, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        reason = f"no answer from 10.0.0.{number % 200}" if number % 3 else "mailbox full"
        put(client, str(number), "failed", score=number + 1, failedReason=reason, finishedOn=1)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, ">  q ")
        await pilot.press("f")
        await until(pilot, app, "FAILED JOBS of q by reason 1/2", "200  66.7 %", "100  33.3 %")
        await pilot.press("down")
        await until(pilot, app, "qctl jobs retry-failed q --where 'shape = \"mailbox full\"'")
        await pilot.press("t")
        await until(pilot, app, "Retry 100 failed jobs of q?", "mailbox full", "y yes")
        assert not row(client, "wait")
        await pilot.press("y")
        await until(pilot, app, "✔ retried 100 jobs of q", "Esc closes")
        # A count that is bounded says what it has read.
        monkeypatch.setattr("qctl.cli.top_details.MAX_FAILURES", 1)
        await pilot.press("escape", "f")
        await until(pilot, app, "only the oldest", "of 200 failed jobs were read")
        await pilot.press("t")
        await until(pilot, app, "Retry at least", "failed jobs of q?")

    drive(app, steps)
    assert sorted(map(int, row(client, "wait"))) == list(range(0, 300, 3))


def test_drain_shows_its_steps_and_can_be_stopped(app: TopApp, client: Client) -> None:
    put(client, "1", "active", lock="t")

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, ">  q ")
        await pilot.press("d")
        await until(pilot, app, "1  drain")
        await pilot.press("1")
        await until(pilot, app, "Drain q?", "running  1 job", "t --timeout 1h")
        await pilot.press("t")
        await until(pilot, app, "Drain q --timeout 1h?", "t --timeout 1m")
        assert not is_paused(client)
        await pilot.press("y")
        await until(pilot, app, "✔ paused q", "waiting for 1 of 1 job", "s stops")
        await pilot.press("s")
        await until(
            pilot,
            app,
            "✔ resumed q",
            "✖ not drained",
            "stopped by s, Ctrl-C",
            "Esc closes",
            absent="Drain q",
        )
        assert not is_paused(client)
        await pilot.press("escape", "d")
        await until(pilot, app, "1  drain")
        await pilot.press("1")
        await until(pilot, app, "Drain q?")
        await pilot.press("y")
        await until(pilot, app, "waiting for 1 of 1 job")
        client.call("LREM", Q("active"), 1, "1")
        await until(pilot, app, "✔ no job is running", "drained   q", "qctl resume q")

    drive(app, steps)
    assert is_paused(client)


def test_what_it_needs(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    ran = run("top", QCTL_REDIS_URL=redis_url)
    assert (ran.code, "--watch" in ran.err) == (2, True)
    assert run("top", "--json", terminal=True, QCTL_REDIS_URL=redis_url).code == 2
    ran = run("top", "nosuch", terminal=True, QCTL_REDIS_URL=redis_url)
    assert (ran.code, "nosuch" in ran.err) == (3, True)
    assert run("top", terminal=True, QCTL_REDIS_URL="redis://127.0.0.1:1/0").code == 6
    monkeypatch.setattr("qctl.cli.top.find_spec", lambda _: None)
    ran = run("top", terminal=True, QCTL_REDIS_URL=redis_url)
    assert (ran.code, install_command("top") in ran.err) == (1, True)


class Terminal:
    """A terminal of 80 by 24 cells, with a shell in it."""

    def __init__(self, socket: Path) -> None:
        self._command = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self.tmux("new-session", "-d", "-x", "80", "-y", "24", "env NO_COLOR=1 PS1='$ ' sh")

    def tmux(self, *words: str) -> str:
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def keys(self, *names: str) -> None:
        self.tmux("send-keys", *names)

    def text(self, *flags: str) -> str:
        return self.tmux("capture-pane", "-p", *flags)

    def until(self, part: str) -> str:
        def shown() -> str:
            text = self.text()
            return text if part in text else ""

        return wait_until(shown, f"{part!r} on the terminal")

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    terminal = Terminal(tmp_path / "tmux")
    yield terminal
    terminal.close()


def test_in_a_real_terminal(terminal: Terminal, redis_url: str, client: Client) -> None:
    put(client, "1")
    qctl = shlex.join([sys.executable, "-m", "qctl", "top", "--redis", redis_url])
    line = f"{qctl}; echo left with $?"
    terminal.keys("clear; " + line, "Enter")
    assert terminal.until(">  q ").count("\n") == 24
    assert not re.search(r"\x1b\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])m", terminal.text("-e"))
    terminal.keys("p")
    terminal.until("Pause q?")
    assert not is_paused(client)
    terminal.keys("y")
    wait_until(lambda: is_paused(client), "the pause")
    terminal.until("Esc closes")
    terminal.keys("Escape")
    terminal.until("QUEUES 1/1")
    terminal.until(" paused ")
    terminal.keys("q")
    terminal.until("left with 0")
    terminal.keys("clear; " + line, "Enter")
    terminal.until("QUEUES 1/1")
    terminal.keys("C-c")
    terminal.until("left with 130")
    _is_restored(terminal)


def test_sigterm_restores_the_terminal(
    terminal: Terminal, redis_url: str, client: Client, tmp_path: Path
) -> None:
    put(client, "1")
    qctl = shlex.join([sys.executable, "-m", "qctl", "top", "--redis", redis_url])
    pid = tmp_path / "pid"
    # The shell becomes qctl, so its pid is the one to signal.
    terminal.keys(f"sh -c 'echo $$ > {pid}; exec {qctl}'; echo left with $?", "Enter")
    terminal.until("QUEUES 1/1")
    subprocess.run(["kill", f"-{int(signal.SIGTERM)}", pid.read_text().strip()], check=True)
    terminal.until("left with 130")
    _is_restored(terminal)


def _is_restored(terminal: Terminal) -> None:
    terminal.keys("clear; stty -a | grep -o ' -*icanon'; echo after", "Enter")
    assert " icanon" in terminal.until("\nafter")
    modes = terminal.tmux("display", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}")
    assert modes.split() == ["0", "1", "0"]


GUARD = Origin("file", "/etc/qctl.toml")


def environment(settings: Settings) -> Environment:
    env = Environment(Streams.standard(), CommonOptions())
    env.settings = settings
    return env


@pytest.mark.parametrize(
    ("guards", "said"),
    [
        (Guards("prod", read_only=True), "is read-only"),
        # Its name would be typed for a Redis that is not its own.
        (Guards("prod", confirm=True, url_override="--redis"), "to another Redis"),
    ],
)
def test_a_guarded_context_is_not_written_to(guards: Guards, said: str) -> None:
    origins = dict.fromkeys(("read_only", "confirm"), GUARD)
    settings = Settings(context="prod", guards=guards, origins=origins)
    actions = CommandActions(environment(settings), lambda name: QueueKeys("bull", name))
    for act in (actions.pause, actions.resume, lambda queue: actions.drain(queue, None, 75)):
        with pytest.raises(RefusedError) as caught:
            act("q")
        assert said in caught.value.what
    with pytest.raises(RefusedError):
        actions.retry_failed("q", "1")


def test_a_context_that_asks_for_its_name(redis_url: str, client: Client) -> None:
    put(client, "1", "active", lock="t")
    settings = Settings(
        redis_url=redis_url, guards=Guards("prod", confirm=True), origins={"confirm": GUARD}
    )
    address, own = connect(redis_url)
    env = environment(settings)
    reader = LiveReader(own, address, settings)
    details = CommandDetails(own, address, settings, reader.keys_of)
    app = TopApp(reader.read, CommandActions(env, reader.keys_of), details, interval_s=0.3)

    async def steps(pilot: Pilot[int]) -> None:
        await until(pilot, app, ">  q ")
        await pilot.press("p")
        text = await until(pilot, app, "Pause q?", "This writes to context prod.")
        assert "q will be paused; 1 active job will continue" in text
        # y is no answer, nor is another name, and no letter is a key of the view behind.
        await pilot.press("y", "enter")
        await until(pilot, app, "another name was typed: nothing was done")
        await pilot.press("q", "enter", "escape")
        await until(pilot, app, "QUEUES 1/1", absent="Pause q?")
        assert not is_paused(client)
        await pilot.press("p")
        await until(pilot, app, "Pause q?")
        await pilot.press(*"prod", "enter")
        await until(pilot, app, "q paused", "Esc closes")
        assert is_paused(client)

    with contextlib.closing(own), contextlib.closing(env):
        drive(app, steps)


def test_an_action_on_a_queue_of_another_prefix(redis_url: str, client: Client) -> None:
    mail, other = QueueKeys("{mail}", "mail"), QueueKeys("bull", "mail")
    for keys in (mail, other):
        put(client, "1", keys=keys)
    env = environment(Settings(redis_url=redis_url))
    actions = CommandActions(env, lambda _: mail)
    for act, paused in ((actions.pause, 1), (actions.resume, 0)):
        list(act("mail@{mail}").carry_out(lambda: False))
        assert client.call("HEXISTS", mail("meta"), "paused") == paused
        assert client.call("HEXISTS", other("meta"), "paused") == 0
    env.close()
