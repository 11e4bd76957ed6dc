-- Make an active job wait for its unfinished children, if there are any. Wire format 5.11.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms   ARGV[2] job id   ARGV[3] lock token
--
-- Answers 0 if the job waits now, or 1 if the job has no unfinished child (then nothing is changed). Any other
-- answer is a code of wire format 5 that says why the job does not wait (-9: a child has failed, so the job must
-- fail).
--@include events
--@include leave_active

local base = KEYS[1]
local now, id, token = unpack(ARGV)
local job_key = base .. id
if redis.call("EXISTS", job_key) == 0 then
  return -1
end
if redis.call("ZCARD", job_key .. ":unsuccessful") ~= 0 then
  return -9
end
if redis.call("SCARD", job_key .. ":dependencies") == 0 then
  return 1
end
local code = leave_active(base, id, token)
if code ~= 0 then
  return code
end
redis.call("ZADD", base .. "waiting-children", now, id)
emit(base, "waiting-children", "jobId", id, "prev", "active")
return 0
