"""Config files and the environment: settings, or a UsageError that says what is wrong."""

from __future__ import annotations

import tempfile

from hypothesis import strategies as st

from qctl.config.files import user_config_path
from qctl.config.prefixes import escaped, parse_prefixes, split_list
from qctl.config.settings import load_settings
from qctl.errors import QctlError, UsageError
from qctl.output.text import visible
from tests.labs.fuzzing import ANY_TEXT, LONG, TEXT, assert_clean, fuzz

TOML_NAMES = st.sampled_from(
    (
        *("context", "read_only", "confirm", "redis", "url", "prefix", "tls", "sentinel", "pm2"),
        *("home", "supervisord", "kubernetes", "drain", "watch", "commands", "groups", "targets"),
        *("contexts", "prod", "status", "restart", "grace", "signal", "process", "queues", "app"),
        *(
            "password_file",
            "password_command",
            "max_stalled_count",
            "read-only",
            '"a.b"',
            '"\\u001b"',
        ),
    )
)
TOML_VALUES = st.recursive(
    st.sampled_from(
        (
            *('"x"', "1", "true", "[]", '""', "-1", "1e400", "nan", "1979-05-27", '"5s"', '"TERM"'),
            *('"redis://u:p@h:1"', '"\\u001b[31m"', '"~nobody/x"', '"\\u0000"', '"pm2:w"'),
            *('["pm2:w"]', "[" * 500 + "]" * 500, "9" * 5000, '"' + "x" * 20_000 + '"'),
        )
    ),
    lambda inner: (
        st.builds("[{}, {}]".format, inner, inner)
        | st.builds("{{{} = {}}}".format, TOML_NAMES, inner)
    ),
    max_leaves=3,
)
KEYS = st.lists(TOML_NAMES, min_size=1, max_size=4).map(".".join)
LINES = st.builds("{} = {}".format, KEYS, TOML_VALUES) | KEYS.map("[{}]".format) | TEXT
FILES = st.lists(LINES, max_size=4).map("\n".join) | LONG


VARIABLES = st.sampled_from(
    (
        *("QCTL_REDIS_URL", "QCTL_PREFIX", "QCTL_MAX_STALLED_COUNT", "QCTL_CONTEXT", "PM2_HOME"),
        *("QCTL_SUPERVISORD_URL", "XDG_STATE_HOME", "QCTL_REDIS_PASSWORD_FILE"),
    )
)


@fuzz(text=FILES, variables=st.dictionaries(VARIABLES, TEXT))
def test_config_files(text: str, variables: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as home:
        environ = {"HOME": home, "XDG_CONFIG_HOME": home, **variables}
        path = user_config_path(environ)
        path.parent.mkdir()
        path.write_bytes(text.encode(errors="surrogateescape" if "\udcff" in text else "replace"))
        try:
            settings = load_settings(environ=environ)
            for name in settings.groups:
                settings.group(name)
        except QctlError as error:
            assert_clean(*map(visible, error.lines))
            return
    assert_clean(*map(visible, settings.warnings))


@fuzz(patterns=st.lists(ANY_TEXT, max_size=3), prefix=ANY_TEXT, name=TEXT)
def test_prefixes(patterns: list[str], prefix: str, name: str) -> None:
    try:
        chosen = parse_prefixes(patterns)
    except UsageError as error:
        assert_clean(*map(visible, error.lines))
        return
    chosen.include(prefix, name)
    assert parse_prefixes(split_list(str(chosen))) == chosen


@fuzz(stars=st.integers(2, 30), letters=st.integers(10, 400), mark=st.sampled_from("?*"))
def test_patterns_of_many_stars(stars: int, letters: int, mark: str) -> None:
    """A pattern that nearly matches is refused soon."""
    pattern = f"a*{mark}" * stars + "b"
    assert not parse_prefixes([pattern]).include("a" * letters, "q")
    assert parse_prefixes([escaped(pattern)]).include(pattern, "q")
