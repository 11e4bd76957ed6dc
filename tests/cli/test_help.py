"""``--help`` begins with examples that parse; the reference and the man page are up to date."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from qctl.cli import reference
from qctl.cli.examples import EXAMPLES
from qctl.cli.help import Command, Group
from qctl.cli.program import COMMANDS, build
from qctl.cli.spelling import distance, nearest
from tests.labs.cli import run

ROOT = Path(__file__).parents[2]
# Where a shell begins something else than an argument.
REDIRECTIONS = {">", ">>", "|"}


def commands(command: Any, parent: Any = None, name: str = "qctl") -> Iterator[tuple[str, Any]]:
    """(path without ``qctl``, context) of a command and of all below it."""
    ctx = typer.Context(command, parent=parent, info_name=name)
    yield ctx.command_path.partition(" ")[2], ctx
    if hasattr(command, "list_commands"):
        for child in command.list_commands(ctx):
            yield from commands(command.get_command(ctx, child), ctx, child)


ALL = dict(commands(build()))


def parse(words: list[str]) -> str:
    """The path of the command that the words after ``qctl`` mean; they are parsed, not run."""
    command: Any = build()
    ctx: Any = None
    name = "qctl"
    while True:
        ctx = command.make_context(name, list(words), parent=ctx)
        rest = [*getattr(ctx, "_protected_args", ()), *ctx.args]
        stands_alone = getattr(command, "invoke_without_command", False) and not rest
        if stands_alone or not hasattr(command, "list_commands"):
            return str(ctx.command_path.partition(" ")[2])
        name, command, words = command.resolve_command(ctx, rest)


def words_of(example: str) -> list[str]:
    words = shlex.split(example)
    assert words[0] == "qctl", example
    ends = [index for index, word in enumerate(words) if word in REDIRECTIONS]
    return words[1 : min(ends, default=len(words))]


@pytest.mark.parametrize("path", ALL)
def test_every_command_has_examples_and_they_parse(path: str) -> None:
    rows = EXAMPLES.get(path, ())
    assert 2 <= len(rows) <= 4, f"cli/examples.py has {len(rows)} of {path!r}"
    for example, meaning in rows:
        meant = parse(words_of(example))
        # A group shows what is in it.
        assert meant == path or (hasattr(ALL[path].command, "list_commands") and meant in ALL)
        assert meaning
        assert "\n" not in example + meaning
        assert len(meaning) <= 72


def test_no_example_is_of_a_command_that_was_removed() -> None:
    assert {path.split()[0] for path in EXAMPLES if path} <= set(COMMANDS)


@pytest.mark.parametrize("path", ALL)
def test_help_begins_with_the_examples(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*path.split(), "--help").code == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0] == "Examples:"
    places = [shown.index(f"  {example}") for example, _ in EXAMPLES[path]]
    assert places == sorted(places)
    assert places[-1] < shown.index("Usage: qctl")
    assert all(
        len(line) <= 80 for line in lines[: lines.index("")] if not line.startswith("  qctl")
    )


def test_a_group_shows_the_whole_line_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    run("jobs", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "Put stalled jobs back to run next, without waiting for BullMQ's stalled check." in shown


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["jobs", "list", "q", "--state", "faild"], "try: qctl jobs list q --state failed"),
        (["jobs", "list", "q", "--state=waitng"], "try: qctl jobs list q --state=waiting"),
        (["status", "--output", "jsno"], "try: qctl status --output json"),
        (["completion", "bsh"], "try: qctl completion bash"),
        (["jobs", "list", "q", "--state", "FAILED"], "try: qctl jobs list q --state failed"),
        (["STATUS"], "try: qctl status"),
        (["jobs", "lst"], "try: qctl jobs list"),
        (["worker", "strat"], "try: qctl worker start"),
        (["jobs", "list", "q", "--limt", "5"], "try: qctl jobs list q --limit 5"),
        (["jobs", "list", "q", "--state", "xyzzy"], "try: qctl jobs list --help"),
        (["pause", "q", "--dry"], "try: qctl pause q --dry-run"),
        (["pause", "q", "--state"], "try: qctl pause --help"),
    ],
)
def test_typos_get_a_suggestion(words: list[str], hint: str) -> None:
    ran = run(*words)
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == hint


def test_a_misspelled_configured_target_gets_one_too(tmp_path: Path) -> None:
    config = tmp_path / "qctl/config.toml"
    config.parent.mkdir()
    config.write_text('[targets.ingest]\nprocess = "pm2:worker"\nqueues = ["q"]\n')
    ran = run("restart", "ingset", XDG_CONFIG_HOME=str(tmp_path), REDIS_URL="redis://127.0.0.1:1")
    assert ran.code == 3
    assert ran.err.splitlines()[-1] == "try: did you mean ingest?"


@pytest.mark.parametrize(
    ("name", "text"), [("reference.md", reference.markdown), ("qctl.1", reference.man_page)]
)
def test_the_reference_is_that_of_this_version(name: str, text: Any) -> None:
    assert (ROOT / "docs" / name).read_text() == text(), "stale: python -m qctl.cli.reference docs"


def test_the_man_page_is_well_formed() -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-z", ROOT / "docs/qctl.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        # Each of these was taken for a command that changes something.
        *(["ps"], ["rm"], ["ls"], ["view"], ["clean"], ["reset"], ["state"], ["prune"], ["kill"]),
        *(["jobs", "rm"], ["jobs", "move"], ["jobs", "delete"], ["worker", "ps"]),
    ],
    ids=" ".join,
)
def test_no_command_is_suggested_that_was_hardly_meant(words: list[str]) -> None:
    ran = run(*words)
    assert ran.code == 2
    assert ran.err.splitlines()[-1] == " ".join(["try: qctl", *words[:-1], "--help"])


@given(st.sampled_from(sorted(COMMANDS)), st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1))
def test_a_suggestion_is_a_slip_or_two_away(name: str, word: str) -> None:
    near = nearest(word, COMMANDS)
    assert not near or distance(word, near) <= (1 if len(word) < 6 else 2)
    assert nearest(name, COMMANDS) == name


@pytest.mark.parametrize(
    ("one", "two", "slips"),
    [("", "", 0), ("a", "", 1), ("drian", "drain", 1), ("ca", "abc", 3), ("kitten", "sitting", 3)],
)
def test_slips(one: str, two: str, slips: int) -> None:
    assert distance(one, two) == distance(two, one) == slips


@pytest.mark.parametrize(
    "words",
    [
        ["drain", "q", "--then-restart", "--target", "pm2:a", "--target", "pm2:b"],
        ["status", "--context", "a", "--context=b"],
        ["status", "--redis", "redis://a", "--redis", "redis://b"],
        ["jobs", "list", "q", "--state", "failed", "--state", "waiting"],
        ["jobs", "list", "q", "--limit", "1", "--limit", "1"],
        ["purge", "q", "--state", "failed", "--state", "completed", "--yes"],
        ["status", "--watch", "--watch", "5"],
        ["top", "--interval", "1", "--interval", "2"],
    ],
    ids=" ".join,
)
def test_an_option_that_takes_one_value_is_given_once(words: list[str]) -> None:
    ran = run(*words)
    flag = next(word for word in reversed(words) if word.startswith("--") and word != "--yes")
    flag = flag.partition("=")[0]
    assert ran.code == 2
    assert f"takes one {flag}," in ran.err
    assert "2 times" in ran.err


def test_every_option_is_a_flag_or_takes_several_or_is_given_once() -> None:
    """The rule holds for all commands, since they all are of one class."""
    for path, ctx in commands(build()):
        assert isinstance(ctx.command, Command | Group), path


def test_flags_and_options_with_several_values_are_repeated_at_will(redis_url: str) -> None:
    ran = run(
        "jobs", "list", "q", "--state", "failed", "--json", "--json", QCTL_REDIS_URL=redis_url
    )
    assert "times" not in ran.err
