-- Run failed jobs again, next. Wire format 5.14 (from failed), with the place of a give-back, and
-- with the stalls forgotten.
--
-- KEYS[1] meta   KEYS[2] wait   KEYS[3] paused   KEYS[4] prioritized   KEYS[5] active
-- KEYS[6] marker   KEYS[7] events   KEYS[8] failed
-- ARGV[1] the queue's key prefix with its last colon
-- ARGV[2] "" for any; else only jobs whose failedReason is this text
-- ARGV[3] … ids, at most 500
--
-- Answers one word a job: "retried", "inactive" (not in failed, or for another reason), "missing".
--@include markers
--@include events
--@include enqueue
--@include jobs

local base, only_reason = ARGV[1], ARGV[2]

-- A child of a living parent counts as unfinished again. The parent's keys may be anything; the job
-- has left failed already, so the script must not fail here.
local function rejoin_parent(job_key)
  local parent_key = redis.call("HGET", job_key, "parentKey")
  if not parent_key or redis.call("EXISTS", parent_key) == 0 then
    return
  end
  if redis.pcall("ZREM", parent_key .. ":unsuccessful", job_key) == 1
      or redis.pcall("HDEL", parent_key .. ":failed", job_key) == 1 then
    redis.pcall("SADD", parent_key .. ":dependencies", job_key)
  end
end

local function retry(id)
  local job_key = base .. id
  if not is_job(job_key) then
    return "missing"
  end
  local fields = redis.call("HMGET", job_key, "failedReason", "priority")
  if only_reason ~= "" and fields[1] ~= only_reason then
    return "inactive"
  end
  if redis.call("ZREM", KEYS[8], id) == 0 then
    return "inactive"
  end
  redis.call("HDEL", job_key, "finishedOn", "processedOn", "failedReason", "stc", "defa")
  rejoin_parent(job_key)
  enqueue_next(KEYS[1], KEYS[2], KEYS[3], KEYS[4], id, tonumber(fields[2] or "0") or 0)
  emit(KEYS[7], KEYS[1], "event", "waiting", "jobId", id, "prev", "failed")
  return "retried"
end

require_types()
redis.call("ZCARD", KEYS[8])

local answers = {}
for i = 3, #ARGV do
  answers[#answers + 1] = retry(ARGV[i])
end
if not is_blocked(KEYS[1], KEYS[5]) then
  mark_base(KEYS[6])
end
return answers
