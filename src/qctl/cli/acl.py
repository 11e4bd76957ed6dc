"""``qctl acl``: the Redis user that commands need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.spelling import nearest
from qctl.errors import UsageError

if TYPE_CHECKING:
    from qctl.wire.acl import Role, Rule

app = App()

# These commands connect to no Redis, or only to a Redis that they start themselves.
_WITHOUT_REDIS = {"acl", "completion", "config", "contexts", "demo", "help"}


def _complete() -> list[str]:
    from qctl.cli.program import COMMANDS  # noqa: PLC0415 - program.py loads this module

    return [name for name in COMMANDS if name not in _WITHOUT_REDIS]


@app.command("acl")
def acl(
    env: Environment,
    commands: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]...",
            help="Commands such as drain, jobs list or worker, or a role",
            show_default=False,
            autocompletion=_complete,
        ),
    ] = None,
) -> None:
    """The ACL rule that gives a Redis user only the needed rights.

    There are three roles: read, operate (which also reads) and worker. The rule grants the rights
    of all roles that the COMMANDs need. Without COMMAND, qctl lists the roles, and prints the rule
    of the role read. This command does not connect to Redis.
    """
    from qctl.wire.acl import ROLES, rule  # noqa: PLC0415 - not for --help

    mode, db = _connection(env)

    def rule_of(*roles: Role) -> Rule:
        return rule(roles, env.settings.prefixes, mode=mode, db=db)

    roles = _roles(" ".join(commands or ()).split())
    rules = [rule_of(*roles)] if roles else [rule_of(role) for role in ROLES]
    if not env.shows_blocks:
        env.show(rules[0] if roles else {"rules": rules}, (each.rule for each in rules))
        return
    if not roles:
        env.print(*(f"{role.name:<8} {role.does}" for role in ROLES), "")
    env.print(rules[0].rule)
    _explain(env, rules[0])


def _explain(env: Environment, shown: Rule) -> None:
    env.note("", "Paste it into redis-cli, with a password of your own instead of CHANGE_ME.")
    if any(key.startswith("%") for key in shown.keys):
        env.note("Redis 6 does not know %R~: type ~ there.")
    env.note("What each right is for: qctl help acl")


def _connection(env: Environment) -> tuple[str, int]:
    """The mode and the database of the Redis in use."""
    from qctl.connection.address import EMBEDDED, parse_url  # noqa: PLC0415

    url = env.settings.redis_url
    address = parse_url("unix:///" if url.startswith(EMBEDDED) else url)
    return address.mode, address.db


def _roles(words: Sequence[str]) -> list[Role]:
    """The roles that the typed words need, without duplicates.

    Args:
        words: names of commands, with or without a subcommand, and names of roles.

    Raises:
        UsageError: a word is neither a command nor a role, or a command needs no Redis user.
    """
    from qctl.cli.program import COMMANDS, load_command, writes  # noqa: PLC0415 - it loads this module
    from qctl.wire.acl import OPERATE, READ, ROLES  # noqa: PLC0415

    named = {role.name for role in ROLES}
    found: set[str] = set()
    left = list(words)
    while left:
        word = left.pop(0)
        if word in _WITHOUT_REDIS:
            raise UsageError(f"qctl {word} needs no Redis user", hint="qctl acl")
        if word not in named and word not in COMMANDS:
            near = nearest(word, [*COMMANDS, *named])
            raise UsageError(f"qctl has no command {word!r}", hint=f"qctl acl {near}".rstrip())
        command: Any = load_command(word) if word in COMMANDS else None
        subcommands = getattr(command, "commands", {})
        if left and left[0] in subcommands:
            command = subcommands[left.pop(0)]
        if word in named:
            found.add(word)
        else:
            found.add(OPERATE.name if writes(command) else READ.name)
    if OPERATE.name in found:
        # The role ``operate`` includes all rights of the role ``read``.
        found.discard(READ.name)
    return [role for role in ROLES if role.name in found]
