-- Add jobs that have ended to the metrics, which count them per minute (wire format 5.21).

-- count: jobs that ended in this call. limit: how many minutes are kept.
local function count_metrics(base, kind, now, count, limit)
  local key = base .. "metrics:" .. kind
  local before = redis.call("HINCRBY", key, "count", count) - count
  local last = redis.call("HMGET", key, "prevTS", "prevCount")
  local now_text = string.format("%.0f", now)
  if not last[1] then
    redis.call("HSET", key, "prevTS", now_text, "prevCount", 0)
    return
  end
  local minutes = math.floor(now / 60000) - math.floor(tonumber(last[1]) / 60000)
  minutes = math.min(minutes, limit)
  if minutes <= 0 then
    return
  end
  local data = key .. ":data"
  redis.call("LPUSH", data, string.format("%.0f", before - (tonumber(last[2] or "0") or 0)))
  for _ = 2, minutes do
    redis.call("LPUSH", data, 0)
  end
  redis.call("LTRIM", data, 0, limit - 1)
  redis.call("HSET", key, "prevCount", string.format("%.0f", before), "prevTS", now_text)
end
