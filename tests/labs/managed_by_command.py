"""The app under a manager that qctl reaches only through commands: shell scripts around PM2."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.labs.drains import Lab, Running
from tests.labs.managed_apps import Pm2App
from tests.labs.node import MODULES, node

STATUS = """\
for file in "$1"/pids/app-*.pid; do
  [ -e "$file" ] && kill -0 "$(cat "$file")" 2>/dev/null && cat "$file" && echo && runs=yes
done
[ -n "$runs" ]
"""


class CommandApp(Pm2App):
    """The app under PM2, which qctl does not see, see ``ManagedApp``.

    Attributes:
        crash_words: what a crash loop is reported with: qctl cannot read the app's log, and only
            sees in Redis that the workers come and go.
    """

    target = "command:app"
    crash_words = "keep going away"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        home = str(lab.pm2.home)
        pm2 = shlex.join([*node(), str(MODULES / "pm2/bin/pm2")])
        status = self._script("status.sh", STATUS)
        restart = self._script("restart.sh", f'export PM2_HOME="$1"\n{pm2} restart app\n')
        write_config(
            lab.folder,
            f'[commands.app]\nstatus = ["sh", "{status}", "{home}"]\n'
            f'restart = ["sh", "{restart}", "{home}"]\ngrace = "1600ms"\nsignal = "INT"\n',
        )

    def _script(self, name: str, text: str) -> Path:
        file = self._lab.folder / name
        file.write_text(text)
        return file

    def start_qctl(self, *words: str) -> Running:
        """See ``ManagedApp``."""
        return self._lab.start(*words, env={"PM2_HOME": "/nonexistent"})


def write_config(home: Path, text: str) -> Path:
    """Write the user's config; ``home`` is XDG_CONFIG_HOME."""
    file = home / "qctl" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o600)
    return file
