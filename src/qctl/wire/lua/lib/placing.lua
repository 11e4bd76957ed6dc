-- Make jobs ready or delayed (primitives P8-P10, P12). base is the queue's key prefix, "bull:q:".
--@include ready
--@include events
--@include is_job

-- Puts a job behind the other jobs of its priority (P10). The caller wakes a worker.
local function place_prioritized(base, id, priority)
  local count = redis.call("INCR", base .. "pc")
  local score = priority * 4294967296 + count % 4294967296
  redis.call("ZADD", base .. "prioritized", string.format("%.0f", score), id)
end

-- Makes a job ready, and writes the event; the last arguments are more fields of the event. A job without a
-- priority runs after the waiting jobs, or before them if runs_next (P9). The caller wakes a worker.
local function place_ready(base, id, priority, runs_next, ...)
  if priority ~= 0 then
    place_prioritized(base, id, priority)
  else
    redis.call(runs_next and "RPUSH" or "LPUSH", target_list(base), id)
  end
  emit(base, "waiting", "jobId", id, ...)
end

-- Makes a job delayed, behind other jobs that are due in the same millisecond (P8). Writes the marker and the
-- event; the last arguments are more fields of the event. start: epoch ms; delay: ms.
local function place_delayed(base, id, start, delay, ...)
  local due = start + math.max(delay, 0)
  local low, high = due * 4096, (due + 1) * 4096 - 1
  local last = redis.call("ZREVRANGEBYSCORE", base .. "delayed", string.format("%.0f", high),
    string.format("%.0f", low), "WITHSCORES", "LIMIT", 0, 1)
  local score = low
  if last[2] then
    score = math.min(tonumber(last[2]) + 1, high)
  end
  redis.call("ZADD", base .. "delayed", string.format("%.0f", score), id)
  emit(base, "delayed", "jobId", id, "delay", string.format("%.0f", due), ...)
  mark_delayed(base)
end

-- Makes delayed jobs ready when their time has come, at most 1,000 in a call (P12). Drops ids that have no
-- job.
local function promote_due(base, now)
  local ids = redis.call("ZRANGEBYSCORE", base .. "delayed", 0,
    string.format("%.0f", (now + 1) * 4096 - 1), "LIMIT", 0, 1000)
  if #ids == 0 then
    return
  end
  redis.call("ZREM", base .. "delayed", unpack(ids))
  local target = target_list(base)
  for _, id in ipairs(ids) do
    if is_job(base .. id) then
      local priority = priority_of(base, id)
      if priority == 0 then
        redis.call("LPUSH", target, id)
      else
        place_prioritized(base, id, priority)
      end
      emit(base, "waiting", "jobId", id, "prev", "delayed")
      redis.call("HSET", base .. id, "delay", 0)
    end
  end
  wake(base)
end
