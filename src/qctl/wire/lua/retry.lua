-- Make an active job run again, now or after a delay. Wire format 5.9, 5.10.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms      ARGV[2] job id         ARGV[3] lock token
-- ARGV[4] delay, ms          ARGV[5] "1" to count the attempt
-- ARGV[6] "1" to run the job next (lifo) if there is no delay
-- ARGV[7] failed reason, ARGV[8] stack traces as JSON array; "" and "" if the attempt did not fail
--
-- Answers 0, or the code of wire format 5 for why the job does not run again.
--@include placing
--@include leave_active

local base = KEYS[1]
local now_text, id, token, delay_text, is_counted, runs_next, reason, stacktrace = unpack(ARGV)
local now, delay = tonumber(now_text), tonumber(delay_text)
local job_key = base .. id
if delay <= 0 then
  -- As in BullMQ, jobs whose delay is over become ready before this one (5.9, step 1).
  promote_due(base, now)
end
local code = leave_active(base, id, token)
if code ~= 0 then
  return code
end
if stacktrace ~= "" then
  redis.call("HSET", job_key, "failedReason", reason, "stacktrace", stacktrace)
end
if is_counted == "1" then
  redis.call("HINCRBY", job_key, "atm", 1)
end
if delay > 0 then
  redis.call("HSET", job_key, "delay", delay_text)
  place_delayed(base, id, now, delay)
else
  place_ready(base, id, priority_of(base, id), runs_next == "1", "prev", "active")
  wake(base)
end
return 0
