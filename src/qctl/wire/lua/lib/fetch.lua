-- Move jobs from wait and prioritized to active, many at once (wire format 5.6).
--@include seldom

local call = redis.call  -- a local is faster, and the functions of this file run for every job

-- Reads the fields of a queue's meta that a step needs; a field that is not set is false.
local function read_meta(base)
  local found = call("HMGET", base .. "meta", "opts.maxLenEvents", "paused", "concurrency", "max", "duration")
  return {max_len = found[1], paused = found[2], concurrency = found[3], max = found[4], duration = found[5]}
end

-- Answers how many jobs may start now: {number, reason, 0, rate limit or nil, its window in ms or nil}. The
-- reason is "blocked" if the queue's concurrency determines the number, else "". If no job may start, answers
-- {0, "blocked", 0} (the queue is paused, or its concurrency is reached) or {0, "limited", ms until the rate
-- limit ends}.
-- A queue's concurrency sets how many jobs may run at once. The workers must share these places, because
-- otherwise the first worker would keep them all. If jobs of this worker have just ended, kept is the maximum
-- number of places that the worker may fill. Without kept, the worker may fill a quarter of the free places, but
-- at least one, and then waits for a marker. The workers take turns, because BZPOPMIN gives a marker to the client
-- that has waited longest.
local function allowance(base, meta, wanted, limiter_max, kept)
  local max_jobs = tonumber(meta.max or "") or limiter_max
  local limit_ms = tonumber(meta.duration or "")
  if max_jobs then
    local used = tonumber(call("GET", base .. "limiter") or "0") or 0
    if used >= max_jobs then
      local ttl = call("PTTL", base .. "limiter")
      if ttl > 0 then
        return {0, "limited", ttl}
      end
      if ttl == 0 then
        call("DEL", base .. "limiter")
      end
      -- A counter without a TTL does not limit the queue.
      used = 0
    end
    -- As in BullMQ, a limit below 1 lets one job through in each window.
    wanted = math.min(wanted, math.max(math.floor(max_jobs) - used, 1))
  end
  if meta.paused then
    return {0, "blocked", 0}
  end
  local concurrency = tonumber(meta.concurrency or "")
  local reason = ""
  if concurrency then
    local room = concurrency - call("LLEN", base .. "active")
    if room <= 0 then
      return {0, "blocked", 0}
    end
    local share = math.min(kept or math.max(math.floor(room / 4), 1), room)
    if share <= wanted then
      wanted, reason = share, "blocked"
    end
  end
  return {wanted, reason, 0, max_jobs, limit_ms}
end

-- Moves ids to active, and answers them. wanted: how many at most. Drops markers of old BullMQ versions ("0:…").
local function take_ids(base, wanted)
  local ids = call("RPOP", base .. "wait", wanted) or {}
  for i = #ids, 1, -1 do
    -- The first test is fast and true for few ids: those whose first character sorts before "1".
    if ids[i] < "1" and string.sub(ids[i], 1, 2) == "0:" then
      table.remove(ids, i)
    end
  end
  if #ids < wanted then
    local first = call("ZPOPMIN", base .. "prioritized", wanted - #ids)
    for i = 1, #first, 2 do
      ids[#ids + 1] = first[i]
    end
    if #first == 0 then
      -- No prioritised job is left, so the counter that orders jobs of one priority starts again.
      call("DEL", base .. "pc")
    end
  end
  if #ids > 0 then
    call("LPUSH", base .. "active", unpack(ids))
  end
  return ids
end

-- Answers a job that has moved to active, in the form that fetch answers; how often the job was started, as text;
-- and whether the job must fail without running (defa). For an id that has no job, answers nil.
local function read_job(job_key)
  -- Most jobs are new, and have only the six fields that every job gets. It is faster to read these without names.
  if redis.pcall("HLEN", job_key) == 6 then
    local values = call("HMGET", job_key, "name", "data", "opts", "timestamp", "delay", "priority")
    if values[1] and values[2] and values[3] and values[4] and values[5] and values[6] then
      return values, "0", false
    end
  end
  local fields = redis.pcall("HGETALL", job_key)
  if fields.err or #fields == 0 then
    return nil
  end
  local starts, must_fail = "0", false
  for i = 1, #fields, 2 do
    if fields[i] == "ats" then
      starts = fields[i + 1]
    elseif fields[i] == "defa" then
      must_fail = true
    end
  end
  return {fields}, starts, must_fail
end

-- Locks jobs that have moved to active, and records their start. starts: how often each job was started before, as
-- text. Each command has its own loop, because Redis is faster if calls of the same command follow each other.
local function start_jobs(base, ids, keys, starts, now_text, token, lock_ms, worker_name)
  local events = base .. "events"
  for i = 1, #ids do
    call("PSETEX", keys[i] .. ":lock", lock_ms, token)
  end
  for i = 1, #ids do
    -- It is slow to pass numbers to Redis, so this is text.
    local ats = starts[i] == "0" and "1" or string.format("%.0f", (tonumber(starts[i]) or 0) + 1)
    if worker_name == "" then
      call("HSET", keys[i], "processedOn", now_text, "ats", ats)
    else
      call("HSET", keys[i], "processedOn", now_text, "ats", ats, "pb", worker_name)
    end
  end
  for i = 1, #ids do
    call("XADD", events, "*", "event", "active", "jobId", ids[i], "prev", "waiting")
  end
end

-- Answers the next delayed job and its score, or {} if no job is delayed.
local function next_delayed(base)
  return call("ZRANGE", base .. "delayed", "0", "0", "WITHSCORES")
end

-- Fetches jobs. meta: see read_meta. wanted: how many at most. limiter_max and limiter_ms: the worker's own rate
-- limit, or nil. kept: see allowance.
-- Answers {jobs, reason, ms}. jobs: id, job, id, job … A job is {name, data, opts, timestamp, delay, priority} or,
-- if it has other fields, {{field, value, field, value …}}. reason: "" if all wanted jobs were fetched; else
-- "blocked" (the queue is paused, or its concurrency is reached), "limited" (ms: until the rate limit
-- ends), "more" (fetch again), "delayed" (ms: when the next job is due, epoch ms) or "empty".
local function fetch(base, now_text, meta, token, lock_ms, wanted, worker_name, limiter_max, limiter_ms, kept)
  local delayed = next_delayed(base)
  if delayed[2] and tonumber(delayed[2]) < (tonumber(now_text) + 1) * 4096 then
    seldom().promote_due(base, tonumber(now_text))
    delayed = next_delayed(base)
  end
  local allowed = allowance(base, meta, wanted, limiter_max, kept)
  if allowed[1] == 0 then
    return {{}, allowed[2], allowed[3]}
  end
  local popped = take_ids(base, allowed[1])
  local ids, keys, starts, jobs, count, counted = {}, {}, {}, {}, 0, 0
  for i = 1, #popped do
    local id = popped[i]
    local key = base .. id
    local job, started, must_fail = read_job(key)
    if job then
      count = count + 1
      ids[count], keys[count], starts[count] = id, key, started
      jobs[2 * count - 1], jobs[2 * count] = id, job
      counted = counted + (must_fail and 0 or 1)
    else
      call("LREM", base .. "active", 1, id)
    end
  end
  start_jobs(base, ids, keys, starts, now_text, token, lock_ms, worker_name)
  local max_jobs = allowed[4]
  if max_jobs and counted > 0 and call("INCRBY", base .. "limiter", counted) == counted then
    -- As in BullMQ, if the queue and the worker both set a limit, the queue's maximum and the worker's window hold.
    local window = math.floor(math.abs(limiter_ms or allowed[5] or 0))
    call("PEXPIRE", base .. "limiter", string.format("%.0f", window))
  end
  if #popped > 0 then
    -- There may be more jobs, so wake the next idle worker. This marker means "there may be a job now" (P5).
    call("ZADD", base .. "marker", "0", "0")
  end
  if #popped == wanted then
    return {jobs, "", 0}
  end
  if #popped == allowed[1] then
    -- The queue's concurrency or a rate limit ended the fetch. The next call answers how long the limit lasts.
    return {jobs, allowed[2] == "blocked" and "blocked" or "more", 0}
  end
  if delayed[2] then
    return {jobs, "delayed", string.format("%.0f", math.floor(tonumber(delayed[2]) / 4096))}
  end
  return {jobs, "empty", 0}
end
