-- For jobs that have lost their worker: put each job back into the queue, to run next. Each job is checked again:
-- it is put back only if it is still in active and its lock is the one that the caller saw. Unlike in the
-- stalled check (wire format 5.13), a prioritised job keeps its priority, and the caller decides whether a stall
-- is counted.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] "" to forget all stalls of the jobs. Otherwise each job gets one more stall, and ARGV[1] is the number
--         of stalls that a job may have (maxStalledCount).
-- ARGV[2] the failure reason of a job that stalls too often
-- ARGV[3], ARGV[4] … pairs of a job id and the lock token that the job must have ("" for no lock); at most 500
--
-- Answers {took, words}. took: how many microseconds the call took; "" if unknown. words: one for each job:
-- "retried", "locked" (its lock has changed), "inactive" (it has left active), "missing" (its hash is gone).
--@include clock
--@include ready
--@include events
--@include is_job
--@include require_types
--@include count_stall

local base, max_stalled, stall_reason = KEYS[1], ARGV[1], ARGV[2]

local function forget_stalls(job_key)
  redis.call("HDEL", job_key, "stc")
  if redis.call("HGET", job_key, "defa") == stall_reason then
    redis.call("HDEL", job_key, "defa")
  end
end

local function retry(id, expected_lock)
  local job_key = base .. id
  local lock_key = job_key .. ":lock"
  -- A lock key of a wrong type counts as another lock.
  if (redis.pcall("GET", lock_key) or "") ~= expected_lock then
    return "locked"
  end
  if not is_job(job_key) then
    return "missing"
  end
  if redis.call("LREM", base .. "active", 1, id) == 0 then
    return "inactive"
  end
  redis.call("DEL", lock_key)
  redis.call("SREM", base .. "stalled", id)
  if max_stalled == "" then
    forget_stalls(job_key)
  else
    count_stall(base, job_key, tonumber(max_stalled), stall_reason)
  end
  enqueue_next(base, id)
  emit(base, "waiting", "jobId", id, "prev", "active")
  emit(base, "stalled", "jobId", id)
  return "retried"
end

require_queue_types(base)
redis.call("SCARD", base .. "stalled")

local answers = {}
for i = 3, #ARGV, 2 do
  answers[#answers + 1] = retry(ARGV[i], ARGV[i + 1])
end
wake(base)
return {took(), answers}
