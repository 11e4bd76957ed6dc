"""TAB: the scripts, in the real shells that are there, and the names behind them."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from qctl.cli import complete, completion
from qctl.cli.program import COMMANDS, build
from qctl.connection.address import Client
from tests.labs.cli import run
from tests.labs.servers import wait_until

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "bash": ROOT / "completions/qctl.bash",
    "zsh": ROOT / "completions/_qctl",
    "fish": ROOT / "completions/qctl.fish",
}
HOSTILE = "a $(touch PWNED) `touch PWNED` ${HOME} 'q' \"d\" ;&|<>(*)?~!#\\ =x:y@é end"


def needs(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


# The scripts


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_scripts_in_the_repository_are_those_of_this_version(shell: str) -> None:
    path = SCRIPTS[shell]
    assert path.read_text() == completion.script(shell), (
        f"stale: qctl completion {shell} > {path.relative_to(ROOT)}"
    )


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script(shell: str) -> None:
    ran = run("completion", shell)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == completion.script(shell)


def test_an_unknown_shell_is_a_usage_error() -> None:
    ran = run("completion", "csh")
    assert ran.code == 2
    assert "bash" in ran.err


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_shell_can_read_its_script(shell: str) -> None:
    subprocess.run([needs(shell), "-n", SCRIPTS[shell]], check=True)


def options_below(command: Any, parent: Any = None) -> Iterator[tuple[str, bool]]:
    """(option, takes a value) of a command and of all below it."""
    ctx = typer.Context(command, parent=parent, info_name="x")
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "option":
            yield from ((name, not parameter.is_flag) for name in parameter.opts)
    if hasattr(command, "list_commands"):
        for name in command.list_commands(ctx):
            yield from options_below(command.get_command(ctx, name), ctx)


def test_an_option_takes_a_value_in_every_command_or_in_none() -> None:
    """The scripts skip an option's value without asking which command it belongs to."""
    kinds: dict[str, set[bool]] = {}
    for name, takes_value in options_below(build()):
        kinds.setdefault(name, set()).add(takes_value)
    assert {name for name, kind in kinds.items() if len(kind) > 1} == set()
    text = completion.script("bash").split("_qctl_takes_value() {")[1].partition(")")[0]
    valued = set(re.findall(r"--?[\w-]+", text))
    assert {"--redis", "--prefix", "--context", "--output", "--state"} <= valued
    assert not valued & {name for name, kind in kinds.items() if kind == {False}}


# Bash, asked as readline asks it


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """An environment with a ``qctl`` that knows some names and prints its arguments."""
    program = tmp_path / "bin/qctl"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/bash\n"
        'if [ "$1" = __complete ]; then\n'
        '  printf "%s\\n" "$2|$3|$QCTL_REDIS_URL|$QCTL_PREFIX|$QCTL_CONTEXT" >> "$STUB/asked"\n'
        '  cat "$STUB/$2"\n'
        "else\n"
        '  printf "%s\\n" "$@" > "$STUB/ran.tmp"; mv "$STUB/ran.tmp" "$STUB/ran"\n'
        "fi\n"
    )
    program.chmod(0o755)
    (tmp_path / "queues").write_text("emails\nemail reports\n-dash\n")
    (tmp_path / "targets").write_text("pm2:worker\npm2:web\n")
    (tmp_path / "contexts").write_text("production\n")
    yield {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "STUB": str(tmp_path),
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }
    assert not list(tmp_path.rglob("PWNED"))


def bash(line: str, env: Mapping[str, str], before: str = "") -> list[str]:
    """COMPREPLY for a line with the cursor at its end; words split as readline splits them."""
    quoted = r"'[^']*'?|\"[^\"]*\"?"
    words = re.findall(rf"(?:{quoted}|\\.|[^\s:=@'\"])+|[:=]+|@(?:[^\s:=@'\"])*", line)
    if line.endswith(" "):
        words.append("")
    program = "\n".join(
        [
            before,
            f"source {shlex.quote(str(SCRIPTS['bash']))}",
            f"COMP_WORDS=({' '.join(map(shlex.quote, words))})",
            f"COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_CWORD={len(words) - 1}",
            '_qctl qctl "" ""',
            "[[ ${#COMPREPLY[@]} == 0 ]] || printf '%s\\n' \"${COMPREPLY[@]}\"",
        ]
    )
    ran = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", program],
        env=dict(env),
        cwd=env["STUB"],
        text=True,
        capture_output=True,
        check=True,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qctl jo", ["jobs"]),
        ("qctl jobs l", ["list", "logs"]),
        ("qctl jobs list --st", ["--state"]),
        ("qctl jobs list q --state wait", ["waiting", "waiting-children"]),
        ("qctl jobs list q --state=wait", ["waiting", "waiting-children"]),
        ("qctl jobs list q --output ", ["table", "json", "ndjson"]),
        ("qctl jobs list --state failed em", ["emails", "email\\ reports"]),
        ("qctl jobs list --json em", ["emails", "email\\ reports"]),
        ("qctl jobs list email\\ r", ["email\\ reports"]),
        ("qctl jobs list 'email r", ["email reports"]),
        ('qctl jobs list "email', ["emails", "email reports"]),
        ("qctl jobs show emails ", []),
        ("qctl pause emails em", ["emails", "email\\ reports"]),
        ("qctl pause -- -d", ["-dash"]),
        ("qctl restart pm2:w", ["worker", "web"]),
        ("qctl restart pm2:", ["worker", "web"]),
        ("qctl restart pm", ["pm2:worker", "pm2:web"]),
        ("qctl restart 'pm2:wo", ["pm2:worker"]),
        ("qctl status --context pro", ["production"]),
        ("qctl status --context=pro", ["production"]),
        ("qctl status --redis ", []),
        ("qctl completion z", ["zsh"]),
        ("qctl nonsense ", []),
        ("qctl jobs nonsense ", []),
    ],
)
def test_bash_completes(line: str, expected: list[str], stub: Mapping[str, str]) -> None:
    assert bash(line, stub) == expected


def test_bash_offers_every_command(stub: Mapping[str, str]) -> None:
    assert set(bash("qctl ", stub)) <= set(COMMANDS)
    assert {"status", "jobs", "completion"} <= set(bash("qctl ", stub))


def test_bash_without_some_word_breaks(stub: Mapping[str, str]) -> None:
    assert bash("qctl restart pm2:w", stub, 'COMP_WORDBREAKS=" "') == ["pm2:worker", "pm2:web"]
    assert bash("qctl jobs list q --state=fa", stub, 'COMP_WORDBREAKS=" "') == ["--state=failed"]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("qctl pause e", "queues|e|||"),
        ("qctl pause --redis redis://h:1/2 --prefix p e", "queues|e|redis://h:1/2|p|"),
        ("qctl pause --redis=redis://u:p@h:1 --context 'c d' e", "queues|e|redis://u:p@h:1||c d"),
        ('qctl pause --redis "$URL" --prefix `id` e', "queues|e|||"),
        ("qctl pause --prefix $(touch PWNED) e", "queues|e|||"),
    ],
)
def test_bash_hands_on_the_connection(line: str, asked: str, stub: Mapping[str, str]) -> None:
    bash(line, stub)
    assert Path(stub["STUB"], "asked").read_text().splitlines() == [asked]


@pytest.mark.parametrize("typed", ["a", "a\\ \\$", "'a", '"a'])
def test_bash_never_executes_a_name(typed: str, stub: Mapping[str, str]) -> None:
    Path(stub["STUB"], "queues").write_text(f"{HOSTILE}\n")
    replies = bash(f"qctl pause {typed}", stub)
    # Inside quotation marks there is no way to write it.
    assert len(replies) == (0 if typed[0] in "'\"" else 1)
    for reply in replies:
        echoed = subprocess.run(
            ["bash", "-c", f"printf %s {reply}"], text=True, capture_output=True, check=True
        )
        assert echoed.stdout == HOSTILE


# The shells themselves, in a terminal


STARTS = {
    "bash": (["--norc", "--noprofile", "-i"], "bind 'set bell-style none'; "),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -D -u; "),
    "fish": (["--no-config", "-i"], ""),
}


def type_in(shell: str, keys: str, env: Mapping[str, str]) -> list[str]:
    """Type a line ending in TAB and Return into a shell; the arguments that ``qctl`` then gets."""
    ran = Path(env["STUB"], "ran")
    arguments, before = STARTS[shell]
    executable = needs(shell)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(env["STUB"])
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
        ("qctl restart pm2:wo", ["restart", "pm2:worker"]),
        ("qctl pause 'email r", ["pause", "email reports"]),
    ],
)
def test_a_shell_completes(
    shell: str, keys: str, arguments: list[str], stub: Mapping[str, str]
) -> None:
    assert type_in(shell, keys, stub) == arguments


@pytest.mark.parametrize("shell", STARTS)
@pytest.mark.parametrize("typed", ["a", "a\\ "])
def test_a_shell_never_executes_a_name(shell: str, typed: str, stub: Mapping[str, str]) -> None:
    Path(stub["STUB"], "queues").write_text(f"{HOSTILE}\n")
    assert type_in(shell, f"qctl pause {typed}", stub) == ["pause", HOSTILE]


# The names


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that neither caches nor settings of this machine matter."""
    for name in ("QCTL_REDIS_URL", "REDIS_URL", "QCTL_PREFIX", "QCTL_CONTEXT", "PM2_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tab(*arguments: str) -> list[str]:
    """One TAB, through the program's front door."""
    ran = subprocess.run(
        [sys.executable, "-m", "qctl", "__complete", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def cache(home: Path) -> list[Path]:
    return [path for path in home.glob("cache/qctl/*") if path.suffix != ".busy"]


def make_queues(client: Client, *names: str, prefix: str = "bull") -> None:
    for name in names:
        client.call("HSET", f"{prefix}:{name}:meta", "version", "bullmq:5.0.0")


def test_names_come_from_redis_by_way_of_a_cache(
    home: Path, redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_queues(client, "emails", "reports", "e\x1bvil", "e\nvil", "e $(id)", "e\u202ex")
    client.call("HSET", b"bull:e\xff:meta", "version", "bullmq:5.0.0")
    monkeypatch.setenv("QCTL_REDIS_URL", redis_url)
    found = wait_until(lambda: tab("queues", "e"), "the refresher")
    assert found == ["e $(id)", "emails"]
    (path,) = cache(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    # A fresh cache is not read anew; an old one is, after it has been shown.
    make_queues(client, "exports")
    assert tab("queues", "ex") == []
    os.utime(path, (time.time() - 60,) * 2)
    assert tab("queues", "em") == ["emails"]
    assert wait_until(lambda: tab("queues", "ex"), "the refresher") == ["exports"]


def test_what_cannot_be_read_anew_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QCTL_REDIS_URL", "redis://127.0.0.1:1/0")
    path = Path(complete.cache_path(os.environ, str(home)))
    path.parent.mkdir(parents=True)
    path.write_text("0.1\nqueues\temails\n")
    os.utime(path, (1_000_000_000,) * 2)
    assert tab("queues", "") == ["emails"]
    wait_until(lambda: path.stat().st_mtime > 1_000_000_000, "the refresher")
    assert tab("queues", "") == ["emails"]


def test_prefix_and_context_are_honoured(
    home: Path, redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_queues(client, "here")
    make_queues(client, "there", prefix="other")
    config = home / "config/qctl/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[contexts.main.redis]\nurl = "{redis_url}"\n[contexts.side.redis]\nurl = "{redis_url}"\n'
        'prefix = "other"\n[targets.ingest]\nprocess = "pm2:worker"\nqueues = ["here"]\n'
    )
    monkeypatch.setenv("QCTL_CONTEXT", "main")
    assert wait_until(lambda: tab("queues", ""), "the refresher") == ["here"]
    assert tab("contexts", "") == ["main", "side"]
    assert tab("targets", "") == ["ingest"]
    monkeypatch.setenv("QCTL_CONTEXT", "side")
    assert wait_until(lambda: tab("queues", ""), "the refresher") == ["there"]
    monkeypatch.setenv("QCTL_PREFIX", "bull")
    assert wait_until(lambda: tab("queues", ""), "the refresher") == ["here"]
    monkeypatch.setenv("QCTL_CONTEXT", "sid")
    assert wait_until(lambda: tab("contexts", "s"), "the refresher") == ["side"]


def test_the_cache_is_named_without_the_password(home: Path) -> None:
    def name(url: str, folder: Path = home, **more: str) -> str:
        environ = {**os.environ, "QCTL_REDIS_URL": url, **more}
        return complete.cache_path(environ, str(folder))

    assert name("redis://u:secret@h:1/0") == name("redis://u:other@h:1/0")
    names = {
        name("redis://u:secret@h:1/0"),
        name("redis://v:secret@h:1/0"),
        name("redis://u:secret@h:2/0"),
        name("redis://u:secret@h:1/0", QCTL_PREFIX="p"),
        name("redis://u:secret@h:1/0", QCTL_CONTEXT="p"),
    }
    below = home / "a/b"
    below.mkdir(parents=True)
    assert name("redis://u:secret@h:1/0", below) in names
    (home / "a/qctl.toml").write_text("")
    names |= {name("redis://u:secret@h:1/0", below)}
    assert len(names) == 6


def test_pm2_is_asked_only_where_it_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakePm2:
        def __init__(self, folder: Path) -> None:
            assert folder == home / ".pm2"

        def processes(self) -> list[object]:
            return [type("Process", (), {"target": "pm2:worker"})]

    monkeypatch.setattr("qctl.manage.pm2.manager.Pm2", FakePm2)
    monkeypatch.setenv("QCTL_REDIS_URL", "redis://127.0.0.1:1/0")
    path = home / "cache-file"
    complete.refresh(str(path))
    assert "targets" not in path.read_text()
    (home / ".pm2").mkdir()
    (home / ".pm2/rpc.sock").touch()
    complete.refresh(str(path))
    assert path.read_text().splitlines()[1:] == ["targets\tpm2:worker"]


@pytest.mark.parametrize("arguments", [[], ["queues"], ["nonsense", "x"], ["queues", "a", "b"]])
def test_any_failure_is_silent(
    home: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cache folder that cannot be made.
    (home / "cache").touch()
    monkeypatch.setenv("QCTL_REDIS_URL", "nonsense")
    assert tab(*arguments) == []


def test_a_damaged_cache_is_replaced(
    home: Path, redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_queues(client, "emails")
    monkeypatch.setenv("QCTL_REDIS_URL", redis_url)
    path = Path(complete.cache_path(os.environ, str(home)))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\x00nonsense")
    assert wait_until(lambda: tab("queues", ""), "the refresher") == ["emails"]


def test_one_refresher_is_at_work_at_a_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(complete.cache_path(os.environ, str(home)))
    path.parent.mkdir(parents=True)
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *args, **_: started.append(args))
    monkeypatch.setattr(complete, "FIRST_WAIT_S", 0)
    for _ in range(3):
        complete.main(["queues", ""])
    assert len(started) == 1
    # One that was killed does not block the next for ever.
    os.utime(f"{path}.busy", (time.time() - 60,) * 2)
    complete.main(["queues", ""])
    assert len(started) == 2


def test_a_long_pass_over_redis_is_not_repeated_at_once(home: Path) -> None:
    path = home / "file"
    path.write_text("7.0\nqueues\temails\n")
    os.utime(path, (time.time() - 60,) * 2)
    assert complete._read(str(path), "queues") == (["emails"], True)
    os.utime(path, (time.time() - 300,) * 2)
    assert complete._read(str(path), "queues") == (["emails"], False)


def test_nothing_is_imported_from_the_current_folder(
    home: Path, redis_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_queues(client, "emails")
    monkeypatch.setenv("QCTL_REDIS_URL", redis_url)
    for name in ("hiredis", "tomllib", "zlib", "subprocess", "socket"):
        (home / f"{name}.py").write_text("open('PWNED', 'w')\n")
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "qctl", "__complete", "queues", ""], check=True
    )
    assert ran.returncode == 0
    wait_until(lambda: cache(home), "the refresher")
    assert not (home / "PWNED").exists()


def test_tab_loads_neither_typer_nor_rich_nor_redis(home: Path) -> None:
    program = (
        "import sys; sys.argv = ['qctl', '__complete', 'queues', '']\n"
        "from qctl.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*{'typer', 'rich', 'redis', 'hiredis', 'asyncio', 'json', 'pathlib',"
        " 'qctl.config.settings', 'qctl.connection.connect', 'dataclasses'} & sys.modules.keys())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == []
    assert ran.stderr == ""
