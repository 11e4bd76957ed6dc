-- In one step, replace a legacy repeatable and its pending job with a scheduler and the scheduler's first job. Wire
-- format 6.6.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] the repeatable's key   ARGV[2] its score, as it was read   ARGV[3] id of its pending job, as it was read
-- ARGV[4] "1" if that job waits for its time or its turn, "" if no job is pending
-- ARGV[5] the scheduler's id   ARGV[6] when its first job is due, epoch ms   ARGV[7] now, epoch ms
-- ARGV[8] the job's name   ARGV[9] its data as JSON   ARGV[10] its priority   ARGV[11] "1" to run next (lifo) or ""
-- ARGV[12] the job's opts as JSON without the last brace   ARGV[13] "1" for a cron pattern, "" for an interval
-- ARGV[14] … the fields of the scheduler's record: name, value, name, value …
--
-- Answers the new pending job's id; or, if nothing was changed, "changed" (the repeatable has changed since it was
-- read, or is gone), "running" (its job is active, and a worker may be about to make its next job) or "taken" (the
-- scheduler, or its job, exists already).
--@include scheduler_slots
--@include deleting
--@include find

local base, key, scheduler, slot = KEYS[1], ARGV[1], ARGV[5], tonumber(ARGV[6])
local old = ARGV[3]
if redis.call("ZSCORE", base .. "repeat", key) ~= ARGV[2]
  or redis.call("HEXISTS", base .. "repeat:" .. key, "ic") == 1 then
  return "changed"
end
local set = find_in_sets(base, {"delayed", "prioritized"}, old)
local list = not set and find_in_lists(base, {"wait", "paused", "active"}, old)
if list == "active" then
  return "running"
end
if (set or list) and ARGV[4] ~= "1" or not (set or list) and ARGV[4] == "1" then
  return "changed"
end
if redis.call("ZSCORE", base .. "repeat", scheduler)
  or redis.call("EXISTS", base .. iteration_id(scheduler, slot)) == 1 then
  return "taken"
end

redis.call("ZREM", base .. "repeat", key)
redis.call("DEL", base .. "repeat:" .. key)
if set then
  redis.call("ZREM", base .. set, old)
elseif list then
  redis.call("LREM", base .. list, 1, old)
end
if set or list then
  delete_job_keys(base .. old)
  emit(base, "removed", "jobId", old, "prev", set or "waiting")
end
redis.call("ZADD", base .. "repeat", string.format("%.0f", slot), scheduler)
redis.call("HSET", base .. "repeat:" .. scheduler, unpack(ARGV, 14))
return (store_iteration(base, scheduler, slot, tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[12], ARGV[10],
  ARGV[11] == "1", ARGV[13] == "1"))
