"""The kinds of failure, and the exit code of each (see docs/cli.md)."""

from __future__ import annotations

import re
from enum import IntEnum

# Secrets of at least this many characters do not occur inside other words by chance.
_MIN_LONG_SECRET = 8
_CODE_IN_SCRIPT = re.compile(r"user_script: ?\d+: -?([A-Z]{3,}) ")


class ExitStatus(IntEnum):
    """Exit codes of every qctl command; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    TIMED_OUT = 4
    REFUSED = 5
    UNREACHABLE = 6
    PARTIAL = 7
    INTERRUPTED = 130


class QctlError(Exception):
    """A failure that is reported to the operator.

    Args:
        what: what happened, one sentence without a full stop.
        why: the cause, or evidence of the cause; may span lines.
        hint: what to type or change next.
    """

    exit_status: ExitStatus = ExitStatus.FAILED

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what

    @property
    def lines(self) -> tuple[str, ...]:
        """The report: what happened, why, and what to type. Control characters are not escaped."""
        why = self.why.split("\n") if self.why else ()
        return (f"error: {self.what}", *why, *([f"try: {self.hint}"] if self.hint else ()))


class FailedError(QctlError):
    """The operation was tried and did not succeed."""


class UsageError(QctlError):
    """The command line or the config is wrong, or qctl cannot ask the operator a question."""

    exit_status = ExitStatus.USAGE


class NotFoundError(QctlError):
    """There is no such queue, job, process, scheduler or context."""

    exit_status = ExitStatus.NOT_FOUND


class TimedOutError(QctlError):
    """The time limit passed; changes were undone as far as possible."""

    exit_status = ExitStatus.TIMED_OUT


class RefusedError(QctlError):
    """The operation would be unsafe; ``hint`` names the flag that allows it, if there is one."""

    exit_status = ExitStatus.REFUSED


class UnreachableError(QctlError):
    """Redis or the process manager cannot be reached or is not ready."""

    exit_status = ExitStatus.UNREACHABLE


class ManagerUnreachableError(UnreachableError):
    """A process manager cannot be reached; Redis may be reachable."""


class PartialError(QctlError):
    """Only a part of the operation was done; ``why`` lists the rest."""

    exit_status = ExitStatus.PARTIAL


class InterruptedByUserError(QctlError):
    """Ctrl-C, SIGTERM or a lost terminal; changes were undone as far as possible."""

    exit_status = ExitStatus.INTERRUPTED


class ReplyError(QctlError):
    """Redis answered a command with an error.

    Args:
        message: the error as Redis sent it, e.g. ``WRONGTYPE Operation against …``.
        command: the command and its key, for the message; never the command's values.
        secret: a password to hide in ``message``; may be empty.

    Attributes:
        message: the error to show.
        raw: the error as received. Do not show it, because it may contain the password.
        code: the error's code, e.g. ``WRONGTYPE``.
    """

    def __init__(self, message: str, *, command: str = "", secret: str = "") -> None:
        # Redis appends the command's values, for example the password of AUTH: cut them off.
        self.raw = message = message.partition(", with args beginning with")[0]
        self.code = _code(message)
        what, hint, self.exit_status = _explain(message, self.code)
        if command == "AUTH" and self.exit_status == ExitStatus.FAILED:
            # Without AUTH no command works, whatever the reason for the error.
            self.exit_status = ExitStatus.UNREACHABLE
        self.message = message = without_secret(message, secret)
        super().__init__(
            f"{what} ({command})" if command else what,
            why=f"Redis said: {message}",
            hint=hint,
        )

    @property
    def refuses_service(self) -> bool:
        """Whether Redis refuses all commands (loading, busy, …), or the keys' slot is moving."""
        return self.exit_status == ExitStatus.UNREACHABLE


def without_secret(text: str, secret: str) -> str:
    """The text with ``***`` for the secret; a short secret is replaced only as a whole word."""
    if not secret:
        return text
    if len(secret) >= _MIN_LONG_SECRET:
        return text.replace(secret, "***")
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)


def is_outage(error: BaseException) -> bool:
    """Whether Redis is away or cannot serve at present; trying again later may then help.

    The one definition of "Redis is away". Do not use it for an error of the first connection: a
    wrong password or the address of a replica would count as an outage, too.
    """
    if isinstance(error, ReplyError):
        return error.refuses_service or error.code in _TEMPORARY
    if isinstance(error, ManagerUnreachableError):
        return False
    return isinstance(error, UnreachableError)


# Error codes of a server that is not the master, or is no longer the master.
NOT_THE_MASTER = frozenset(("READONLY", "MASTERDOWN", "UNBLOCKED"))
# Error codes of conditions that may end: failover, moved slot, no memory, no disk, few replicas.
_TEMPORARY = NOT_THE_MASTER | {"MOVED", "OOM", "MISCONF", "NOREPLICAS"}
_SCATTERED = (
    "the keys of this queue are in different slots of the cluster",
    "BullMQ needs them in one slot: put a hash tag into the prefix (--prefix '{bull}') or into the "
    "queue's name",
    ExitStatus.FAILED,
)
_MOVING = (
    "the cluster is moving these keys to another node",
    "try again when the move is over: `redis-cli --cluster check HOST:PORT` shows open slots",
    ExitStatus.UNREACHABLE,
)
# Error code → what happened, what to type or change, exit status.
_EXPLANATIONS: dict[str, tuple[str, str, ExitStatus]] = {
    "NOAUTH": (
        "Redis asks for a password",
        "put it into the URL: QCTL_REDIS_URL=redis://:PASSWORD@host:port/0",
        ExitStatus.UNREACHABLE,
    ),
    "WRONGPASS": (
        "Redis does not accept this user and password",
        "check the user and the password in the URL",
        ExitStatus.UNREACHABLE,
    ),
    "LOADING": (
        "Redis is still loading its data from disk",
        "wait until it has finished, then try again",
        ExitStatus.UNREACHABLE,
    ),
    "BUSY": (
        "Redis is busy running another client's script",
        "wait until it has finished, then try again",
        ExitStatus.UNREACHABLE,
    ),
    "MASTERDOWN": (
        "this Redis is a replica that has lost its master",
        "connect to the master",
        ExitStatus.UNREACHABLE,
    ),
    "CLUSTERDOWN": (
        "the Redis cluster is down",
        "check `redis-cli cluster info`, then try again",
        ExitStatus.UNREACHABLE,
    ),
    "TRYAGAIN": _MOVING,
    "ASK": _MOVING,
    "CROSSSLOT": _SCATTERED,
    "MOVED": (
        "this Redis is one node of a cluster",
        "name the cluster: --redis redis+cluster://HOST:PORT",
        ExitStatus.USAGE,
    ),
    "DENIED": (
        "this Redis accepts connections from its own host only",
        "run qctl on that host, or set a password for that Redis",
        ExitStatus.UNREACHABLE,
    ),
    "NOREPLICAS": (
        "Redis refuses writes because too few replicas are connected",
        "check its replicas (`redis-cli info replication`), then try again",
        ExitStatus.FAILED,
    ),
    "READONLY": (
        "this Redis is a read-only replica",
        "connect to the master; `redis-cli info replication` names it",
        ExitStatus.FAILED,
    ),
    "NOPERM": (
        "this Redis user may not do that",
        "qctl acl COMMAND prints the rights that a command needs (qctl's own keys are ~qctl:*)",
        ExitStatus.FAILED,
    ),
    "WRONGTYPE": (
        "a key has a type that BullMQ never gives it",
        "check it with `redis-cli type KEY`: does another program use this prefix?",
        ExitStatus.FAILED,
    ),
    "OOM": (
        "Redis has no memory left for writes",
        "free memory or raise maxmemory, then try again",
        ExitStatus.FAILED,
    ),
    "MISCONF": (
        "Redis refuses writes because it cannot save to disk",
        "fix its disk (see its log), then try again",
        ExitStatus.FAILED,
    ),
}
# For errors without their own code: a part of the text → the same as above. The first match wins.
_EXPLANATIONS_BY_TEXT: dict[str, tuple[str, str, ExitStatus]] = {
    "access a non local key in a cluster": _SCATTERED,
    # Redis 7 omits the code NOPERM inside a script.
    "The user executing the script can't": _EXPLANATIONS["NOPERM"],
    # Before AUTH, Redis refuses long commands without a look at them.
    "Protocol error: unauthenticated": _EXPLANATIONS["NOAUTH"],
    "unknown command 'SENTINEL'": (
        "the server is a Redis, not a sentinel",
        "name the sentinels (usually port 26379), or use redis://HOST:PORT/DB",
        ExitStatus.UNREACHABLE,
    ),
    # As in "DB index is out of range" and "invalid DB index".
    "DB index": (
        "this Redis has no database of that number",
        "correct the number at the end of the URL; `redis-cli config get databases` shows how many",
        ExitStatus.USAGE,
    ),
    "SELECT is not allowed in cluster mode": (
        "a Redis cluster has only database 0",
        "remove the number from the URL",
        ExitStatus.USAGE,
    ),
    "without any password configured": (
        "this Redis has no password, but the URL has one",
        "remove the password from the URL, or check the host and port",
        ExitStatus.UNREACHABLE,
    ),
    "invalid password": (
        "Redis does not accept this password",
        "check the password in the URL",
        ExitStatus.UNREACHABLE,
    ),
    "max number of clients reached": (
        "Redis accepts no more connections: maxclients is reached",
        "stop a program that holds connections, or raise maxclients in redis.conf, then try again",
        ExitStatus.UNREACHABLE,
    ),
    "unknown command": (
        "this Redis does not know a command that qctl needs",
        "check whether redis.conf renames it (rename-command); qctl needs its original name",
        ExitStatus.FAILED,
    ),
}


def _code(message: str) -> str:
    """The error's code. Before Redis 7, a script's error begins with ERR and contains its code."""
    code = message.split(" ", 1)[0]
    in_script = _CODE_IN_SCRIPT.findall(message) if code == "ERR" else ()
    return str(in_script[-1]) if in_script else code


def _explain(message: str, code: str) -> tuple[str, str, ExitStatus]:
    if code in _EXPLANATIONS:
        return _EXPLANATIONS[code]
    for part, explanation in _EXPLANATIONS_BY_TEXT.items():
        if part in message:
            return explanation
    hint = "check Redis' log, and whether `redis-cli ping` answers PONG"
    return ("Redis refused a command", hint, ExitStatus.FAILED)
