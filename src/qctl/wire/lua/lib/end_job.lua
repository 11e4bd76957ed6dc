-- The parts of ending a job that most jobs do not need (wire format 5.8; see settle.lua).
--@include dedup

-- Ends one job that has left active. settle itself ends the ordinary jobs: completed, not removed, without a parent
-- and without a deduplication id. Frees the job's deduplication id or gives it to the job that was kept for later,
-- updates the parent, and writes the job's fields and its event. May raise an error, which settle catches: a key of
-- the parent may have a wrong type.
local function end_job(base, events, now_text, kind, field, id, key, value, group)
  local now = tonumber(now_text)
  if group.dedup_id ~= "" then
    release_dedup(base, id, group.dedup_id)
    add_kept_job(base, group.dedup_id, now)
  end
  local parent_key = redis.call("HGET", key, "parentKey")
  local parent = parent_key and parent_of(parent_key, redis.call("HGET", key, "parent"))
  if parent and kind == "completed" then
    child_completed(parent, key, value, now)
  elseif parent then
    child_failed(parent, key, value, now)
  end
  if group.keep.count == 0 then
    if parent then
      detach_from_parent(key)
    end
    delete_job_keys(key)
  else
    redis.call("HSET", key, field, value, "finishedOn", now_text, "atm", group.attempts_made)
    if kind == "failed" then
      redis.call("HSET", key, "stacktrace", group.stacktrace)
      redis.call("HDEL", key, "defa")
    end
  end
  redis.call("XADD", events, "*", "event", kind, "jobId", id, field, value, "prev", "active")
  if kind == "failed" and tonumber(group.attempts_made) >= group.attempts then
    redis.call("XADD", events, "*", "event", "retries-exhausted", "jobId", id,
      "attemptsMade", group.attempts_made)
  end
end

-- Counts ended jobs in the metrics, which have one number for each minute (wire format 5.21). limit: how many
-- minutes are kept.
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
