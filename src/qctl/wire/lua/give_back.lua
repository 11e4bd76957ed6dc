-- Put active jobs back to run next, and count no attempt. Wire format 5.12. Unlike BullMQ, this script wakes a
-- worker even for a prioritised job.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1], ARGV[2] … id, lock token; at most 250 pairs; the job of the last pair runs first
--
-- Answers {ms until the queue's rate limit ends (0 if there is none), codes}. A job's code is 0 if the job was
-- put back, else a code of wire format 5.
--@include ready
--@include events
--@include leave_active

local base = KEYS[1]
local codes = {}
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local code = leave_active(base, id, ARGV[i + 1])
  if code == 0 then
    enqueue_next(base, id)
    emit(base, "waiting", "jobId", id, "prev", "active")
  end
  codes[#codes + 1] = code
end
wake(base)
return {math.max(redis.call("PTTL", base .. "limiter"), 0), codes}
