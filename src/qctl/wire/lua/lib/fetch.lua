-- Move jobs from wait and prioritized to active, many at once (wire format 5.6).
--@include placing

-- Answers how many jobs may start now: {number, reason, 0, rate limit or nil, its window in ms or nil}. The
-- reason is "blocked" if the queue's concurrency determines the number, else "". If no job may start, answers
-- {0, "blocked", 0} (the queue is paused, or its concurrency is reached) or {0, "limited", ms until the rate
-- limit ends}.
-- A queue's concurrency sets how many jobs may run at once. The workers share these places: else the first
-- worker would keep them all. kept: how many places this worker may fill because its own jobs have just ended.
-- Without kept, the worker may fill a quarter of the free places. Then it waits for a marker. The workers take
-- turns, because BZPOPMIN gives a marker to the client that has waited longest.
local function allowance(base, wanted, limiter_max, kept)
  local meta = redis.call("HMGET", base .. "meta", "paused", "concurrency", "max", "duration")
  local max_jobs = tonumber(meta[3] or "") or limiter_max
  local limit_ms = tonumber(meta[4] or "")
  if max_jobs then
    local used = tonumber(redis.call("GET", base .. "limiter") or "0") or 0
    if used >= max_jobs then
      local ttl = redis.call("PTTL", base .. "limiter")
      if ttl > 0 then
        return {0, "limited", ttl}
      end
      if ttl == 0 then
        redis.call("DEL", base .. "limiter")
      end
      -- A counter without a TTL does not limit the queue.
      used = 0
    end
    -- As in BullMQ, a limit below 1 lets one job through in each window.
    wanted = math.min(wanted, math.max(math.floor(max_jobs) - used, 1))
  end
  if meta[1] then
    return {0, "blocked", 0}
  end
  local concurrency = tonumber(meta[2] or "")
  local reason = ""
  if concurrency then
    local room = concurrency - redis.call("LLEN", base .. "active")
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
  local ids = {}
  local popped = redis.call("RPOP", base .. "wait", wanted)
  for _, id in ipairs(popped or {}) do
    if string.sub(id, 1, 2) ~= "0:" then
      ids[#ids + 1] = id
    end
  end
  if #ids < wanted then
    local first = redis.call("ZPOPMIN", base .. "prioritized", wanted - #ids)
    for i = 1, #first, 2 do
      ids[#ids + 1] = first[i]
    end
    if #first == 0 then
      -- No prioritised job is left, so the counter that orders jobs of one priority starts again.
      redis.call("DEL", base .. "pc")
    end
  end
  if #ids > 0 then
    redis.call("LPUSH", base .. "active", unpack(ids))
  end
  return ids
end

-- Locks a job that has moved to active. Answers the job's fields as they were before, and whether it must fail
-- without running (defa). For an id that has no job, answers nil and takes the id out of active.
local function activate(base, events, id, now_text, token, lock_ms, worker_name)
  local job_key = base .. id
  local fields = redis.pcall("HGETALL", job_key)
  if fields.err or #fields == 0 then
    redis.call("LREM", base .. "active", 1, id)
    return nil
  end
  -- starts is text, because it is slow to pass numbers to Redis.
  local starts, must_fail = "1", false
  for i = 1, #fields, 2 do
    if fields[i] == "ats" then
      starts = string.format("%.0f", (tonumber(fields[i + 1]) or 0) + 1)
    elseif fields[i] == "defa" then
      must_fail = true
    end
  end
  redis.call("PSETEX", job_key .. ":lock", lock_ms, token)
  redis.call("XADD", events, "*", "event", "active", "jobId", id, "prev", "waiting")
  if worker_name == "" then
    redis.call("HSET", job_key, "processedOn", now_text, "ats", starts)
  else
    redis.call("HSET", job_key, "processedOn", now_text, "ats", starts, "pb", worker_name)
  end
  return fields, must_fail
end

-- Fetches jobs. wanted: how many at most. limiter_max and limiter_ms: the worker's own rate limit, or nil.
-- kept: see allowance.
-- Answers {jobs, reason, ms}. jobs: id, fields, id, fields … reason: "" if all wanted jobs were fetched; else
-- "blocked" (the queue is paused, or its concurrency is reached), "limited" (ms: until the rate limit
-- ends), "more" (fetch again), "delayed" (ms: when the next job is due, epoch ms) or "empty".
local function fetch(base, now, token, lock_ms, wanted, worker_name, limiter_max, limiter_ms,
    kept)
  promote_due(base, now)
  local allowed = allowance(base, wanted, limiter_max, kept)
  if allowed[1] == 0 then
    return {{}, allowed[2], allowed[3]}
  end
  local max_jobs, now_text = allowed[4], string.format("%.0f", now)
  local jobs, counted, events = {}, 0, base .. "events"
  local ids = take_ids(base, allowed[1])
  for _, id in ipairs(ids) do
    local fields, must_fail = activate(base, events, id, now_text, token, lock_ms,
      worker_name)
    if fields then
      jobs[#jobs + 1] = id
      jobs[#jobs + 1] = fields
      counted = counted + (must_fail and 0 or 1)
    end
  end
  if max_jobs and counted > 0 and redis.call("INCRBY", base .. "limiter", counted) == counted then
    -- As in BullMQ, if the queue and the worker both set a limit, the queue's maximum and the worker's window hold.
    local window = math.floor(math.abs(limiter_ms or allowed[5] or 0))
    redis.call("PEXPIRE", base .. "limiter", string.format("%.0f", window))
  end
  if #ids > 0 then
    mark_ready(base)  -- There may be more jobs: the next idle worker wakes up.
  end
  if #ids == wanted then
    return {jobs, "", 0}
  end
  if #ids == allowed[1] then
    -- The queue's concurrency or a rate limit ended the fetch. The next call answers how long the limit lasts.
    return {jobs, allowed[2] == "blocked" and "blocked" or "more", 0}
  end
  local next_up = redis.call("ZRANGE", base .. "delayed", 0, 0, "WITHSCORES")
  if next_up[2] then
    return {jobs, "delayed", string.format("%.0f", math.floor(tonumber(next_up[2]) / 4096))}
  end
  return {jobs, "empty", 0}
end
