-- Run delayed jobs now. Wire format 5.16. Unlike in BullMQ's bulk promotion, jobs keep their priority, and
-- their delay is reset.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] "dry" to write nothing
-- ARGV[2] … ids, at most 500
--
-- Answers {time, words}. The time is how many microseconds the call took, or "" if that is unknown. There is
-- one word for each job: "promoted", "inactive" (the job is not delayed), "missing" (its hash is gone).
--@include clock
--@include placing
--@include require_types

local base, is_dry = KEYS[1], ARGV[1] == "dry"

local function promote(id)
  local job_key = base .. id
  if not is_job(job_key) then
    return "missing"
  end
  if is_dry then
    return redis.call("ZSCORE", base .. "delayed", id) and "promoted" or "inactive"
  end
  if redis.call("ZREM", base .. "delayed", id) == 0 then
    return "inactive"
  end
  place_ready(base, id, priority_of(base, id), false, "prev", "delayed")
  redis.call("HSET", job_key, "delay", 0)
  return "promoted"
end

require_queue_types(base)

local answers = {}
for i = 2, #ARGV do
  answers[#answers + 1] = promote(ARGV[i])
end
if not is_dry then
  wake(base)
end
return {took(), answers}
