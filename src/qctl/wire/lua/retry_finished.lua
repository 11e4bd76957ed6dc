-- Run finished jobs again. Wire format 5.14; unlike BullMQ's bulk retry (5.15) a job keeps its priority,
-- and its parent counts it as unfinished again.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] where the jobs must be: "failed", "completed", or "" for either
-- ARGV[2] "" for any; else only jobs whose failedReason is this text
-- ARGV[3] "" behind those that wait; "next" before them, or in front of their priority
-- ARGV[4] "" to keep all counts; "stalls" to forget the stalls; "attempts" to forget attempts, too
-- ARGV[5] … ids, at most 500
--
-- Answers one word a job: "retried", "inactive" (not finished, or for another reason), "missing".
--@include placing
--@include enqueue
--@include types

local base, source, only_reason = KEYS[1], ARGV[1], ARGV[2]
local runs_next, forget = ARGV[3] == "next", ARGV[4]
local RESULTS = {failed = "failedReason", completed = "returnvalue"}

local function leave_finished(id)
  for _, state in ipairs({"failed", "completed"}) do
    if (source == "" or source == state) and redis.call("ZREM", base .. state, id) == 1 then
      return state
    end
  end
end

-- A child of a living parent counts as unfinished again. The parent's keys may be anything; the job
-- has left its set already, so the script must not fail here.
local function rejoin_parent(job_key, state)
  local parent_key = redis.call("HGET", job_key, "parentKey")
  if not parent_key or redis.call("EXISTS", parent_key) == 0 then
    return
  end
  local was_settled
  if state == "completed" then
    was_settled = redis.pcall("HDEL", parent_key .. ":processed", job_key) == 1
  else
    was_settled = redis.pcall("ZREM", parent_key .. ":unsuccessful", job_key) == 1
        or redis.pcall("HDEL", parent_key .. ":failed", job_key) == 1
  end
  if was_settled then
    redis.pcall("SADD", parent_key .. ":dependencies", job_key)
  end
end

local function forget_past(job_key, state)
  redis.call("HDEL", job_key, "finishedOn", "processedOn", "defa", RESULTS[state])
  if forget ~= "" then
    redis.call("HDEL", job_key, "stc")
  end
  if forget == "attempts" then
    redis.call("HDEL", job_key, "atm", "ats", "attemptsMade")
  end
end

local function is_lifo(opts_json)
  local is_json, opts = pcall(cjson.decode, opts_json or "")
  return is_json and type(opts) == "table" and opts.lifo == true
end

local function retry(id)
  local job_key = base .. id
  if not is_job(job_key) then
    return "missing"
  end
  local fields = redis.call("HMGET", job_key, "failedReason", "priority", "opts")
  if only_reason ~= "" and fields[1] ~= only_reason then
    return "inactive"
  end
  local state = leave_finished(id)
  if not state then
    return "inactive"
  end
  forget_past(job_key, state)
  rejoin_parent(job_key, state)
  local priority = tonumber(fields[2] or "0") or 0
  if runs_next then
    enqueue_next(base .. "meta", base .. "wait", base .. "paused", base .. "prioritized", id, priority)
  elseif priority > 0 then
    place_prioritized(base, id, priority)
  else
    redis.call(is_lifo(fields[3]) and "RPUSH" or "LPUSH", target_list(base), id)
  end
  emit(base .. "events", base .. "meta", "event", "waiting", "jobId", id, "prev", state)
  return "retried"
end

require_queue_types(base)

local answers = {}
for i = 5, #ARGV do
  answers[#answers + 1] = retry(ARGV[i])
end
wake(base)
return answers
