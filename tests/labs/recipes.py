"""The recipes of docs/deploy.md: a test runs what the page says, so that the two cannot differ."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/deploy.md"
# The queue of the recipes.
QUEUE = "emails"


@dataclass(frozen=True)
class Recipe:
    """The code of one section.

    Attributes:
        blocks: language and text of each fenced block.
    """

    blocks: tuple[tuple[str, str], ...]

    def shell(self) -> str:
        """The commands for the operator's shell: the last block of shell that is no script."""
        found = [text for kind, text in self.blocks if kind == "sh" and not text.startswith("#!")]
        return found[-1]

    def preparation(self) -> str:
        """The commands before the drain."""
        return self.shell().partition("qctl ")[0]

    def drain(self, changed: Mapping[str, str] = {}, **options: str) -> list[str]:
        """The arguments of qctl in the last command.

        Args:
            changed: parts of the command that must differ.
            options: values of options to add or to replace, e.g. ``ready_timeout="2s"``.
        """
        words = shlex.split(_replaced(self.shell(), changed).replace("\\\n", " "))
        words = words[words.index("qctl") + 1 :]
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            if option in words:
                words[words.index(option) + 1] = value
            else:
                words[1:1] = [option, value]
        return words

    def write_scripts(self, folder: Path, changed: Mapping[str, str] = {}) -> None:
        """Write the scripts to files.

        Args:
            changed: parts of the text, such as paths, that must differ on this machine.
        """
        for kind, text in self.blocks:
            if kind == "sh" and (named := re.match(r"#!/bin/sh\n# ([\w-]+): ", text)):
                file = folder / named[1]
                file.write_text(_replaced(text, changed))
                file.chmod(0o755)

    def yaml(self) -> str:
        """The YAML file."""
        (text,) = (text for kind, text in self.blocks if kind == "yaml")
        return text


def recipe(heading: str) -> Recipe:
    """The recipe below a heading of the page."""
    _, _, rest = PAGE.read_text().partition(f"\n### {heading}\n")
    assert rest, f"docs/deploy.md has no recipe {heading!r}"
    section = re.split(r"^#{2,3} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return Recipe(tuple(fences))


def path_with(*folders: Path) -> str:
    """A PATH that begins with these folders."""
    return os.pathsep.join([*map(str, folders), os.environ["PATH"]])


def _replaced(text: str, changed: Mapping[str, str]) -> str:
    for part, other in changed.items():
        assert part in text, f"{part!r} is not in {text!r}"
        text = text.replace(part, other)
    return text
