-- Where a job waits for its turn, by the queue's base ("bull:q:"); primitives P4, P5, P7-P10, P12.
--@include markers
--@include events
--@include jobs
--@include paused_list

-- The list for jobs that are ready.
local function target_list(base)
  if is_paused_list_used(base .. "meta", base .. "wait", base .. "paused") then
    return base .. "paused"
  end
  return base .. "wait"
end

-- Wakes one idle worker, unless fetching is held up (P5).
local function wake(base)
  if not is_blocked(base .. "meta", base .. "active") then
    mark_base(base .. "marker")
  end
end

-- P9. command: LPUSH for its turn, RPUSH to run next.
local function place_waiting(base, id, command)
  redis.call(command, target_list(base), id)
  wake(base)
end

-- P10: behind the others of its priority.
local function place_prioritized(base, id, priority)
  local count = redis.call("INCR", base .. "pc")
  local score = priority * 4294967296 + count % 4294967296
  redis.call("ZADD", base .. "prioritized", string.format("%.0f", score), id)
  wake(base)
end

-- P8, and the entry itself: behind the others of its millisecond. start and delay in ms.
-- Answers the due time in ms, as text. The marker (mark_delayed) is the caller's, after its event.
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

-- P12: delayed jobs that are due go where they run, at most 1000 a call. An id without a job is dropped.
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
