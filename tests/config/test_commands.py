"""``[commands.NAME]`` in the config: who may define them, and how they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from qctl.config.commands import AppCommands
from qctl.config.settings import Settings, load_settings
from qctl.errors import UsageError

STATUS = '[commands.app]\nstatus = ["true"]\n'


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config file; the current folder is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "qctl").mkdir()
    file = tmp_path / "qctl" / "config.toml"
    file.touch(0o600)
    return file


def load(user: Path, text: str, context: str | None = None) -> Settings:
    user.write_text(text)
    environ = {"XDG_CONFIG_HOME": str(user.parent.parent), "HOME": "/nonexistent"}
    return load_settings(context=context, environ=environ)


def test_every_key(user: Path) -> None:
    settings = load(
        user,
        '[commands.app]\nstatus = ["./up", "-q"]\nrestart = ["deploy"]\nstop = ["a"]\n'
        'start = ["b"]\ngrace = "1m"\nsignal = "quit"\n',
    )
    status = (str(user.parent / "up"), "-q")
    expected = AppCommands("app", status, ("deploy",), ("a",), ("b",), 60.0, "SIGQUIT")
    assert settings.commands == (expected,)
    assert settings.warnings == ()


def test_a_context_replaces_an_app_as_a_whole(user: Path) -> None:
    text = f'{STATUS}restart = ["x"]\n[contexts.prod.commands.app]\nstatus = ["false"]\n'
    assert load(user, text).commands[0].restart == ("x",)
    assert load(user, text, "prod").commands == (AppCommands("app", ("false",)),)


def test_a_project_may_not_define_any(user: Path) -> None:
    Path("qctl.toml").write_text(STATUS)
    with pytest.raises(UsageError, match="is not run") as caught:
        load(user, STATUS)
    assert "stranger" in caught.value.why


def test_a_file_that_others_can_change(user: Path) -> None:
    user.chmod(0o620)
    with pytest.raises(UsageError, match="other users can change it"):
        load(user, STATUS)


@pytest.mark.parametrize(
    "text",
    [
        '[commands.app]\nrestart = ["true"]',
        '[commands.app]\nstatus = "true"',
        "[commands.app]\nstatus = []",
        "[commands.app]\nstatus = [1]",
        f"{STATUS}grace = 30",
        f'{STATUS}grace = "soon"',
        f'{STATUS}signal = "STOPPING"',
        f"{STATUS}signal = 15",
        "[commands]\napp = 1",
    ],
)
def test_what_is_not_valid(user: Path, text: str) -> None:
    with pytest.raises(UsageError, match="commands"):
        load(user, text)


def test_groups(user: Path) -> None:
    text = '[groups.workers]\ntargets = ["pm2:a", "b"]\n'
    assert load(user, text).groups == {"workers": ("pm2:a", "b")}
    other = '[contexts.prod.groups.workers]\ntargets = ["pm2:c"]\n'
    assert load(user, text + other, "prod").groups == {"workers": ("pm2:c",)}
    for wrong in ("[groups.workers]", '[groups.workers]\ntargets = "a"', "[groups]\nworkers = []"):
        settings = load(user, wrong)
        assert any("[groups.workers]" in warning for warning in settings.warnings)
        with pytest.raises(UsageError, match="groups"):
            settings.group("workers")
    settings = load(user, f'{text}[targets.workers]\nprocess = "pm2:a"')
    with pytest.raises(UsageError, match="name of a target and of a group"):
        settings.group("workers")
