"""``qctl completion``, and the answers to its scripts for bash, zsh and fish.

A script puts the command line, up to the cursor, into an environment variable, and offers the lines
that qctl prints. Click parses the command line and finds the parameter to complete;
``candidates.py`` finds the names. Typer's own scripts are not used: they split words at ``:``, and
could run a command that is hidden in a queue's name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Annotated, Literal

import typer

# Typer's own copy of click; a later version of typer might move it, so typer is pinned.
from typer._click.shell_completion import CompletionItem, ShellComplete

from qctl.cli.frame import App
from qctl.cli.program import build

app = App()
VARIABLE = "_QCTL_COMPLETE"

_BASH = """\
# bash completion for qctl, printed by `qctl completion bash`.
_qctl_completion() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(_QCTL_COMPLETE=complete_bash _QCTL_LINE="${COMP_LINE:0:COMP_POINT}" \\
        _QCTL_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null </dev/null)
}
complete -F _qctl_completion qctl
"""
_ZSH = """\
#compdef qctl
# zsh completion for qctl, printed by `qctl completion zsh`.
_qctl() {
    local -a candidates
    candidates=("${(@f)$(_QCTL_COMPLETE=complete_zsh _QCTL_LINE="${words[1,CURRENT]}" \\
        "${(Q)words[1]}" 2>/dev/null </dev/null)}")
    candidates=("${(@)candidates:#}")
    [[ $PREFIX == --*=* ]] && compset -P '*='
    (( $#candidates )) && _describe candidate candidates
}
# If compinit has loaded this file from $fpath, complete now; otherwise register the function.
if [[ $funcstack[1] == _qctl ]]; then
    _qctl "$@"
else
    compdef _qctl qctl
fi
"""
_FISH = """\
# fish completion for qctl, printed by `qctl completion fish`.
function __qctl_complete
    set -lx _QCTL_COMPLETE complete_fish
    set -lx _QCTL_LINE (commandline -cp)
    set -l words (commandline -opc)
    command $words[1] 2>/dev/null </dev/null
end
complete -c qctl -f -a '(__qctl_complete)'
"""


class _Shell(ShellComplete):
    """What the three shells have in common.

    Attributes:
        head: the ``--option=`` that the word being typed begins with; "" for none.
        typed: the word being typed, unquoted.
        quote: the quotation mark that is open in the word being typed; "" for none.
    """

    head = ""
    typed = ""
    quote = ""

    def source_vars(self) -> dict[str, object]:
        return {}

    def source(self) -> str:
        return self.source_template

    def get_completion_args(self) -> tuple[list[str], str]:
        words, self.quote = split_line(os.environ["_QCTL_LINE"])
        *arguments, self.typed = words[1:] or [""]
        if "--" not in arguments and self.typed.startswith("--") and "=" in self.typed:
            self.head = self.typed.partition("=")[0] + "="
        return arguments, self.typed

    def complete(self) -> str:
        return "".join(f"{line}\n" for line in super().complete().split("\n") if line)


class Bash(_Shell):
    name = "bash"
    source_template = _BASH

    def format_completion(self, item: CompletionItem) -> str:
        value = self.head + str(item.value)
        if self.quote:
            # A candidate that cannot be written within these quotation marks is not offered.
            unsafe = "'" if self.quote == "'" else '"$`\\!'
            return "" if set(value) & set(unsafe) else value
        breaks = os.environ.get("_QCTL_BREAKS", "")
        # Readline replaces only a part of the word: the text after the last : or =, or the text
        # from the last @ on.
        starts = (self.typed.rfind(char) + (char != "@") for char in ":=@" if char in breaks)
        return re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", value[max(0, *starts, 0) :])


class Zsh(_Shell):
    name = "zsh"
    source_template = _ZSH

    def format_completion(self, item: CompletionItem) -> str:
        # zsh adds quotes itself, and the script keeps ``--option=``. In an answer to zsh, a colon
        # begins the description, so a colon in the name is escaped.
        value = str(item.value).replace("\\", "\\\\").replace(":", "\\:")
        return f"{value}:{_first_sentence(item.help)}" if item.help else value


class Fish(_Shell):
    name = "fish"
    source_template = _FISH

    def format_completion(self, item: CompletionItem) -> str:
        value = self.head + str(item.value)
        return f"{value}\t{_first_sentence(item.help)}" if item.help else value


SHELLS: Mapping[str, type[_Shell]] = {shell.name: shell for shell in (Bash, Zsh, Fish)}


def split_line(line: str) -> tuple[list[str], str]:
    """The words of an unfinished line, and the quotation mark still open at its end ("" if none).

    The last word is the word being typed; after a space, it is empty.
    """
    # With the \0, a line that ends with a space has a last word, and a backslash at the end of the
    # line has a character to escape.
    lexer = shlex.shlex(f"{line}\0", posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    quote = ""
    try:
        for word in lexer:
            words.append(word)  # noqa: PERF402 - keeps the words before an open quotation mark
    except ValueError:
        # The state of shlex is now the quotation mark that is open.
        words.append(lexer.token)
        quote = str(getattr(lexer, "state", ""))
    return [word.removesuffix("\0") for word in words], quote


def _first_sentence(text: str) -> str:
    """The beginning of a help text, up to its first full stop, colon or bracket."""
    return re.split(r"\. |: |\.$|  \[", " ".join(text.split("\n")))[0]


@app.command("completion", bare=True)
def completion(
    ctx: typer.Context,
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish")
    ],
) -> None:
    """Print the script for completion in your shell."""
    ctx.obj.stdout.write(SHELLS[shell].source_template)


def complete(instruction: str) -> None:
    """Print the candidates for ``complete_SHELL``, and exit. No error is shown."""
    with contextlib.suppress(Exception, KeyboardInterrupt):
        shell = SHELLS[instruction.removeprefix("complete_")]
        text = shell(build(), {}, "qctl", VARIABLE).complete()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    # A normal exit could wait for a look-up that does not end.
    os._exit(0)
