"""Fills a Redis for ``scale.py``: many queues, one big one, and keys of other applications.

Everything is made inside Redis by Lua, a few ten thousand keys a call: nothing has to be sent, so
six million jobs take a minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qctl.connection.address import Client

# Keys made by one call.
CHUNK = 20_000
LEAST_FREE_BYTES = 6 * 2**30
BIG = "big"
BACKLOG = "backlog"

# A finished job as BullMQ keeps it. Failures have one of four reasons; stack traces are long, so
# that Redis keeps those hashes as hash tables, the others as lists.
_FINISHED = """
local first, last, state, now = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local reasons = {'connect timeout', 'upstream answered 502', 'no such user', 'request timeout'}
local scores, n = {}, 0
for i = first, last do
  local at = now - (last - i) * 10
  local key = KEYS[1] .. i
  if state == 'failed' then
    local reason = reasons[i % 4 + 1]
    redis.call('HSET', key, 'name', 'send', 'data', '{"user":{"id":' .. i .. '}}',
      'opts', '{"attempts":3}', 'timestamp', at - 9000, 'delay', 0, 'priority', 0,
      'processedOn', at - 800, 'finishedOn', at, 'atm', 3, 'ats', 3, 'failedReason', reason,
      'stacktrace', '["Error: ' .. reason .. '\\\\n    at send (/srv/app/send.js:41:11)\\\\n'
        .. '    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)"]')
  else
    redis.call('HSET', key, 'name', 'send', 'data', '{"user":{"id":' .. i .. '}}',
      'opts', '{"attempts":3}', 'timestamp', at - 9000, 'delay', 0, 'priority', 0,
      'processedOn', at - 800, 'finishedOn', at, 'atm', 1, 'ats', 1, 'returnvalue', '{"ok":true}')
  end
  scores[n + 1], scores[n + 2] = at, i
  n = n + 2
  if n >= 2000 then
    redis.call('ZADD', KEYS[2], unpack(scores))
    scores, n = {}, 0
  end
end
if n > 0 then redis.call('ZADD', KEYS[2], unpack(scores)) end
"""

_WAITING = """
local first, last, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ids, n = {}, 0
for i = first, last do
  redis.call('HSET', KEYS[1] .. i, 'name', 'send', 'data', '{"user":{"id":' .. i .. '}}',
    'opts', '{"attempts":3}', 'timestamp', now, 'delay', 0, 'priority', 0, 'atm', 0, 'ats', 0)
  n = n + 1
  ids[n] = i
  if n >= 2000 then
    redis.call('LPUSH', KEYS[2], unpack(ids))
    ids, n = {}, 0
  end
end
if n > 0 then redis.call('LPUSH', KEYS[2], unpack(ids)) end
"""

# Sessions, cached pages and counters of other applications.
_FOREIGN = """
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local kind = i % 10
  if kind == 0 then
    redis.call('HSET', 'shop:cart:' .. i, 'user', i, 'items', 3)
  elseif kind < 4 then
    redis.call('SET', 'cache:page:' .. i .. ':meta', 'x')
  else
    redis.call('SET', 'session:' .. i, i)
  end
end
"""

_QUEUE = """
local prefix, now = KEYS[1], tonumber(ARGV[1])
redis.call('HSET', prefix .. 'meta', 'opts.maxLenEvents', 10000, 'version', 'bullmq:6.7.0')
redis.call('SET', prefix .. 'id', 20)
redis.call('XADD', prefix .. 'events', '*', 'event', 'added', 'jobId', 1)
for i = 1, 20 do
  redis.call('HSET', prefix .. i, 'name', 'send', 'data', '{}', 'opts', '{"attempts":3}',
    'timestamp', now - 60000 + i, 'delay', 0, 'priority', 0, 'processedOn', now - 900)
  if i <= 8 then
    redis.call('LPUSH', prefix .. 'wait', i)
  elseif i <= 10 then
    redis.call('LPUSH', prefix .. 'active', i)
    redis.call('SET', prefix .. i .. ':lock', 'token:' .. i)
  elseif i <= 18 then
    redis.call('ZADD', prefix .. 'completed', now - i, i)
  else
    redis.call('ZADD', prefix .. 'failed', now - i, i)
  end
end
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    queues: int = 1_000
    completed: int = 5_000_000
    failed: int = 1_000_000
    waiting: int = 1_000_000
    foreign: int = 10_000_000

    def divided_by(self, number: int) -> Sizes:
        """Less of everything but queues."""
        return Sizes(
            self.queues,
            *(part // number for part in (self.completed, self.failed, self.waiting, self.foreign)),
        )


def fill(client: Client, sizes: Sizes) -> None:
    """Make it all.

    Raises:
        SystemExit: the machine is running out of memory.
    """
    now = int(time.time() * 1000)
    for number in range(sizes.queues):
        client.call("EVAL", _QUEUE, 1, f"bull:queue-{number:04d}:", now)
    big, backlog = f"bull:{BIG}:", f"bull:{BACKLOG}:"
    for prefix in (big, backlog):
        client.call("EVAL", _QUEUE, 1, prefix, now)
    # Ids go on where the twenty of a small queue end.
    first = 21
    for state, count in (("completed", sizes.completed), ("failed", sizes.failed)):
        for start, end in _chunks(first, count, f"{state} jobs"):
            client.call("EVAL", _FINISHED, 2, big, f"{big}{state}", start, end, state, now)
        first += count
    for start, end in _chunks(21, sizes.waiting, "waiting jobs"):
        client.call("EVAL", _WAITING, 2, backlog, f"{backlog}wait", start, end, now)
    for start, end in _chunks(0, sizes.foreign, "keys of others"):
        client.call("EVAL", _FOREIGN, 0, start, end)
    if sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)


def _chunks(first: int, count: int, what: str) -> Iterator[tuple[int, int]]:
    """First and last number of each call, with progress; watches over the machine's memory."""
    for start in range(first, first + count, CHUNK):
        check_memory()
        if sys.stderr.isatty():
            print(
                f"\r{start - first:12,} of {count:,} {what} ", end="", file=sys.stderr, flush=True
            )
        yield start, min(start + CHUNK, first + count) - 1


def check_memory() -> None:
    """End if other users of the machine would suffer."""
    text = Path("/proc/meminfo").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    if int(fields["MemAvailable"].split()[0]) * 1024 < LEAST_FREE_BYTES:
        raise SystemExit("less than 6 GiB of memory are free: stopped")
