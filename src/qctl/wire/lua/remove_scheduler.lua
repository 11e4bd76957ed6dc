-- Remove a scheduler, and its pending job if that job is delayed. Wire format 6.6. A pending job in another
-- state stays there and runs.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] scheduler id   ARGV[2] the part of its jobs' ids that precedes the due time
-- ARGV[3] the name of a Python package: remove the scheduler only if that package's code made it; "" to remove
--   any scheduler
--
-- Answers 1 if the scheduler was removed, else 0.
--@include deleting

local base, scheduler = KEYS[1], ARGV[1]
local slot = tonumber(redis.call("ZSCORE", base .. "repeat", scheduler) or "")
if not slot or ARGV[3] ~= "" and redis.call("HGET", base .. "repeat:" .. scheduler, "qctl") ~= ARGV[3] then
  return 0
end
local id = ARGV[2] .. string.format("%.0f", slot)
if redis.call("ZREM", base .. "delayed", id) == 1 then
  delete_job_keys(base .. id)
  emit(base, "removed", "jobId", id, "prev", "delayed")
end
redis.call("ZREM", base .. "repeat", scheduler)
redis.call("DEL", base .. "repeat:" .. scheduler)
return 1
