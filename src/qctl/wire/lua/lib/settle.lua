-- Ends jobs, a whole batch in as few commands as it takes (wire format 5.8 without the fetch). The
-- common job costs three: whether it has a parent, its new fields, its event; everything else is done
-- once for the batch, or only for the jobs that need it.
--@include parents
--@include dedup
--@include keep
--@include metrics

local STALE = {missing = -1, no_lock = -2, not_active = -3, children = -4, other_lock = -6,
  failed_children = -9}

-- Jobs that have no hash any more.
local function check_existence(base, jobs)
  local keys = {}
  for i, job in ipairs(jobs) do
    job.key = base .. job.id
    keys[i] = job.key
  end
  if redis.call("EXISTS", unpack(keys)) == #keys then
    return
  end
  for _, job in ipairs(jobs) do
    if redis.call("EXISTS", job.key) == 0 then
      job.code = STALE.missing
    end
  end
end

-- Jobs of the batch with children, which must not complete before them.
local function check_children(jobs)
  local keys = {}
  for i, job in ipairs(jobs) do
    keys[2 * i - 1] = job.key .. ":dependencies"
    keys[2 * i] = job.key .. ":unsuccessful"
  end
  if redis.call("EXISTS", unpack(keys)) == 0 then
    return
  end
  for i, job in ipairs(jobs) do
    if job.code then
      -- It has no hash, and so no children.
    elseif redis.call("EXISTS", keys[2 * i - 1]) == 1 then
      job.code = STALE.children
    elseif redis.call("EXISTS", keys[2 * i]) == 1 then
      job.code = STALE.failed_children
    end
  end
end

-- P11 for all that are still sound.
local function unlock(base, jobs)
  local lock_keys, ids = {}, {}
  for i, job in ipairs(jobs) do
    lock_keys[i] = job.key .. ":lock"
  end
  local tokens = redis.call("MGET", unpack(lock_keys))
  local held = {}
  for i, job in ipairs(jobs) do
    if not job.code then
      if tokens[i] == job.token then
        held[#held + 1] = lock_keys[i]
        ids[#ids + 1] = job.id
      else
        job.code = tokens[i] and STALE.other_lock or STALE.no_lock
      end
    end
  end
  if #held > 0 then
    redis.call("DEL", unpack(held))
    redis.call("SREM", base .. "stalled", unpack(ids))
  end
end

-- The oldest of active are at its tail, and as a rule the jobs that end are those.
local function leave_active(base, jobs)
  local active = base .. "active"
  local leaving, count = {}, 0
  for _, job in ipairs(jobs) do
    if not job.code then
      leaving[job.id] = true
      count = count + 1
    end
  end
  if count > 1 then
    local tail = redis.call("LRANGE", active, -count, -1)
    local matching = 0
    for _, id in ipairs(tail) do
      if leaving[id] then
        leaving[id] = nil
        matching = matching + 1
      end
    end
    if matching == count then
      redis.call("LTRIM", active, 0, -count - 1)
      return
    end
  end
  for _, job in ipairs(jobs) do
    if not job.code and redis.call("LREM", active, -1, job.id) == 0 then
      job.code = STALE.not_active
    end
  end
end

-- One job that has left active: dedup, parent, its own fields, its event.
local function end_job(base, events, now, now_text, kind, field, job)
  local job_key = job.key
  if job.dedup_id ~= "" then
    release_dedup(base, job.id, job.dedup_id)
    store_kept(base, job.dedup_id, now)
  end
  -- Looked up now: a flow may have adopted the job while it ran.
  local parent_key = redis.call("HGET", job_key, "parentKey")
  local parent = parent_key and parent_of(parent_key, redis.call("HGET", job_key, "parent"))
  if parent and kind == "completed" then
    child_completed(parent, job_key, job.value, now)
  elseif parent then
    child_failed(parent, job_key, job.value, now)
  end
  if job.keep.count == 0 then
    if parent then
      detach_from_parent(job_key)
    end
    delete_job_keys(job_key)
  else
    redis.call("HSET", job_key, field, job.value, "finishedOn", now_text, "atm", job.attempts_made)
    if kind == "failed" then
      redis.call("HSET", job_key, "stacktrace", job.stacktrace)
      redis.call("HDEL", job_key, "defa")
    end
  end
  redis.call("XADD", events, "*", "event", kind, "jobId", job.id, field, job.value,
    "prev", "active")
  if kind == "failed" and tonumber(job.attempts_made) >= job.attempts then
    redis.call("XADD", events, "*", "event", "retries-exhausted", "jobId", job.id,
      "attemptsMade", job.attempts_made)
  end
end

-- kind: "completed" or "failed". jobs: at most 250 of {id =, token =, value =, keep =, dedup_id = or "",
-- attempts_made = with this one}, with attempts and stacktrace for failed ones. Each gets a code: 0
-- when it ended, else why it did not (wire format 5).
local function settle(base, now, kind, jobs, max_metrics)
  local field = kind == "completed" and "returnvalue" or "failedReason"
  local events = base .. "events"
  check_existence(base, jobs)
  if kind == "completed" then
    check_children(jobs)
  end
  unlock(base, jobs)
  leave_active(base, jobs)
  redis.call("XTRIM", events, "MAXLEN", "~", max_events(base .. "meta"))
  local now_text = string.format("%.0f", now)
  local finished, trims, count = {}, {}, 0
  for _, job in ipairs(jobs) do
    if not job.code then
      job.code = 0
      count = count + 1
      end_job(base, events, now, now_text, kind, field, job)
      local keep = job.keep
      if keep.count ~= 0 then
        finished[#finished + 1] = now_text
        finished[#finished + 1] = job.id
        if keep.count > 0 or keep.age then
          trims[keep] = true
        end
      end
    end
  end
  if #finished > 0 then
    redis.call("ZADD", base .. kind, unpack(finished))
  end
  for keep in pairs(trims) do
    trim_finished(base, kind, now, keep)
  end
  if count > 0 and max_metrics then
    count_metrics(base, kind, now, count, max_metrics)
  end
end

-- "count|age|limit" as qctl sends it, e.g. "-1||".
local function parse_keep(text)
  local count, age, limit = string.match(text, "^(-?%d+)|([%d.]*)|(%d*)$")
  return {count = tonumber(count), age = tonumber(age), limit = tonumber(limit)}
end
