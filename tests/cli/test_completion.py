"""TAB: the scripts, in the real shells that are there, and the names behind them."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from qctl.cli import candidates
from qctl.cli.completion import SHELLS, VARIABLE
from qctl.cli.program import COMMANDS, build
from qctl.connection.address import Client
from qctl.manage.qctl.state import MasterFolder
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import Survey
from tests.labs.cli import run
from tests.labs.servers import wait_until

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "bash": ROOT / "completions/qctl.bash",
    "zsh": ROOT / "completions/_qctl",
    "fish": ROOT / "completions/qctl.fish",
}
HOSTILE = (
    "a $(touch PWNED) `touch PWNED` ${HOME} \\$(touch PWNED) 'q' \"d\" ;&|<>(*)?~!#\\ =xy@é end"
)
BREAKS = " \t\n\"'><=;|&(:@"
CONFIG = """
[contexts.production]
[contexts.staging.redis]
prefix = "other"
[targets.ingest]
process = "pm2:worker"
queues = ["emails"]
"""


def needs(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


@pytest.fixture
def home(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home with a config file of its own, and a Redis."""
    for name in ("REDIS_URL", "QCTL_PREFIX", "QCTL_CONTEXT", "PM2_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QCTL_REDIS_URL", redis_url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qctl.toml").write_text(CONFIG)
    # The machine may be busy.
    monkeypatch.setattr(candidates, "MAX_WAIT_S", 30)
    monkeypatch.setattr(candidates, "_MAX_SCAN_S", 20)
    return tmp_path


def make_queues(client: Client, *names: str, prefix: str = "bull") -> None:
    for name in names:
        client.call("HSET", f"{prefix}:{name}:meta", "version", "bullmq:5.0.0")


def make_workers(home: Path, *names: str) -> None:
    for name in names:
        folder = MasterFolder(home / "state/qctl", name)
        folder.path.mkdir(parents=True)
        (folder.path / "state.json").touch()


@pytest.fixture
def queues(home: Path, client: Client) -> None:
    make_queues(client, "emails", "email reports", "-dash")
    make_queues(client, "there", prefix="other")


@pytest.fixture
def tab(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What is offered for a line with the cursor at its end, without another process."""

    def complete(line: str, shell: str = "bash", breaks: str = BREAKS) -> list[str]:
        monkeypatch.setenv("_QCTL_LINE", line)
        monkeypatch.setenv("_QCTL_BREAKS", breaks)
        return SHELLS[shell](build(), {}, "qctl", VARIABLE).complete().splitlines()

    return complete


# The scripts


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script_in_the_repository(shell: str) -> None:
    ran = run("completion", shell)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == SCRIPTS[shell].read_text(), f"stale: qctl completion {shell}"


def test_an_unknown_shell_is_a_usage_error() -> None:
    ran = run("completion", "csh")
    assert ran.code == 2
    assert "bash" in ran.err


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_shell_can_read_its_script(shell: str) -> None:
    subprocess.run([needs(shell), "-n", SCRIPTS[shell]], check=True)


# What is offered


@pytest.mark.usefixtures("queues")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qctl --pre", ["--prefix"]),
        ("qctl --prefix other sta", ["status"]),
        ("qctl --prefix other pause ", ["there"]),
        ("qctl jobs --prefix other list th", ["there"]),
        ("qctl --prefix ot", ["other"]),
        ("qctl --output nd", ["ndjson"]),
    ],
)
def test_options_before_the_command(
    tab: Callable[..., list[str]], line: str, expected: list[str]
) -> None:
    assert tab(line) == expected


@pytest.mark.usefixtures("queues")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qctl jo", ["jobs"]),
        ("qctl jobs l", ["list", "logs"]),
        ("qctl jobs list --st", ["--state"]),
        ("qctl jobs list q --state wait", ["waiting", "waiting-children"]),
        ("qctl jobs list q --state=wait", ["waiting", "waiting-children"]),
        ("qctl jobs list q --output ", ["table", "json", "ndjson"]),
        ("qctl jobs list --state failed em", ["email\\ reports", "emails"]),
        ("qctl jobs list --json em", ["email\\ reports", "emails"]),
        ("qctl jobs list email\\ r", ["email\\ reports"]),
        ("qctl jobs list 'email r", ["email reports"]),
        ('qctl jobs list "email', ["email reports", "emails"]),
        ("qctl jobs show emails ", []),
        ("qctl pause emails emails", ["emails"]),
        ("qctl pause -- -d", ["-dash"]),
        ("qctl pause --prefix other ", ["there"]),
        ("qctl pause --prefix=other ", ["there"]),
        ("qctl pause --context staging ", ["there"]),
        ("qctl status --prefix ", ["bull", "other"]),
        ("qctl restart in", ["ingest"]),
        ("qctl drain --target=in", ["ingest"]),
        ("qctl status --context pro", ["production"]),
        ("qctl status --context=pro", ["production"]),
        ("qctl status --context nonsense --context ", ["production", "staging"]),
        ("qctl status --redis ", []),
        ("qctl completion z", ["zsh"]),
        # What the shell would still expand is not expanded.
        ('qctl pause --redis "$URL" e', []),
        ("qctl pause --prefix `id` e", []),
        ("qctl pause --prefix $(touch PWNED) e", []),
    ],
)
def test_what_bash_is_offered(
    line: str, expected: list[str], tab: Callable[..., list[str]], home: Path
) -> None:
    assert tab(line) == expected
    assert not (home / "PWNED").exists()


def test_every_command_is_offered(home: Path, tab: Callable[..., list[str]]) -> None:
    assert tab("qctl ") == list(COMMANDS)


@pytest.mark.usefixtures("queues")
def test_only_what_is_behind_a_word_break_is_replaced(
    home: Path, tab: Callable[..., list[str]]
) -> None:
    make_workers(home, "mail", "map")
    assert tab("qctl restart qctl:ma") == ["mail", "map"]
    assert tab("qctl restart q") == ["qctl:mail", "qctl:map"]
    assert tab("qctl restart 'qctl:mai") == ["qctl:mail"]
    assert tab("qctl restart qctl:ma", breaks=" ") == ["qctl:mail", "qctl:map"]
    assert tab("qctl jobs list q --state=fa", breaks=" ") == ["--state=failed"]
    assert tab("qctl jobs list q --state=fa", "fish") == ["--state=failed"]
    assert tab("qctl restart qctl:ma", "zsh") == ["qctl\\:mail", "qctl\\:map"]
    assert tab("qctl worker restart ma") == ["mail", "map"]


def test_the_ids_of_the_queues_schedulers(
    home: Path, client: Client, tab: Callable[..., list[str]]
) -> None:
    make_queues(client, "emails")
    keys = QueueKeys("bull", "emails")
    client.call("ZADD", keys("repeat"), 4102444800000, "nightly")
    client.call("HSET", keys.scheduler("nightly"), "name", "report", "every", "86400000")
    assert tab("qctl schedules run emails ") == ["nightly"]
    assert tab("qctl schedules run nonsense ") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_options_have_a_meaning_beside_them(
    home: Path, shell: str, tab: Callable[..., list[str]]
) -> None:
    (line,) = tab("qctl drain --then", shell)
    flag, meaning = re.split(r"[:\t]", line)
    assert flag == "--then-restart"
    assert "Restart" in meaning


def test_a_name_that_no_line_can_hold_is_not_offered(
    home: Path, client: Client, tab: Callable[..., list[str]]
) -> None:
    make_queues(client, "e\x1bvil", "e\nvil", "e\u202ex", "even", "e'ven")
    client.call("HSET", b"bull:e\xff:meta", "version", "bullmq:5.0.0")
    assert tab("qctl pause e") == ["e\\'ven", "even"]
    assert tab("qctl pause 'e") == ["even"]


@pytest.mark.parametrize("typed", ["a", "a\\ \\$", "'a", '"a'])
def test_bash_never_executes_a_name(
    typed: str, home: Path, client: Client, tab: Callable[..., list[str]]
) -> None:
    make_queues(client, HOSTILE)
    replies = tab(f"qctl pause {typed}")
    # Inside quotation marks there is no way to write it.
    assert len(replies) == (0 if typed[0] in "'\"" else 1)
    for reply in replies:
        echoed = subprocess.run(
            ["bash", "-c", f"printf %s {reply}"], text=True, capture_output=True, check=True
        )
        assert echoed.stdout == HOSTILE
    assert not (home / "PWNED").exists()


# What a TAB must not do


def test_a_redis_that_does_not_answer_is_left(
    home: Path, monkeypatch: pytest.MonkeyPatch, tab: Callable[..., list[str]]
) -> None:
    monkeypatch.setattr(candidates, "MAX_WAIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("QCTL_REDIS_URL", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert tab("qctl pause ") == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QCTL_REDIS_URL", "redis://127.0.0.1:1/0"),
        ("QCTL_REDIS_URL", "nonsense"),
        ("QCTL_REDIS_URL", "embedded:"),
        ("QCTL_REDIS_URL", "embedded:somewhere"),
        ("QCTL_CONTEXT", "nonsense"),
        ("XDG_STATE_HOME", "/dev/null/x"),
    ],
)
def test_a_failure_is_silent_and_starts_nothing(
    variable: str,
    value: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    tab: Callable[..., list[str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = set(home.rglob("*"))
    monkeypatch.setenv(variable, value)
    assert tab("qctl pause ") == []
    assert capfd.readouterr() == ("", "")
    assert set(home.rglob("*")) == before


def test_a_damaged_config_file_is_silent(home: Path, tab: Callable[..., list[str]]) -> None:
    (home / "qctl.toml").write_text("nonsense")
    assert tab("qctl status --context ") == []


def test_no_password_command_is_run(
    home: Path, client: Client, redis_url: str, tab: Callable[..., list[str]]
) -> None:
    make_queues(client, "emails")
    config = home / "config/qctl/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[contexts.vault.redis]\nurl = "{redis_url}"\npassword_command = "touch PWNED"\n'
    )
    assert tab("qctl pause --context vault ") == []
    assert not (home / "PWNED").exists()


def test_a_long_scan_goes_on_in_the_background(
    home: Path, client: Client, monkeypatch: pytest.MonkeyPatch, tab: Callable[..., list[str]]
) -> None:
    make_queues(client, "emails")
    started = []
    monkeypatch.setattr(
        "qctl.ops.queues.names.QueueNameCache.scan_in_background",
        lambda memory: started.append(memory),  # noqa: PLW0108 - a method
    )
    seen = Survey((QueueKeys("bull", "emails"),), (), is_complete=False)
    monkeypatch.setattr("qctl.wire.read.discovery.survey", lambda *_: seen)
    assert tab("qctl pause ") == ["emails"]
    assert len(started) == 1


def test_pm2_is_asked_only_where_it_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch, tab: Callable[..., list[str]]
) -> None:
    class FakePm2:
        kind = "pm2"

        def __init__(self, folder: Path, **_: object) -> None:
            assert folder == home / ".pm2"

        def targets(self) -> list[str]:
            return ["pm2:worker"]

    monkeypatch.setattr("qctl.manage.pm2.manager.Pm2", FakePm2)
    assert tab("qctl restart ") == ["ingest"]
    (home / ".pm2").mkdir()
    (home / ".pm2/rpc.sock").touch()
    assert tab("qctl restart ") == ["ingest", "pm2:worker"]


@pytest.mark.parametrize("instruction", ["complete_bash", "complete_csh", "nonsense"])
def test_the_front_door_is_silent_and_answers_only_the_shell(home: Path, instruction: str) -> None:
    environ = {**os.environ, "_QCTL_COMPLETE": instruction, "_QCTL_LINE": "qctl jobs l"}
    ran = subprocess.run(
        [sys.executable, "-m", "qctl", "status"],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("list\nlogs\n" if "bash" in instruction else "", "")


# The shells themselves, in a terminal


STARTS = {
    "bash": (["--norc", "--noprofile", "-i"], "bind 'set bell-style none'; "),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -D -u; "),
    "fish": (["--no-config", "-i"], ""),
}


@pytest.fixture
def stub(home: Path) -> Iterator[Mapping[str, str]]:
    """The environment of a shell with a ``qctl`` that completes and else prints its arguments."""
    program = home / "bin/qctl"
    program.parent.mkdir()
    qctl = f"{shlex.quote(sys.executable)} -m qctl"
    program.write_text(
        "#!/bin/bash\n"
        f'if [ -n "$_QCTL_COMPLETE" ]; then exec {qctl}; fi\n'
        'printf "%s\\n" "$@" > "$HOME/ran.tmp"; mv "$HOME/ran.tmp" "$HOME/ran"\n'
    )
    program.chmod(0o755)
    yield {
        **{name: value for name, value in os.environ.items() if name.startswith("XDG_")},
        "QCTL_REDIS_URL": os.environ["QCTL_REDIS_URL"],
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }
    assert not list(home.rglob("PWNED"))


def type_in(shell: str, keys: str, env: Mapping[str, str]) -> list[str]:
    """Type a line ending in TAB and Return into a shell; the arguments that ``qctl`` then gets."""
    ran = Path(env["HOME"], "ran")
    arguments, before = STARTS[shell]
    executable = needs(shell)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(env["HOME"])
        os.execve(executable, [shell, *arguments], dict(env))  # noqa: S606
    seen = b""

    def read() -> None:
        nonlocal seen
        while select.select([terminal], [], [], 0.02)[0]:
            try:
                seen += os.read(terminal, 65_536)
            except OSError:
                return

    def see(what: bytes) -> Callable[[], bool]:
        def look() -> bool:
            read()
            return what in seen

        return look

    try:
        # Two halves, so that what is typed is not taken for its result.
        ready = f"{before}source {shlex.quote(str(SCRIPTS[shell]))}; echo re''ady\r"
        wait_until(lambda: (read(), seen)[1], f"the prompt of {shell}")
        os.write(terminal, ready.encode())
        wait_until(see(b"ready"), f"{shell} to be ready")
        os.write(terminal, keys.encode() + b"\t\r")
        wait_until(lambda: (read(), ran.exists())[1], f"{shell} to run the line; it shows {seen!r}")
        return ran.read_text().splitlines()
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", STARTS)
@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ("qctl jobs list q --state del", ["jobs", "list", "q", "--state", "delayed"]),
        ("qctl jobs list q --state=pri", ["jobs", "list", "q", "--state=prioritized"]),
        ("qctl restart qctl:ma", ["restart", "qctl:mail"]),
    ],
)
def test_a_shell_completes(
    shell: str, keys: str, arguments: list[str], stub: Mapping[str, str], home: Path
) -> None:
    make_workers(home, "mail")
    assert type_in(shell, keys, stub) == arguments


@pytest.fixture
def patient_tab(stub: Mapping[str, str], home: Path) -> Mapping[str, str]:
    """An environment in which a TAB waits as long as a busy machine takes."""
    (home / "lib").mkdir()
    (home / "lib/sitecustomize.py").write_text(
        "from qctl.cli import candidates\ncandidates.MAX_WAIT_S = 30\ncandidates._MAX_SCAN_S = 20\n"
    )
    return {**stub, "PYTHONPATH": str(home / "lib")}


@pytest.mark.parametrize("shell", STARTS)
@pytest.mark.parametrize("typed", ["a", "a\\ "])
def test_a_shell_never_executes_a_name(
    shell: str, typed: str, patient_tab: Mapping[str, str], client: Client
) -> None:
    make_queues(client, HOSTILE)
    assert type_in(shell, f"qctl pause {typed}", patient_tab) == ["pause", HOSTILE]


@pytest.mark.parametrize("shell", STARTS)
def test_a_shell_completes_within_quotation_marks(
    shell: str, patient_tab: Mapping[str, str], client: Client
) -> None:
    make_queues(client, "email reports")
    assert type_in(shell, "qctl pause 'email r", patient_tab) == ["pause", "email reports"]


def test_the_script_is_the_same_for_every_version() -> None:
    """It holds no names of commands: a script of an older version stays right."""
    assert not any(
        name in shell.source_template for shell in SHELLS.values() for name in ("status", "--state")
    )


def test_queues_of_several_prefixes(
    home: Path, client: Client, tab: Callable[..., list[str]]
) -> None:
    for keys in (QueueKeys("a", "mail"), QueueKeys("b*", "mail"), QueueKeys("b*", "video")):
        client.call("HSET", keys("meta"), "opts.maxLenEvents", "10000")
    assert home.exists()
    # Only names that are not unique need their prefix.
    assert tab("qctl status --all-prefixes ") == ["mail@a", "mail@b\\*", "video"]
    assert tab("qctl status --prefix a ") == ["mail"]
    # A prefix is offered as the option takes it: not as a pattern.
    assert tab("qctl status --prefix a --prefix b") == ["b\\\\\\*"]
