-- Put jobs where they wait for their turn; base is the queue's key prefix, "bull:q:" (primitives
-- P7-P10, P12).
--@include ready_list
--@include events
--@include is_job

-- Puts a job behind the waiting jobs, or before them if runs_next (P9).
local function place_waiting(base, id, runs_next)
  if runs_next then
    redis.call("RPUSH", target_list(base), id)
  else
    redis.call("LPUSH", target_list(base), id)
  end
  wake(base)
end

-- Puts a job behind the other jobs of its priority (P10).
local function place_prioritized(base, id, priority)
  local count = redis.call("INCR", base .. "pc")
  local score = priority * 4294967296 + count % 4294967296
  redis.call("ZADD", base .. "prioritized", string.format("%.0f", score), id)
  wake(base)
end

-- Puts a job behind the other delayed jobs of its millisecond (P8). start and delay in ms. Answers the due
-- time in ms, as text. The caller writes the event, then the marker (mark_delayed).
local function place_delayed(base, id, start, delay)
  local due = start + math.max(delay, 0)
  local low, high = due * 4096, (due + 1) * 4096 - 1
  local last = redis.call("ZREVRANGEBYSCORE", base .. "delayed", string.format("%.0f", high),
    string.format("%.0f", low), "WITHSCORES", "LIMIT", 0, 1)
  local score = low
  if last[2] then
    score = math.min(tonumber(last[2]) + 1, high)
  end
  redis.call("ZADD", base .. "delayed", string.format("%.0f", score), id)
  return string.format("%.0f", due)
end

-- Moves delayed jobs that are due to the ready jobs, at most 1,000 in a call (P12). Ids without a job are
-- dropped.
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
      local priority = tonumber(redis.call("HGET", base .. id, "priority") or "0") or 0
      if priority == 0 then
        redis.call("LPUSH", target, id)
      else
        place_prioritized(base, id, priority)
      end
      emit(base .. "events", base .. "meta", "event", "waiting", "jobId", id, "prev", "delayed")
      redis.call("HSET", base .. id, "delay", 0)
    end
  end
  wake(base)
end
