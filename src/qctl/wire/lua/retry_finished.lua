-- Run finished jobs again (wire format 5.14), and put back lost jobs, which are unfinished and in no state
-- (wire format 10.2, rule 5). Unlike in BullMQ's bulk retry (5.15), a job keeps its priority, its parent
-- counts it as unfinished again, and the job owns its deduplication id until it ends.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] "failed" or "completed": run only jobs in this state; "": run jobs in either state, and lost jobs
-- ARGV[2] "" or a text: only jobs whose failedReason is this text
-- ARGV[3] "" to put jobs behind the other jobs of their priority; "next" to put finished jobs, but not lost
--         jobs, before the other jobs of their priority
-- ARGV[4] "" to keep all counts; "stalls" to forget the stalls; "attempts" to forget stalls and attempts
-- ARGV[5] "dry" to write nothing
-- ARGV[6] in a dry run of several calls: the text at the end of the previous answer; else ""
-- ARGV[7] … ids, at most 500
--
-- Answers {microseconds that the call took ("" if unknown), words}. The words, one for each job: "retried";
-- "inactive" (not finished, or failed for another reason); "missing"; "duplicate" (another unfinished job has
-- its deduplication id); "later" (the call has taken too long, so send this job again; the first job never gets
-- this word); if ARGV[1] is "", also the words of lib/lost_jobs.lua. In a dry run, one more text follows: the next
-- ARGV[6].
--@include clock
--@include parents
--@include require_types
--@include lost_jobs

local base, source, only_reason = KEYS[1], ARGV[1], ARGV[2]
local runs_next, forget, is_dry = ARGV[3] == "next", ARGV[4], ARGV[5] == "dry"
local SOURCES = source == "" and {"failed", "completed"} or {source}
local RESULTS = {failed = "failedReason", completed = "returnvalue"}

-- In a dry run: deduplication id → the job that would own it by now.
local foreseen = decoded(ARGV[6])

-- Makes the parent count this child as unfinished again in three cases: the child made the parent fail; the
-- parent still waits for its children; the parent has ended. In all other cases the parent is about to run or
-- already runs, and keeps the child's old result. May raise an error, because the parent's keys may be of any
-- type.
local function rejoin_parent(job_key, parent, state)
  if redis.call("EXISTS", parent.key) == 0 then
    return
  end
  local is_back = state == "failed"
      and redis.call("ZREM", parent.key .. ":unsuccessful", job_key) == 1
  if not is_back and (redis.call("ZSCORE", parent.base .. "waiting-children", parent.id)
      or redis.call("HEXISTS", parent.key, "finishedOn") == 1) then
    local noted = state == "failed" and ":failed" or ":processed"
    is_back = redis.call("HDEL", parent.key .. noted, job_key) == 1
  end
  if is_back then
    redis.call("SADD", parent.key .. ":dependencies", job_key)
  end
end

-- Whether another unfinished job owns this job's deduplication id.
local function is_duplicate(id, dedup_id)
  if foreseen[dedup_id] then
    return true
  end
  local owner = redis.pcall("GET", base .. "de:" .. dedup_id)
  return type(owner) == "string" and owner ~= id and is_job(base .. owner)
      and redis.call("HEXISTS", base .. owner, "finishedOn") == 0
end

-- Makes the job own its deduplication id until the job ends, as when it was added. Does nothing if the option
-- has a TTL (throttling), because the TTL counts from the time when the job was added.
local function hold_dedup(id, dedup_id, opts)
  local dedup = type(opts.de) == "table" and opts.de or {}
  if tonumber(dedup.ttl) then
    return
  end
  if is_dry then
    foreseen[dedup_id] = id
  else
    redis.call("SET", base .. "de:" .. dedup_id, id, "NX")
  end
end

local function retry(id)
  local job_key = base .. id
  if not is_job(job_key) then
    return "missing"
  end
  local fields = redis.call("HMGET", job_key, "failedReason", "priority", "opts", "deid",
    "parentKey", "parent")
  if only_reason ~= "" and fields[1] ~= only_reason then
    return "inactive"
  end
  if fields[4] and is_duplicate(id, fields[4]) then
    return "duplicate"
  end
  local state = find_in_sets(base, SOURCES, id)
  local lost = not state and source == "" and find_lost(base, id)
  if not state and lost ~= "lost" then
    return lost or "inactive"
  end
  local opts = decoded(fields[3])
  if fields[4] then
    pcall(hold_dedup, id, fields[4], opts)
  end
  if is_dry then
    return "retried"
  end
  if forget ~= "" then
    redis.call("HDEL", job_key, "stc")
  end
  if forget == "attempts" then
    redis.call("HDEL", job_key, "atm", "ats", "attemptsMade")
  end
  if lost then
    -- If the time is unknown (0), every job with a delay becomes delayed, even if its delay is over.
    put_back(base, id, opts.lifo == true, (began or 0) / 1000)
    return "retried"
  end
  redis.call("ZREM", base .. state, id)
  redis.call("HDEL", job_key, "finishedOn", "processedOn", "defa", RESULTS[state])
  local parent = parent_of(fields[5], fields[6])
  if parent then
    pcall(rejoin_parent, job_key, parent, state)
  end
  if runs_next then
    enqueue_next(base, id)
    emit(base, "waiting", "jobId", id, "prev", state)
  else
    place_ready(base, id, tonumber(fields[2] or "0") or 0, opts.lifo == true, "prev", state)
  end
  return "retried"
end

require_queue_types(base)

local answers = {}
for i = 7, #ARGV do
  -- Only the search for lost jobs reads lists, which may be long.
  local is_later = i > 7 and source == "" and has_worked_enough()
  answers[#answers + 1] = is_later and "later" or retry(ARGV[i])
end
if is_dry then
  answers[#answers + 1] = cjson.encode(foreseen)
else
  wake(base)
end
return {took(), answers}
