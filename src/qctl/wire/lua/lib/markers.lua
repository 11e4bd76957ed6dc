-- The markers that wake idle workers (wire format 7.2; primitives P3, P5, P6).

-- Whether no job may start: the queue is paused, or as many jobs run as it allows (P3).
local function is_blocked(meta_key, active_key)
  if redis.call("HEXISTS", meta_key, "paused") == 1 then
    return true
  end
  local concurrency = tonumber(redis.call("HGET", meta_key, "concurrency") or "")
  return concurrency ~= nil and redis.call("LLEN", active_key) >= concurrency
end

-- "There may be a job now" (P5).
local function mark_base(marker_key)
  redis.call("ZADD", marker_key, 0, "0")
end

-- "Wake up when the next delayed job is due" (P6).
local function mark_delayed(marker_key, delayed_key)
  local next_up = redis.call("ZRANGE", delayed_key, 0, 0, "WITHSCORES")
  if next_up[2] then
    redis.call("ZADD", marker_key, string.format("%.4f", tonumber(next_up[2]) / 4096), "1")
  end
end
