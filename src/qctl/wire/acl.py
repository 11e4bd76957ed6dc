"""The least rights of a Redis user, by role: Redis commands, and patterns of keys.

The tables were found by running every command of a role on a Redis, and by reading the scripts that
these commands run. ``tests/cli/test_acl.py`` does both again. The test fails if a role lacks a
Redis command that it needs, or has a Redis command that it does not need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qctl.config.prefixes import Prefixes, tokens

# The keys that ``wire/keys.py`` makes outside the queues.
OWN_KEYS = "qctl:*"
# The characters that are special in a Redis pattern, outside of brackets.
_SPECIAL = re.compile(r"[*?\[\\]")
# These become "?", which matches any one character: Redis refuses patterns with blanks, and
# redis-cli interprets quotes.
_UNWRITABLE = re.compile(r"[\s\"'\x00-\x1f\x7f]")

_READS = (
    *("dbsize", "exists", "get", "hget", "hgetall", "hlen", "hmget", "hscan", "lindex", "llen"),
    *("lpos", "lrange", "ping", "pttl", "scan", "scard", "sismember", "srandmember", "sscan"),
    *("time", "type", "xinfo|stream", "xlen", "xrange", "xread", "xrevrange", "zcard", "zcount"),
    *("zrange", "zrangebyscore", "zrank", "zrevrange", "zrevrangebyscore", "zscan", "zscore"),
    # If the user lacks the right to one of these commands, qctl still works, and reports the values
    # that the command would return as unknown (docs/acl.md).
    *("client|list", "config|get", "info", "memory|usage"),
)
_CHANGES = (
    *("del", "eval", "evalsha", "expire", "hdel", "hexists", "hincrby", "hset", "incr", "incrby"),
    *(
        "lpush",
        "lrem",
        "ltrim",
        "mget",
        "persist",
        "rename",
        "rpush",
        "sadd",
        "set",
        "srem",
        "unlink",
        "wait",
    ),
    *("xadd", "xtrim", "zadd", "zrem"),
)
_WORK = (
    *("bzpopmin", "client|id", "client|setname", "client|unblock", "del", "eval", "evalsha"),
    *("exists", "expire", "get", "hdel", "hexists", "hget", "hgetall", "hincrby", "hlen", "hmget"),
    *("hset", "incr", "incrby", "lindex", "llen", "lpos", "lpush", "lrange", "lrem", "ltrim"),
    *("mget", "persist", "pexpire", "psetex", "pttl", "rpop", "rpush", "sadd", "scard"),
    *("script|load", "set", "sismember", "spop", "srandmember", "srem", "time", "unlink", "xadd"),
    *("xinfo|stream", "xlen", "xrange", "xread", "xrevrange", "xtrim", "zadd", "zcard", "zcount"),
    *("zpopmin", "zrange", "zrangebyscore", "zrem", "zremrangebyscore", "zrevrange"),
    *("zrevrangebyscore", "zscore"),
)
# What every connection needs, by ``Address.mode``.
_CONNECTION = {
    "cluster": ("asking", "cluster|nodes", "cluster|slots"),
    "sentinel": ("role",),
}


@dataclass(frozen=True, slots=True)
class Role:
    """What one Redis user is for.

    Args:
        commands: in lower case; ``client|list`` is one subcommand of ``CLIENT``.
        writes: whether the role changes keys.
    """

    name: str
    does: str
    commands: tuple[str, ...]
    writes: bool = True


READ = Role("read", "commands that change nothing", _READS, writes=False)
OPERATE = Role(
    "operate", "also those that change queues: drain, pause, retry …", (*_READS, *_CHANGES)
)
WORKER = Role("worker", "workers of qctl, and apps that add jobs with it", _WORK)
ROLES = (READ, OPERATE, WORKER)


@dataclass(frozen=True, slots=True)
class Rule:
    """The rights of a Redis user.

    Args:
        role: the names of the roles, with ``+`` between them.
        keys: Redis patterns. Each begins with ``~``, or with ``%R~`` (Redis 7) if no role writes.
        channels: patterns of channels; qctl uses none.
        rule: the command for redis-cli, with a placeholder for the password.
    """

    role: str
    does: str
    commands: tuple[str, ...]
    keys: tuple[str, ...]
    channels: tuple[str, ...]
    rule: str


def rule(
    roles: Sequence[Role], prefixes: Prefixes, *, mode: str = "standalone", db: int = 0
) -> Rule:
    """The rights that exactly suffice for these roles together.

    Args:
        mode, db: of the ``Address`` in use. A ``db`` other than 0 needs the right to ``SELECT``.
    """
    names = {name for role in roles for name in role.commands} | {*_CONNECTION.get(mode, ())}
    commands = tuple(sorted(names | ({"select"} if db else set())))
    sign = "~" if any(role.writes for role in roles) else "%R~"
    patterns = dict.fromkeys([*map(_key_pattern, prefixes.patterns), OWN_KEYS])
    keys = tuple(f"{sign}{pattern}" for pattern in patterns)
    words = (
        *("ACL", "SETUSER", "-".join(["qctl", *(role.name for role in roles)])),
        *("on", ">CHANGE_ME", "resetkeys", *keys, "resetchannels", "-@all"),
        *(f"+{name}" for name in commands),
    )
    does = "; ".join(role.does for role in roles)
    return Rule("+".join(role.name for role in roles), does, commands, keys, (), " ".join(words))


def _key_pattern(prefix: str) -> str:
    """The Redis pattern for the keys of all queues under ``prefix``, a pattern of ``Prefixes``."""
    parts = (
        (text if text in "*?" else "*") if special else _SPECIAL.sub(r"\\\g<0>", text)
        for text, special in tokens(prefix)
    )
    return _UNWRITABLE.sub("?", f"{''.join(parts)}:*")
