-- Put jobs that lost their worker back, to run next. Each job is checked again here: it goes back
-- only if it is still in active and its lock is the one the caller saw ("" for none at all).
-- Cf. the stalled check, wire format 5.13; unlike it, a prioritised job keeps its priority and the
-- operator's retry does not count as a stall.
--
-- KEYS[1] meta   KEYS[2] wait   KEYS[3] paused   KEYS[4] prioritized   KEYS[5] active
-- KEYS[6] marker   KEYS[7] events   KEYS[8] stalled
-- ARGV[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[2] "" not to count; else the most stalls a job may have (maxStalledCount): count one
-- ARGV[3] text of the stall failure
-- ARGV[4], ARGV[5] … id, expected lock; in pairs, at most 500 pairs
--
-- Answers how long it took, in microseconds or "" if it cannot tell, and one word a job:
-- "retried", "locked" (a worker has it), "inactive" (it left active),
-- "missing" (it has no hash any more).
--@include clock
--@include markers
--@include events
--@include enqueue
--@include jobs
--@include stall

local base, max_stalled, stall_text = ARGV[1], ARGV[2], ARGV[3]

local function forget_stalls(job_key)
  redis.call("HDEL", job_key, "stc")
  if redis.call("HGET", job_key, "defa") == stall_text then
    redis.call("HDEL", job_key, "defa")
  end
end

local function retry(id, expected_lock)
  local job_key = base .. id
  local lock_key = job_key .. ":lock"
  -- Not equal either when something else than a text stands there.
  if (redis.pcall("GET", lock_key) or "") ~= expected_lock then
    return "locked"
  end
  if not is_job(job_key) then
    return "missing"
  end
  if redis.call("LREM", KEYS[5], 1, id) == 0 then
    return "inactive"
  end
  redis.call("DEL", lock_key)
  redis.call("SREM", KEYS[8], id)
  if max_stalled == "" then
    forget_stalls(job_key)
  else
    count_stall(base, job_key, tonumber(max_stalled), stall_text)
  end
  local priority = tonumber(redis.call("HGET", job_key, "priority") or "0") or 0
  enqueue_next(KEYS[1], KEYS[2], KEYS[3], KEYS[4], id, priority)
  emit(KEYS[7], KEYS[1], "event", "waiting", "jobId", id, "prev", "active")
  emit(KEYS[7], KEYS[1], "event", "stalled", "jobId", id)
  return "retried"
end

require_types()
redis.call("SCARD", KEYS[8])
redis.call("ZCARD", base .. "repeat")

local answers = {}
for i = 4, #ARGV, 2 do
  answers[#answers + 1] = retry(ARGV[i], ARGV[i + 1])
end
if not is_blocked(KEYS[1], KEYS[5]) then
  mark_base(KEYS[6])
end
return {took(), answers}
