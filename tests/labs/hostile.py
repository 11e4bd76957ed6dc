"""Runs the program as an operator would, and holds what a hostile or broken producer may write."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qctl.connection.address import Client
from qctl.connection.socket_client import encode
from tests.labs.drains import Running

Word = str | bytes

# Each must come out as harmless text, whoever wrote it.
TEXTS: tuple[Word, ...] = (
    "[red]markup[/red] [/] [link=https://x]y[/link]",
    "\x1b[31;1mred\x1b[0m\x1b[2J\x1b[H",
    "\x1b]8;;https://evil.example/\x07link\x1b]8;;\x07",
    "\x1b]52;c;ZXZpbA==\x07clipboard",
    "\x9b31mC1 control",
    "line\nerror: forged\r\nline",
    "right\u202eot-left\u2066\u2069\u200f",
    "zero\u200b\u200d\u2060\ufeffwidth",
    "para\u2029graph\u2028\x85",
    b"bad \xff\xfe utf-8 \xc3",
    b"surrogate \xed\xa0\x80",
    "$(touch pwned) `touch pwned` 'q' \"q\" \\n | ; &",
    "-dash",
    "--help",
    "wide 界 🙂 e\u0301",
)
NUMBERS: tuple[str, ...] = (
    *("1e400", "-1e400", "nan", "inf", "-inf", "-1", "9" * 400, "-" + "9" * 400, "1e300"),
    *("²", "0x10", "", " ", "1_000", "abc", "9007199254740993", "8.64e15", "253402300800000"),
)
DEEP = "[" * 10_000 + "]" * 10_000
PAYLOADS: tuple[str | None, ...] = (
    *(None, "", "not JSON", "{", DEEP, "[" * 960 + "]" * 960, '{"a":' * 500 + "1" + "}" * 500),
    *("NaN", '{"a": Infinity}', '{"a": 1e400}', "9" * 5000, '"\\ud800"', "null", "[1, 2]"),
)
STATES = (
    *("waiting", "active", "stalled", "delayed", "prioritized", "waiting-children"),
    *("completed", "failed"),
)
MODES: Mapping[str, tuple[str, ...]] = {
    "table": (),
    "json": ("--json",),
    "ndjson": ("--output", "ndjson"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of qctl left behind."""

    arguments: tuple[Word, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def objects(self) -> list[Any]:
        """The JSON objects on stdout, one a line."""
        assert self.stdout.endswith("\n") or not self.stdout, self
        limit = sys.getrecursionlimit()
        # Python's own reader gives up on payloads that other programs read.
        sys.setrecursionlimit(5000)
        try:
            return [json.loads(line) for line in self.stdout.splitlines()]
        finally:
            sys.setrecursionlimit(limit)

    @property
    def object(self) -> Any:
        """The only JSON object on stdout."""
        (found,) = self.objects
        return found


class Qctl:
    """Runs qctl in a folder without configuration."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def __call__(self, *arguments: Word, url: str | None = None, **env: str) -> Result:
        """One run, to its end; the arguments may be bytes."""
        surroundings = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("QCTL_", "REDIS_", "XDG_", "NO_COLOR"))
        }
        surroundings |= {
            "HOME": str(self.folder),
            "PM2_HOME": str(self.folder / ".pm2"),
            "QCTL_REDIS_URL": self.url if url is None else url,
            "PYTHONUTF8": "1",
            **env,
        }
        words = [os.fsdecode(word) for word in arguments]
        done = Running.qctl(words, surroundings, self.folder).finish()
        return Result(arguments, done.code, done.out, done.err)

    def all(self, commands: Iterable[Sequence[Word]], **env: str) -> list[Result]:
        """Many runs, some of them at the same time; results in the order of the commands."""
        with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
            return list(pool.map(lambda command: self(*command, **env), commands))

    def everywhere(self, *command: Word) -> dict[str, Result]:
        """One command in every form of output, each proved to be harmless."""
        # Options first: a queue's name may stand behind a "--".
        name, at = command[0], 2 if command[0] == "jobs" else 1
        assert isinstance(name, str)
        results = self.all([*command[:at], *mode, *command[at:]] for mode in MODES.values())
        for result in results:
            assert_harmless(result)
        return dict(zip(MODES, results, strict=True))


def assert_harmless(result: Result) -> None:
    """No traceback, nothing on the streams that a terminal would obey or hide, and valid JSON."""
    assert "Traceback" not in result.stderr, result.stderr
    assert "unexpected" not in result.stderr, result.stderr
    for text in (result.stdout, result.stderr):
        foul = {char for char in set(text) if char != "\n" and _is_obeyed(char)}
        assert not foul, (result.arguments, sorted(map(ascii, foul)))
        assert "\nerror: forged" not in text, text
    if "--json" in result.arguments and result.code in {0, 7}:
        assert isinstance(result.object, dict)
    elif "ndjson" in result.arguments:
        assert all(isinstance(item, dict) for item in result.objects)


def _is_obeyed(char: str) -> bool:
    """Controls, formats (bidirectional, zero-width), separators but a space, surrogates."""
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def assert_explained(result: Result, code: int, *words: str) -> None:
    """The exit code, and an error that says what, why and what next."""
    assert result.code == code, result
    assert_harmless(result)
    first, *rest = result.stderr.rstrip("\n").split("\n")
    assert first.startswith("error: "), result
    assert rest[-1].startswith("try: "), result
    text = result.stderr.lower()
    assert all(word.lower() in text for word in words), (words, result.stderr)


def assert_no_secret(result: Result, *secrets: str) -> None:
    """None of the secrets on either stream, percent-encoded ones included."""
    for secret in secrets:
        coded = "".join(f"%{byte:02x}" for byte in secret.encode())
        for text in (result.stdout, result.stderr):
            lower = re.sub(r"\s", "", text.lower())
            assert secret.lower() not in lower, result
            assert coded not in lower, result


def dump(client: Client) -> dict[str, Any]:
    """Every key of the database with its content; two that are equal mean that nothing changed."""
    keys = client.call("KEYS", "*")
    types = client.pipeline([("TYPE", key) for key in keys]) if keys else []
    content = {}
    for key, kind in zip(keys, types, strict=True):
        has_expiry = client.call("PTTL", key) >= 0
        # Not DUMP: two reads of one hash can come in a different order.
        rows = client.call(*(word if word != "KEY" else key for word in _WHOLE[kind]))
        if kind == "hash":
            rows = sorted(zip(rows[::2], rows[1::2], strict=True))
        content[key] = (kind, sorted(rows) if kind == "set" else rows, has_expiry)
    return content


# The command that reads all of a key, by its type.
_WHOLE: dict[str, tuple[Word | int, ...]] = {
    "string": ("GET", "KEY"),
    "list": ("LRANGE", "KEY", 0, -1),
    "hash": ("HGETALL", "KEY"),
    "set": ("SMEMBERS", "KEY"),
    "zset": ("ZRANGE", "KEY", 0, -1, "WITHSCORES"),
    "stream": ("XRANGE", "KEY", "-", "+"),
}


def raw(word: Word) -> bytes:
    return encode(word)


def key(queue: Word, suffix: Word) -> bytes:
    return b"bull:" + raw(queue) + b":" + raw(suffix)


def put(
    client: Client,
    queue: Word,
    job_id: Word,
    where: str = "wait",
    fields: Mapping[str, Word | int] | None = None,
    *,
    score: str = "1",
    lock: str = "",
) -> bytes:
    """A job with these fields, or usual ones; none at all when ``fields`` is empty."""
    if fields is None:
        fields = {"name": "job", "data": "{}", "opts": "{}", "timestamp": 1_700_000_000_000}
    client.call("HSET", key(queue, "meta"), "version", "bullmq:6.7.0", "opts.maxLenEvents", "100")
    client.call("XADD", key(queue, "events"), "*", "event", "added")
    if fields:
        words = (
            raw(word) if not isinstance(word, int) else word for i in fields.items() for word in i
        )
        client.call("HSET", key(queue, job_id), *words)
    if where in {"wait", "active", "paused"}:
        client.call("LPUSH", key(queue, where), raw(job_id))
    elif where:
        client.call("ZADD", key(queue, where), score, raw(job_id))
    if lock:
        client.call("SET", key(queue, raw(job_id) + b":lock"), lock)
    return raw(job_id)


def fields_with(text: Word) -> dict[str, Word | int]:
    """A job in which every text field is ``text``."""
    quoted = json.dumps({"text": text}) if isinstance(text, str) else b'{"text": "' + text + b'"}'
    trace = json.dumps([text, text]) if isinstance(text, str) else b'["' + text + b'"]'
    return {
        **dict.fromkeys(("name", "failedReason", "pb", "rjk", "deid", "defa", "parentKey"), text),
        "data": quoted,
        "opts": quoted,
        "progress": quoted,
        "returnvalue": text,
        "stacktrace": trace,
        "timestamp": 1_700_000_000_000,
    }


def fields_of(number: str) -> dict[str, Word | int]:
    """A job in which every number is ``number``."""
    names = ("timestamp", "processedOn", "finishedOn", "atm", "ats", "stc", "priority", "delay")
    opts = json.dumps({"attempts": number, "delay": number})
    return {**dict.fromkeys(names, number), "name": "numbers", "data": "{}", "opts": opts}


PLACES = {
    "waiting": "wait",
    "active": "active",
    "stalled": "active",
    "delayed": "delayed",
    "prioritized": "prioritized",
    "waiting-children": "waiting-children",
    "completed": "completed",
    "failed": "failed",
}


def evil_queue(client: Client, queue: Word) -> dict[str, list[bytes]]:
    """A queue full of jobs that no sane producer writes.

    Returns:
        the ids by state.
    """
    ids: dict[str, list[bytes]] = {state: [] for state in STATES}
    for state in STATES:
        for job_id, fields, score in _evil_jobs(state):
            lock = "somebody" if state == "active" else ""
            ids[state].append(
                put(client, queue, job_id, PLACES[state], fields, score=score, lock=lock)
            )
    for job_id in ids["failed"]:
        client.call("RPUSH", key(queue, job_id + b":logs"), *map(raw, TEXTS))
    # An active job without a lock is both.
    ids["active"] += ids["stalled"]
    for where in ("wait", "active"):
        client.call("RPUSH", key(queue, where), "0:123")
    return ids


def _evil_jobs(state: str) -> Iterator[tuple[Word, Mapping[str, Word | int], str]]:
    letter = state.encode() if state != "waiting-children" else b"children"
    scores = ("inf", "-inf", "1e300", "-1e300", "0", "nonsense")
    for index, text in enumerate(TEXTS):
        yield letter + b" " + raw(text), fields_with(text), scores[index % 5]
    for index, number in enumerate(NUMBERS):
        yield letter + b"-number-%d" % index, fields_of(number), scores[index % 5]
    for index, payload in enumerate(PAYLOADS):
        bare = {} if payload is None else {"data": payload, "timestamp": "1"}
        yield letter + b"-data-%d" % index, bare or {"name": "n"}, "1"
    yield letter + b"-ghost", {}, "inf"
    yield letter + b":with:colons", {"name": "n", "timestamp": 1}, "2"
