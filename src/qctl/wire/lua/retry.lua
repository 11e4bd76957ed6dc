-- Let an active job run again, now or after a delay. Wire format 5.9, 5.10.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms      ARGV[2] job id         ARGV[3] lock token
-- ARGV[4] delay, ms          ARGV[5] "1" to count the attempt
-- ARGV[6] "1" to run it next when there is no delay (lifo)
-- ARGV[7] failed reason      ARGV[8] stack traces, JSON array; both "" if the attempt did not fail
--
-- Answers 0, or why nothing was done (a code of wire format 5).
--@include placing
--@include leave_active

local base, now, id, delay = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[4])
local job_key, events, meta = base .. id, base .. "events", base .. "meta"
if delay <= 0 then
  promote_due(base, now)
end
local code = leave_active(base, id, ARGV[3])
if code ~= 0 then
  return code
end
if ARGV[8] ~= "" then
  redis.call("HSET", job_key, "failedReason", ARGV[7], "stacktrace", ARGV[8])
end
if ARGV[5] == "1" then
  redis.call("HINCRBY", job_key, "atm", 1)
end
if delay > 0 then
  local due = place_delayed(base, id, now, delay)
  redis.call("HSET", job_key, "delay", ARGV[4])
  emit(events, meta, "event", "delayed", "jobId", id, "delay", due)
  mark_delayed(base .. "marker", base .. "delayed")
  return 0
end
local priority = tonumber(redis.call("HGET", job_key, "priority") or "0") or 0
if priority == 0 then
  place_waiting(base, id, ARGV[6] == "1")
else
  place_prioritized(base, id, priority)
end
emit(events, meta, "event", "waiting", "jobId", id, "prev", "active")
return 0
