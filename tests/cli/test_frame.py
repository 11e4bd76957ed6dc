"""The frame: options, environment variables, errors and exit codes, lazy loading."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
import typer

from qctl.cli import program
from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.help import optional_value
from qctl.cli.options import COMMON_FLAGS, CommonOptions
from qctl.cli.streams import Streams
from qctl.errors import (
    ExitStatus,
    FailedError,
    NotFoundError,
    PartialError,
    QctlError,
    RefusedError,
    TimedOutError,
    UnreachableError,
    UsageError,
)
from tests.labs.cli import run


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """A command ``probe`` that does whatever the test puts under "do", and notes what it got."""
    box: dict[str, object] = {}
    app = App()

    @app.command("probe", cls=optional_value("--watch", "2"))
    def probe_command(
        env: Environment,
        names: Annotated[list[str] | None, typer.Argument()] = None,
        watch: Annotated[str | None, typer.Option("--watch")] = None,
    ) -> None:
        """A probe."""
        box.update(env=env, names=names or [], watch=watch)
        do = box.get("do")
        if callable(do):
            do(env)

    module = ModuleType("qctl.cli.probe")
    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "qctl.cli.probe", module)
    monkeypatch.setitem(program.COMMANDS, "probe", ("probe", "A probe."))
    return box


def env_of(probe: dict[str, object]) -> Environment:
    env = probe["env"]
    assert isinstance(env, Environment)
    return env


# Options


def test_options_after_the_command_win_over_the_environment(probe: dict[str, object]) -> None:
    variables = {"QCTL_REDIS_URL": "redis://env:1/0", "QCTL_PREFIX": "env", "QCTL_OUTPUT": "ndjson"}
    assert run("probe", **variables).code == 0
    env = env_of(probe)
    assert (env.settings.redis_url, env.settings.prefix, env.output) == (
        *("redis://env:1/0", "env", "ndjson"),
    )
    flags = ["--redis", "redis://flag:1/0", "a", "--prefix", "flag", "--output", "table", "b"]
    assert run("probe", *flags, **variables).code == 0
    env = env_of(probe)
    assert (env.settings.redis_url, env.settings.prefix, env.output) == (
        *("redis://flag:1/0", "flag", "table"),
    )
    assert probe["names"] == ["a", "b"]


def test_redis_url_is_the_second_choice(probe: dict[str, object]) -> None:
    run("probe", REDIS_URL="redis://second:1/0")
    assert env_of(probe).settings.redis_url == "redis://second:1/0"
    run("probe", REDIS_URL="redis://second:1/0", QCTL_REDIS_URL="redis://first:1/0")
    assert env_of(probe).settings.redis_url == "redis://first:1/0"


def test_json_is_short_for_output_json(probe: dict[str, object]) -> None:
    run("probe", "--json")
    assert env_of(probe).output == "json"
    ran = run("probe", "--json", "--output", "ndjson")
    assert ran.code == ExitStatus.USAGE
    assert "contradict" in ran.err


@pytest.mark.parametrize("flag", ["--redis", "--prefix", "--context"])
def test_an_empty_flag_does_not_lead_to_another_redis(flag: str) -> None:
    """It is a variable of a script that was not set."""
    ran = run("queues", flag, "", QCTL_REDIS_URL="redis://127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {flag} is empty\n")


@pytest.mark.parametrize(
    "words",
    [
        ("--redis", "redis://flag:1/0", "--output", "json", "--no-color", "probe"),
        ("--redis=redis://flag:1/0", "--json", "probe", "--no-color"),
        ("--json", "probe", "--redis", "redis://flag:1/0", "--json", "--no-color"),
        (
            "--redis",
            "redis://flag:1/0",
            "--no-color",
            "probe",
            "--json",
            "--redis",
            "redis://flag:1/0",
        ),
    ],
)
def test_the_common_options_may_stand_before_the_command(
    probe: dict[str, object], words: tuple[str, ...]
) -> None:
    assert run(*words, QCTL_REDIS_URL="redis://env:1/0").code == 0
    env = env_of(probe)
    assert (env.settings.redis_url, env.output, env.no_color) == ("redis://flag:1/0", "json", True)


def test_prefixes_before_and_after_the_command_are_all_chosen(probe: dict[str, object]) -> None:
    assert run("--prefix", "a", "probe", "--prefix", "b").code == 0
    assert env_of(probe).settings.prefixes.patterns == ("a", "b")
    assert run("--all-prefixes", "probe").code == 0
    assert env_of(probe).settings.prefixes.needs_scan
    assert run("--all-prefixes", "probe", "--prefix", "b").code == ExitStatus.USAGE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--redis", "a", "probe", "--redis", "b"), "takes one --redis"),
        (("--redis", "a", "--redis", "a", "probe"), "takes one --redis"),
        (("--redis", "a", "probe", "--redis", ""), "takes one --redis"),
        (("--redis", "", "probe"), "--redis is empty"),
        (("--redis", "", "probe", "--redis", ""), "--redis is empty"),
        (("--context", "a", "probe", "--context", "b"), "takes one --context"),
        (("--output", "json", "probe", "--output", "table"), "takes one --output"),
        (("--json", "probe", "--output", "table"), "contradict"),
        (("--json", "jobs", "--output", "ndjson", "list", "q", "--state", "failed"), "contradict"),
        (("jobs", "--redis", "a", "list", "q", "--redis", "b", "--state", "failed"), "takes one"),
    ],
)
def test_two_values_before_and_after_the_command_are_exit_2(
    probe: dict[str, object], words: tuple[str, ...], said: str
) -> None:
    ran = run(*words, QCTL_REDIS_URL="redis://127.0.0.1:1")
    assert (ran.code, ran.out) == (ExitStatus.USAGE, "")
    assert said in ran.err
    assert "env" not in probe


def test_a_group_takes_the_common_options(redis_url: str) -> None:
    for words in (("--json", "jobs"), ("jobs", "--json")):
        ran = run("--redis", redis_url, *words, "list", "nope", "--state", "failed")
        assert ran.code == ExitStatus.NOT_FOUND


def test_debug_may_stand_before_the_command(probe: dict[str, object]) -> None:
    def fail(_: Environment) -> None:
        raise ZeroDivisionError

    probe["do"] = fail
    assert "Traceback" in run("--debug", "probe").err


def test_a_wrong_output_in_the_environment_is_named(probe: dict[str, object]) -> None:
    ran = run("probe", QCTL_OUTPUT="yaml")
    assert ran.code == ExitStatus.USAGE
    assert "QCTL_OUTPUT" in ran.err
    assert "table, json, ndjson" in ran.err


def test_every_command_has_the_common_options() -> None:
    for name in program.COMMANDS:
        command = program.load_command(name)
        for leaf in getattr(command, "commands", {name: command}).values():
            flags = {flag for parameter in leaf.params for flag in parameter.opts}
            if name not in {"completion", "help"}:
                assert set(COMMON_FLAGS) <= flags, leaf.name


@pytest.mark.parametrize(
    ("words", "watch", "names"),
    [
        (["--watch"], "2", []),
        (["--watch", "5"], "5", []),
        (["--watch=5"], "5", []),
        (["--watch", "0.5", "q"], "0.5", ["q"]),
        (["--watch", "q"], "2", ["q"]),
        (["q", "--watch"], "2", ["q"]),
        (["--watch", "--json"], "2", []),
        (["--", "--watch"], None, ["--watch"]),
        ([], None, []),
    ],
)
def test_a_value_may_be_left_out(
    probe: dict[str, object], words: list[str], watch: str | None, names: list[str]
) -> None:
    assert run("probe", *words).code == 0
    assert (probe["watch"], probe["names"]) == (watch, names)


# Errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FailedError, 1),
        (UsageError, 2),
        (NotFoundError, 3),
        (TimedOutError, 4),
        (RefusedError, 5),
        (UnreachableError, 6),
        (PartialError, 7),
    ],
)
def test_errors_become_words_and_exit_codes(
    probe: dict[str, object], error: type[QctlError], code: int
) -> None:
    def fail(_: Environment) -> None:
        raise error("it failed", why="this\nand that", hint="qctl queues")

    probe["do"] = fail
    ran = run("probe", "--json")
    assert ran.code == code
    assert ran.out == ""
    assert ran.err == "error: it failed\nthis\nand that\ntry: qctl queues\n"


def test_errors_show_untrusted_text_harmlessly_and_hide_passwords(probe: dict[str, object]) -> None:
    def fail(_: Environment) -> None:
        raise ValueError("bad \x1b[2J at redis://user:s3cret@p@host:1/0")

    probe["do"] = fail
    ran = run("probe")
    assert ran.code == 1
    assert ran.err.startswith(
        "error: unexpected: ValueError: bad \\x1b[2J at redis://user:***@host:1/0\n"
    )
    assert "s3cret" not in ran.err
    assert "Traceback" not in ran.err
    assert ran.err.endswith("try: the same command with --debug\n")


def test_a_traceback_only_with_debug(probe: dict[str, object]) -> None:
    def fail(_: Environment) -> None:
        raise ValueError("redis://user:s3cret@host:1/0")

    probe["do"] = fail
    for ran in (run("probe", "--debug"), run("probe", QCTL_DEBUG="1")):
        assert "Traceback" in ran.err
        assert "s3cret" not in ran.err
        assert "the same command with --debug" not in ran.err
    assert "Traceback" not in run("probe", QCTL_DEBUG="0").err


def test_ctrl_c_is_130(probe: dict[str, object]) -> None:
    def interrupt(_: Environment) -> None:
        raise KeyboardInterrupt

    probe["do"] = interrupt
    ran = run("probe")
    assert ran.code == ExitStatus.INTERRUPTED
    assert "interrupted" in ran.err


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["statsu"], "qctl has no command 'statsu'", "try: qctl status"),
        (["version"], "qctl has no command 'version'", "try: qctl --version"),
        (["jobs", "help"], "qctl jobs has no command 'help'", "try: qctl jobs --help"),
        (["xyzzy"], "qctl has no command 'xyzzy'", "try: qctl --help"),
        (["status", "--prefx", "x"], "qctl status has no option --prefx", "qctl status --prefix x"),
        (["status", "--redis"], "option '--redis' requires an argument", "qctl status --help"),
        (["status", "--output", "xml"], "'xml' is not one of", "qctl status --help"),
        (
            ["--outptu", "json", "status"],
            "qctl has no option --outptu",
            "qctl --output json status",
        ),
        (["--json"], "missing command", "qctl --help"),
    ],
)
def test_wrong_words_are_exit_2_with_a_suggestion(words: list[str], what: str, hint: str) -> None:
    ran = run(*words)
    assert ran.code == ExitStatus.USAGE
    first, *_, last = ran.err.splitlines()
    assert what in first
    assert hint in last
    assert ran.out == ""


def test_no_command_at_all_shows_the_help_and_is_exit_2() -> None:
    ran = run()
    assert ran.code == ExitStatus.USAGE
    assert "Usage: qctl" in ran.err


# Help


def test_help_lines_are_those_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help").code == 0
    shown = capsys.readouterr().out
    for name, (_, line) in program.COMMANDS.items():
        command = program.load_command(name)
        assert (command.help or "").splitlines()[0] == line, name
        assert line in shown


def test_help_is_plain_and_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--help").code == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "QCTL_REDIS_URL" in shown
    assert run("--version").code == 0
    assert capsys.readouterr().out.startswith("qctl ")


# Questions, colours, widths


def streams(*, terminal: bool, stdin: str = "", **environ: str) -> Streams:
    return Streams(
        *(io.StringIO(stdin), io.StringIO(), io.StringIO()),
        *([terminal] * 3),
        width=72,
        environ={"XDG_CONFIG_HOME": "/nonexistent", **environ},
    )


def environment(streams: Streams, **options: bool) -> Environment:
    return Environment(streams, CommonOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "yes"), [("y\n", True), ("YES\n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_a_question_is_asked_on_stderr(answer: str, yes: bool) -> None:
    env = environment(streams(terminal=True, stdin=answer))
    with nullcontext() if yes else pytest.raises(RefusedError):
        env.confirm("Restart\x1b it?")
    assert env.streams.stderr.getvalue() == "Restart\\x1b it? [y/N] "  # type: ignore[attr-defined]
    assert env.streams.stdout.getvalue() == ""  # type: ignore[attr-defined]


def test_what_was_typed_before_a_question_is_no_answer_to_it() -> None:
    keyboard, terminal = os.openpty()

    class Prompt(io.StringIO):
        def write(self, text: str) -> int:
            os.write(keyboard, b"no\n")
            return super().write(text)

    try:
        with open(terminal, encoding="utf-8", closefd=False) as stdin:
            env = environment(replace(streams(terminal=True), stdin=stdin, stderr=Prompt()))
            os.write(keyboard, b"yes\ny")
            # Its echo shows that it has arrived.
            echo = b""
            while b"\ny" not in echo:
                echo += os.read(keyboard, 100)
            with pytest.raises(RefusedError):
                env.confirm("Delete it?")
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_a_long_question_is_wrapped_between_words() -> None:
    env = environment(streams(terminal=True, stdin="x" * 80 + "\n"))
    env.confirm_name(
        f"Delete 9 jobs of {'q' * 60} and 8 jobs below them; that cannot be undone.", "x" * 80
    )
    *lines, prompt = env.streams.stderr.getvalue().split("\n")  # type: ignore[attr-defined]
    assert lines == [
        "Delete 9 jobs of",
        f"{'q' * 60} and 8 jobs",
        "below them; that cannot be undone.",
        "Type",
        "x" * 80,
    ]
    assert prompt == "to go on: "


def test_a_question_without_anybody_to_ask_names_the_flag() -> None:
    for env, why in (
        (environment(streams(terminal=False, stdin="y\n")), "terminal"),
        (environment(streams(terminal=True, stdin="y\n"), as_json=True), "json"),
        (environment(replace(streams(terminal=True), stdin_is_terminal=False)), "terminal"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            env.confirm("Restart it?")
        assert caught.value.exit_status == 2
        assert "--yes" in caught.value.hint


def test_colour_only_where_it_is_wanted() -> None:
    assert environment(streams(terminal=True)).may_colour()
    assert not environment(streams(terminal=True), no_color=True).may_colour()
    assert not environment(streams(terminal=True, NO_COLOR="1")).may_colour()
    assert environment(streams(terminal=True, NO_COLOR="")).may_colour()
    assert not environment(streams(terminal=True, TERM="dumb")).may_colour()
    assert not environment(streams(terminal=False)).may_colour()
    env = environment(replace(streams(terminal=True), stdout_is_terminal=False))
    assert env.may_colour(env.streams.stderr)
    assert not env.may_colour()


def test_the_width_is_the_terminals_or_unlimited() -> None:
    assert environment(streams(terminal=True)).width == 72
    assert environment(streams(terminal=False)).width > 1000


def test_rich_consoles_obey_no_markup() -> None:
    env = environment(streams(terminal=False))
    env.console(env.streams.stdout).print("[bold]x[/bold] :smile: 123")
    assert env.streams.stdout.getvalue() == "[bold]x[/bold] :smile: 123\n"  # type: ignore[attr-defined]


def test_notes_go_to_stderr_with_control_characters_visible() -> None:
    env = environment(streams(terminal=True))
    env.note("a\x1b[31mb\nc")
    assert env.streams.stderr.getvalue() == "a\\x1b[31mb\nc\n"  # type: ignore[attr-defined]


# The real program


def qctl(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "XDG_CONFIG_HOME": "/nonexistent", "PM2_HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-m", "qctl", *arguments],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


FORBIDDEN = ("asyncio", "redis", "rich", "psutil", "ssl", "typer.rich_utils", "qctl.ops.drain.run",
             "qctl.manage.pm2", "qctl.cli.jobs", "qctl.cli.completion",
             "prometheus_client", "mcp", "anyio", "qctl.cli.mcp")  # fmt: skip


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"]])
def test_status_imports_only_what_it_needs(
    redis_url: str, client: object, arguments: list[str]
) -> None:
    client.call("HSET", "bull:q:meta", "version", "bullmq:6.7.0")  # type: ignore[attr-defined]
    code = (
        "import json, sys\n"
        "from qctl.cli.streams import Streams\n"
        "from qctl.cli.program import run\n"
        f"code = run({[*arguments, '--redis', redis_url]!r}, Streams.standard())\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PM2_HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    code_and_modules = json.loads(done.stderr.splitlines()[-1])
    assert code_and_modules[0] == 0
    assert not set(FORBIDDEN) & set(code_and_modules[1])


def test_a_reader_that_goes_away_is_no_traceback(redis_url: str, client: object) -> None:
    words = f"{sys.executable} -m qctl queues --redis {redis_url}"
    # More than fits into a pipe, so that it is still being written when the reader has gone.
    names = [f"q{n:04}{'-' * 60}" for n in range(3000)]
    client.pipeline([("HSET", f"bull:{name}:meta", "v", "1") for name in names])  # type: ignore[attr-defined]
    done = subprocess.run(
        ["sh", "-c", f"({words}; echo $? >&2) | head -1"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{names[0]}\n", "1\n")


def test_closed_streams_are_no_crash(tmp_path: Path) -> None:
    script = f"{sys.executable} -m qctl --version >&- 2>&- <&-; echo $? > {tmp_path}/code"
    subprocess.run(["sh", "-c", script], timeout=60, check=True)
    assert (tmp_path / "code").read_text().strip() in {"0", "1"}


def test_redis_down_is_exit_6_and_names_no_password() -> None:
    done = qctl("status", "--redis", "redis://u:s3cret@127.0.0.1:1/0")
    assert done.returncode == ExitStatus.UNREACHABLE
    assert "127.0.0.1:1" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
