-- Make a scheduler's next job, after a worker has fetched the pending job. Wire format 6.4. If the fetched job
-- is an older one, which runs again after a retry or a stall, this script does nothing: a scheduler has only
-- one pending job at a time.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] scheduler id   ARGV[2] id of the fetched job   ARGV[3] now, epoch ms
-- ARGV[4] interval ms in the job's options, or "" for a cron pattern
-- ARGV[5] the pattern's next time, epoch ms, or ""   ARGV[6] offset ms in the job's options
-- ARGV[7] priority   ARGV[8] "1" to run next (lifo) or ""
-- ARGV[9] the new job's opts as JSON without the last brace
--
-- Answers the new job's id, or "" if none was made.
--@include scheduler_slots

local base, scheduler, now = KEYS[1], ARGV[1], tonumber(ARGV[3])
local record, pending = base .. "repeat:" .. scheduler, pending_slot(base, scheduler)
if not pending or ARGV[2] ~= iteration_id(scheduler, pending) then
  return ""
end
-- ic: how many jobs the scheduler has made.
local known = redis.call("HMGET", record, "name", "data", "every", "startDate", "offset", "ic")
local slot, every = tonumber(ARGV[5]), tonumber(known[3] or "") or tonumber(ARGV[4])
if not slot then
  if not every or every < 1 then
    return ""
  end
  slot = next_slot(pending, every, now, tonumber(known[5] or "") or tonumber(ARGV[6]) or 0,
    tonumber(known[4] or ""))
end
local id = iteration_id(scheduler, slot)
if redis.call("EXISTS", base .. id) == 1 then
  emit(base, "duplicated", "jobId", id)
  return ""
end
local name, data = known[1] or redis.call("HGET", base .. ARGV[2], "name") or scheduler, known[2]
if not data and not known[6] then
  -- In old BullMQ versions, only the job has the data, and the scheduler's record has none.
  data = redis.call("HGET", base .. ARGV[2], "data")
  if data then
    redis.call("HSET", record, "data", data)
  end
end
redis.call("ZADD", base .. "repeat", string.format("%.0f", slot), scheduler)
redis.call("HINCRBY", record, "ic", 1)
store_iteration(base, scheduler, slot, now, name, data or "{}", ARGV[9], ARGV[7], ARGV[8] == "1",
  ARGV[5] ~= "")
return id
