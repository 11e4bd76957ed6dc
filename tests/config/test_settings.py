"""Settings: which place wins, what is odd about a file, where a password comes from."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

import psutil
import pytest

from qctl.config.guards import same_database
from qctl.config.passwords import with_password
from qctl.config.settings import Settings, load_settings
from qctl.errors import FailedError, NotFoundError, QctlError, UsageError


class Place:
    """A home with a user's config, and a folder of a project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"XDG_CONFIG_HOME": str(folder / "home")}
        (folder / "home/qctl").mkdir(parents=True)
        (folder / "project/deep").mkdir(parents=True)

    @property
    def user(self) -> Path:
        return self.folder / "home/qctl/config.toml"

    @property
    def project(self) -> Path:
        return self.folder / "project/qctl.toml"

    def write(self, user: str = "", project: str = "") -> Place:
        for path, text in ((self.user, user), (self.project, project)):
            if text:
                path.write_text(text)
                path.chmod(0o600)
        return self

    def load(self, *, context: str | None = None, url: str | None = None, **env: str) -> Settings:
        return load_settings(redis_url=url, context=context, environ={**self.environ, **env})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    monkeypatch.chdir(tmp_path / "project/deep")
    return place


CONTEXTS = """
[redis]
url = "redis://base:1"
prefix = "base"
[contexts.prod]
read_only = true
[contexts.prod.redis]
url = "redis://prod:1"
"""


def origin(settings: Settings, name: str) -> str:
    return str(settings.origins[name])


def test_each_place_wins_over_those_below_and_is_named(place: Place) -> None:
    settings = place.load()
    assert (settings.redis_url, origin(settings, "redis.url")) == (
        *("redis://localhost:6379/0", "default"),
    )
    place.write(user='[redis]\nurl = "redis://user:1"\nmax_stalled_count = 3')
    settings = place.load()
    assert (settings.redis_url, settings.max_stalled_count) == ("redis://user:1", 3)
    assert origin(settings, "redis.url") == f"{place.user} [redis]"
    place.write(project='[redis]\nurl = "redis://project:1"')
    settings = place.load()
    assert (settings.redis_url, settings.max_stalled_count) == ("redis://project:1", 3)
    assert origin(settings, "redis.url") == f"{place.project} [redis]"
    settings = place.load(REDIS_URL="redis://env:1")
    assert (settings.redis_url, origin(settings, "redis.url")) == ("redis://env:1", "REDIS_URL")
    settings = place.load(url="redis://flag:1", REDIS_URL="redis://env:1")
    assert (settings.redis_url, origin(settings, "redis.url")) == ("redis://flag:1", "--redis")
    assert settings.files == (place.project, place.user)


def test_a_context_lies_over_the_rest(place: Place) -> None:
    place.write(user=CONTEXTS, project='[redis]\nurl = "redis://project:1"')
    assert place.load().guards.read_only is False
    for settings in (place.load(context="prod"), place.load(QCTL_CONTEXT="prod")):
        assert (settings.redis_url, settings.prefix, settings.guards.read_only) == (
            *("redis://prod:1", "base", True),
        )
        assert origin(settings, "redis.url") == f"{place.user} [contexts.prod.redis]"
        assert origin(settings, "read_only") == f"{place.user} [contexts.prod]"
    assert place.load(url="redis://flag:1", context="prod").redis_url == "redis://flag:1"


def test_a_context_named_by_a_flag_is_not_undone_by_a_variable(place: Place) -> None:
    """An app's REDIS_URL must not send ``--context prod`` somewhere else."""
    place.write(user=CONTEXTS)
    assert place.load(context="prod", REDIS_URL="redis://env:1").redis_url == "redis://prod:1"
    assert place.load(QCTL_CONTEXT="prod", REDIS_URL="redis://env:1").redis_url == "redis://env:1"


def test_a_context_that_is_not_defined(place: Place) -> None:
    place.write(user=CONTEXTS)
    with pytest.raises(NotFoundError, match="no context named 'prd'") as caught:
        place.load(context="prd")
    assert caught.value.why == "defined contexts: prod"


def test_targets_of_all_files_key_by_key(place: Place) -> None:
    place.write(
        user='[targets.a]\nprocess = "pm2:a"\nqueues = ["q"]\n[targets.b]\nprocess = "pm2:b"',
        project='[targets.a]\nprocess = "pm2:other"',
    )
    first, second = place.load().targets
    assert (first.name, first.process, first.queues) == ("a", "pm2:other", ("q",))
    assert (second.name, second.process, second.queues) == ("b", "pm2:b", ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[redis]\nmax_stalled = 1", "[redis] max_stalled_count"),
        ('[redis]\npassword = "x"', "[redis] password_file"),
        ('url = "redis://x"', "[redis] url"),
        ('[contexts.prod]\nprefix = "x"', "[contexts.prod.redis] prefix"),
        ('[redsi]\nurl = "redis://x"', "[redis] url"),
        ('[targets.ingest]\nprocess = "pm2:x"\nqueue = []', "[targets.ingest] queues"),
        ('[targets."a.b"]\nprocess = "pm2:x"\nqueue = []', '[targets."a.b"] queues'),
        ('[contexts.prod.targets.a]\nproces = "pm2:x"', "[contexts.prod.targets.a] process"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known(place: Place, text: str, says: str) -> None:
    (warning,) = place.write(user=text).load().warnings
    assert warning.startswith("config: unknown key ")
    assert str(place.user) in warning
    assert f"{says}?" in warning


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[contexts.prod]\nreadonly = true", "[contexts.prod] read_only = true"),
        ("[contexts.prod]\nread-only = true", "[contexts.prod] read_only = true"),
        ("[contexts.prod]\nconfrim = true", "[contexts.prod] confirm = true"),
        ("confirm = true", "[contexts.NAME] confirm = true"),
        ('[contexts.prod]\nread_only = "yes"', "read_only = true"),
    ],
)
def test_a_guard_is_never_lost_to_a_typo(place: Place, text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        place.write(user=text).load(context="prod" if "prod" in text else None)
    assert caught.value.hint.startswith(hint)


def test_known_keys_cause_no_warning(place: Place) -> None:
    text = CONTEXTS + 'password_file = "pw"\n[pm2]\nhome = "~/x"\n[targets."a.b"]\n'
    place.write(user=text + 'process = "pm2:a"\nqueues = []')
    assert place.load().warnings == ()


# Passwords


def test_a_file_others_can_read_is_told_if_it_holds_a_password(place: Place) -> None:
    place.write(user='[contexts.prod.redis]\nurl = "redis://:s3cret@h:1"')
    assert place.load().warnings == ()
    place.user.chmod(0o644)
    (warning,) = place.load().warnings
    assert warning.endswith(f"every user can read it: chmod go-rwx {place.user}")
    assert "s3cret" not in warning
    place.user.chmod(0o640)
    (warning,) = place.load().warnings
    assert warning.endswith(f"its group can read it: chmod g-rwx {place.user}")
    place.write(user='[contexts.prod.redis]\nurl = "redis://h:1"')
    place.user.chmod(0o644)
    assert place.load().warnings == ()


def test_a_password_of_supervisord_that_others_can_read(place: Place) -> None:
    place.write(user='[supervisord]\nurl = "unix://me:hunter2@/run/s.sock"')
    place.user.chmod(0o604)
    settings = place.load()
    assert settings.supervisord_url == "unix://me:hunter2@/run/s.sock"
    assert "hunter2" not in repr(settings)
    (warning,) = settings.warnings
    assert "holds a password" in warning
    place.user.chmod(0o600)
    assert place.load().warnings == ()
    place.write(user='[contexts.prod.supervisord]\nurl = "unix://me:hunter2@/run/s.sock"')
    place.user.chmod(0o604)
    assert len(place.load().warnings) == 1


def test_a_password_from_a_file(place: Place) -> None:
    place.write(user='[redis]\nurl = "redis://ops@h:1/2"\npassword_file = "pw"')
    secret = place.user.parent / "pw"
    with pytest.raises(UsageError, match="cannot be read"):
        place.load().full_url()
    secret.write_text("p@ss/word\nanother line\n")
    secret.chmod(0o600)
    settings = place.load()
    assert settings.full_url() == "redis://ops:p%40ss%2Fword@h:1/2"
    assert "word" not in settings.redis_url
    assert settings.warnings == ()
    secret.chmod(0o604)
    assert "pw holds a password" in place.load().warnings[0]
    place.user.unlink()
    url, file = "redis://:s3cret@h:1", str(secret)
    (warning,) = place.load(QCTL_REDIS_URL=url, QCTL_REDIS_PASSWORD_FILE=file).warnings
    assert warning.startswith(f"{secret} holds a password")
    place.write(user='[redis]\npassword_file = "pw"')
    secret.write_text("\n")
    with pytest.raises(UsageError, match="empty"):
        place.load().full_url()


def with_command(place: Place, code: str) -> Settings:
    words = ", ".join(f"'''{word}'''" for word in (sys.executable, "-c", code))
    return place.write(user=f"[redis]\npassword_command = [{words}]").load()


def test_a_password_from_a_command_without_a_shell(place: Place) -> None:
    settings = with_command(place, "print('a$HOME`b')")
    assert settings.full_url() == "redis://:a%24HOME%60b@localhost:6379/0"
    assert "print" not in repr(settings.password_source.__str__())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('s3cret'); sys.stderr.write('s3cret'); sys.exit(3)", "exit code 3"),
        ("pass", "is empty"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "not UTF-8"),
    ],
)
def test_what_a_failed_command_printed_is_not_shown(
    place: Place, code: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = with_command(place, code)
    with pytest.raises(QctlError) as caught:
        settings.full_url()
    error = caught.value
    told = f"{error.what}\n{error.why}\n{error.hint}"
    assert says in told
    assert "s3cret" not in told + "".join(capfd.readouterr())


def test_a_command_that_hangs_with_a_grandchild_ends(place: Place) -> None:
    code = "import subprocess; subprocess.run(['sleep', '3'])"
    password = with_command(place, code).password_source
    assert password is not None
    with pytest.raises(QctlError, match="took longer than"):
        password.read(timeout_s=0.2)


def test_a_command_does_not_outlive_an_interrupted_qctl(place: Place) -> None:
    pid = place.folder / "pid"
    code = (
        "import os, pathlib, signal, time\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(10)\n"
    )
    password = with_command(place, code).password_source
    assert password is not None
    with pytest.raises(KeyboardInterrupt):
        password.read()
    assert not psutil.pid_exists(int(pid.read_text()))


def test_a_command_that_is_not_there(place: Place) -> None:
    place.write(user='[redis]\npassword_command = ["/nonexistent/op"]')
    with pytest.raises(UsageError, match="cannot be started"):
        place.load().full_url()


def test_what_a_failed_command_said_on_stderr_is_shown(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "'x\\n' * 9999 + '[ERROR] %s\\n'"
    code = f"import sys; print('s3cret'); sys.stderr.write({said}); sys.exit(%d)"
    with pytest.raises(FailedError) as caught:
        with_command(place, code % ("not signed in", 1)).full_url()
    assert caught.value.why == "x\nx\nx\nx\n[ERROR] not signed in"
    assert "s3cret" not in str(vars(caught.value))
    # Nothing is said where it succeeds.
    assert "s3cret" in with_command(place, code % ("a warning", 0)).full_url()
    assert capfd.readouterr() == ("", "")


def test_what_a_command_said_that_took_too_long_is_shown(place: Place) -> None:
    words = "echo s3cret; printf 'unlock it' >&2; exec sleep 60"
    place.write(user=f'[redis]\npassword_command = ["sh", "-c", "{words}"]')
    source = place.load().password_source
    assert source is not None
    with pytest.raises(FailedError) as caught:
        source.read(timeout_s=1)
    assert caught.value.why == "unlock it"
    assert "s3cret" not in str(vars(caught.value))


def test_a_password_goes_with_the_url_of_its_own_table_only(place: Place) -> None:
    """Else a URL from elsewhere would be sent this one's password."""
    secret = place.user.parent / "pw"
    secret.write_text("s3cret")
    place.write(
        user='[redis]\nurl = "redis://base:1"\npassword_file = "pw"\n'
        '[contexts.prod.redis]\nurl = "redis://prod:1"'
    )
    assert place.load().full_url() == "redis://:s3cret@base:1"
    assert place.load(url="redis://flag:1").full_url() == "redis://flag:1"
    assert place.load(REDIS_URL="redis://env:1").full_url() == "redis://env:1"
    assert place.load(context="prod").full_url() == "redis://prod:1"
    place.write(project='[redis]\nurl = "redis://stranger:1"')
    assert place.load().full_url() == "redis://stranger:1"


def test_tls_and_sentinels_go_with_the_url_of_their_own_table_only(place: Place) -> None:
    place.write(
        user='[redis]\nurl = "rediss://base:1"\n'
        'tls = { ca_file = "ca.pem", server_name = "n" }\nsentinel.username = "u"'
    )
    ca = f"{place.user.parent}/ca.pem"
    parameters = {"ssl_ca_certs": ca, "ssl_server_name": "n", "sentinel_username": "u"}
    assert place.load().url_parameters == parameters
    assert place.load().full_url().startswith("rediss://base:1?ssl_ca_certs=")
    assert place.load(url="rediss://other:1").full_url() == "rediss://other:1"
    # A parameter in the URL itself is not silently replaced.
    url = "rediss://h?ssl_server_name=a"
    with pytest.raises(UsageError, match="ssl_server_name"):
        place.load(QCTL_REDIS_URL=url, QCTL_REDIS_TLS_SERVER_NAME="b").full_url()


@pytest.mark.parametrize(
    ("project", "says"),
    [
        ('password_command = ["touch", "ran"]', "is not run"),
        ('password_file = "/etc/passwd"', "outside of the project"),
        ('password_file = "../home/qctl/config.toml"', "outside of the project"),
        ('tls.key_file = "/etc/ssl/private/key.pem"', "outside of the project"),
        ('tls.ca_file = "/etc/ca.pem"', "outside of the project"),
        ('tls.key_password_file = "/etc/passwd"', "outside of the project"),
        ('tls.key_password_command = ["touch", "ran"]', "is not run"),
        ('sentinel.password_file = "/etc/passwd"', "outside of the project"),
        ('sentinel.password_command = ["touch", "ran"]', "is not run"),
    ],
)
def test_a_projects_file_may_not_run_commands_or_send_files(
    place: Place, project: str, says: str
) -> None:
    place.write(project=f'[redis]\nurl = "redis://stranger:1"\n{project}')
    with pytest.raises(UsageError, match=says):
        place.load()


def test_a_command_in_a_file_that_others_may_change_is_not_run(place: Place) -> None:
    place.write(user='[redis]\npassword_command = ["true"]')
    place.user.chmod(0o622)
    with pytest.raises(UsageError, match="other users can change it"):
        place.load()


@pytest.mark.parametrize(
    "text",
    [
        'password_command = "op read x"',
        "password_command = []",
        "password_file = 5",
        'password_file = "a"\npassword_command = ["b"]',
        "tls.ca_file = 5",
        "tls.server_name = 5",
        'sentinel.password_command = "x"',
    ],
)
def test_malformed_secrets(place: Place, text: str) -> None:
    with pytest.raises(UsageError):
        place.write(user=f"[redis]\n{text}").load()


def test_a_url_of_the_wrong_type_is_not_shown(place: Place) -> None:
    with pytest.raises(UsageError) as caught:
        place.write(user='[redis]\nurl = ["hunter2"]').load()
    assert f"{place.user} [redis]" in caught.value.why
    assert "hunter2" not in str(vars(caught.value))


@pytest.mark.parametrize(
    ("text", "table"),
    [("redis = 1", "[redis]"), ("[contexts]\nprod = 1", "[contexts.prod]")],
)
def test_a_value_in_the_place_of_a_table_is_named(place: Place, text: str, table: str) -> None:
    with pytest.raises(UsageError) as caught:
        place.write(user=text).load()
    assert table in caught.value.what
    assert str(place.user) in caught.value.what


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("redis://h:1/0", "redis://:x%3A@h:1/0"),
        ("rediss://u@h?ssl_cert_reqs=none", "rediss://u:x%3A@h?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock?db=1", "unix://:x%3A@/run/redis.sock?db=1"),
        ("redis+sentinel://a:1,b:2/m/0", "redis+sentinel://:x%3A@a:1,b:2/m/0"),
    ],
)
def test_a_password_in_every_kind_of_url(url: str, full: str) -> None:
    assert with_password(url, "x:") == full


@pytest.mark.parametrize("url", ["redis://:other@h:1", "embedded:", "redis:s3cret@h"])
def test_a_url_that_takes_no_other_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        with_password(url, "s3cret")
    assert "s3cret" not in str(vars(caught.value))


def test_a_folder_that_was_removed_or_may_not_be_looked_into_has_no_project(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(user='[redis]\nprefix = "mine"', project='[redis]\nprefix = "theirs"')
    gone = place.folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert place.load().prefix == "mine"
    monkeypatch.chdir(place.folder / "project/deep")

    closed = place.user.parent
    is_file = Path.is_file

    def look(path: Path) -> bool:
        if path.parent == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", look)
    # A guard may stand in the user's own, so that is not passed over.
    with pytest.raises(UsageError, match=r"config\.toml cannot be read"):
        place.load()
    closed = place.folder / "project/deep"
    assert place.load().prefix == "theirs"


GUARDED = """
[contexts.prod]
read_only = true
[contexts.prod.redis]
url = "redis://127.0.0.1:6399/0"
[contexts.dev.redis]
url = "redis://redis.example:6399/0"
"""


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "[::1]"])
def test_a_guard_holds_for_each_spelling_of_this_machine(place: Place, host: str) -> None:
    place.write(user=GUARDED)
    settings = place.load(url=f"redis://{host}:6399/0")
    assert (settings.guards.read_only, settings.guards.context) == (True, "prod")
    assert place.load(url=f"redis://{host}:6399/1").guards.read_only is False
    assert place.load(url=f"redis://{host}:6398/0").guards.read_only is False


def test_no_name_is_looked_up_for_a_guard(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    place.write(user=GUARDED)
    assert place.load(url="redis://a.example:6399/0").guards.read_only is False
    assert place.load(context="dev").guards.read_only is False


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://127.0.0.1", "redis://localhost:6379/0"),
        ("redis://127.0.0.1", "rediss://user:pw@LocalHost.:6379"),
        ("redis://127.0.0.1", "redis://[::1]"),
        ("redis://cache/2", "redis://CACHE.:6379/2"),
        ("redis+sentinel://a,localhost/main/1", "redis+sentinel://127.0.0.1:26379,b/main/1"),
        ("redis+cluster://a:7000,b:7001", "rediss+cluster://pw@b:7001"),
        ("unix:///tmp/../tmp/r.sock?db=1", "unix:///tmp/r.sock?db=1"),
        ("embedded:/tmp/x", "embedded:/tmp/y/../x"),
    ],
)
def test_urls_of_one_database(url: str, other: str) -> None:
    assert same_database(url, other)
    assert same_database(other, url)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://127.0.0.1/0", "redis://localhost/1"),
        ("redis://127.0.0.1:6379", "redis://localhost:6380"),
        ("redis://a", "redis://b"),
        ("redis+sentinel://a/main", "redis+sentinel://a/second"),
        ("redis+sentinel://a/main", "redis+sentinel://b/main"),
        ("redis+sentinel://a:6379/main", "redis://a:6379"),
        ("redis+cluster://a:7000", "redis+cluster://a:7001"),
        ("unix:///tmp/r.sock", "unix:///tmp/r.sock?db=1"),
        ("unix:///tmp/r.sock", "redis://localhost"),
        ("embedded:/tmp/x", "embedded:/tmp/y"),
        ("embedded:", "embedded:"),
        ("redis://a:x", "redis://a:x"),
    ],
)
def test_urls_of_two_databases(url: str, other: str) -> None:
    assert not same_database(url, other)


def test_a_socket_by_another_path_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert same_database(f"unix://{tmp_path}/link/r.sock", f"unix://{tmp_path}/real/r.sock")


def test_how_long_new_processes_are_watched(place: Place) -> None:
    assert place.load().watch_s == 5.0
    place.write(user='[drain]\nwatch = "1m"\n[contexts.prod.drain]\nwatch = "10s"\n')
    assert place.load().watch_s == 60.0
    assert place.load(context="prod").watch_s == 10.0
    assert place.load(QCTL_WATCH="2s").watch_s == 2.0
    with pytest.raises(UsageError, match=r"QCTL_WATCH 'soon' is not a duration"):
        place.load(QCTL_WATCH="soon")
    with pytest.raises(UsageError, match=r"QCTL_WATCH '0s' is too short"):
        place.load(QCTL_WATCH="0s")
    place.write(user='[drain]\nwatch = "0s"\n')
    with pytest.raises(UsageError, match=r"drain.watch '0s' is too short"):
        place.load()
