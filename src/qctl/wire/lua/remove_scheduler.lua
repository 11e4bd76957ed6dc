-- Remove a scheduler and its pending iteration if that is delayed. Wire format 6.6. An iteration
-- that waits already stays and runs.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] scheduler id   ARGV[2] what the ids of its jobs begin with, up to the time
--
-- Answers 1 when there was one, else 0.
--@include keep

local base, sid = KEYS[1], ARGV[1]
local prev = tonumber(redis.call("ZSCORE", base .. "repeat", sid) or "")
if not prev then
  return 0
end
local id = ARGV[2] .. string.format("%.0f", prev)
if redis.call("ZREM", base .. "delayed", id) == 1 then
  delete_job_keys(base .. id)
  emit(base .. "events", base .. "meta", "event", "removed", "jobId", id, "prev", "delayed")
end
redis.call("ZREM", base .. "repeat", sid)
redis.call("DEL", base .. "repeat:" .. sid)
return 1
