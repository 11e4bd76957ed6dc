-- End jobs, many at once (wire format 5.8 without the fetch). An ordinary job costs three commands: one reads
-- its parent, one writes its fields, one writes its event. Everything else is done once for the batch, or only
-- for jobs that need it.
--@include dedup

-- Why a job cannot end (codes of wire format 5).
local CODES = {missing = -1, no_lock = -2, not_active = -3, children = -4, other_lock = -6,
  failed_children = -9}

-- A batch consists of parallel arrays, which are faster than one table for each job. ids and keys: the ids of
-- the jobs, and the keys of their hashes. groups: values that several jobs have in common, {token =, keep =,
-- attempts_made =, dedup_id =}; for failed jobs also attempts and stacktrace. codes: false, or the code for why
-- the job cannot end. "To mark a job" means to set its code.

-- Marks jobs whose hash is gone.
local function check_existence(batch)
  if redis.call("EXISTS", unpack(batch.keys)) == #batch.keys then
    return
  end
  for i, key in ipairs(batch.keys) do
    if redis.call("EXISTS", key) == 0 then
      batch.codes[i] = CODES.missing
    end
  end
end

-- Marks jobs whose children have not ended, or have failed: such jobs must not complete.
local function check_children(batch)
  local keys = {}
  for i, key in ipairs(batch.keys) do
    keys[2 * i - 1] = key .. ":dependencies"
    keys[2 * i] = key .. ":unsuccessful"
  end
  if redis.call("EXISTS", unpack(keys)) == 0 then
    return
  end
  for i = 1, #batch.keys do
    local is_unmarked = not batch.codes[i]
    if is_unmarked and redis.call("EXISTS", keys[2 * i - 1]) == 1 then
      batch.codes[i] = CODES.children
    elseif is_unmarked and redis.call("EXISTS", keys[2 * i]) == 1 then
      batch.codes[i] = CODES.failed_children
    end
  end
end

-- Deletes the locks of the unmarked jobs (P11), and marks each job whose lock is gone or has another token.
local function unlock(base, batch)
  local locks, held, ids = {}, {}, {}
  for i, key in ipairs(batch.keys) do
    locks[i] = key .. ":lock"
  end
  local tokens = redis.call("MGET", unpack(locks))
  for i, lock in ipairs(locks) do
    if not batch.codes[i] then
      if tokens[i] == batch.groups[i].token then
        held[#held + 1] = lock
        ids[#ids + 1] = batch.ids[i]
      else
        batch.codes[i] = tokens[i] and CODES.other_lock or CODES.no_lock
      end
    end
  end
  if #held > 0 then
    redis.call("DEL", unpack(held))
    redis.call("SREM", base .. "stalled", unpack(ids))
  end
end

-- Takes the jobs out of active. Usually the oldest active jobs end, and they are at the tail of the list.
local function leave_active_together(base, batch)
  local active = base .. "active"
  local leaving, count = {}, 0
  for i, id in ipairs(batch.ids) do
    if not batch.codes[i] then
      leaving[id] = true
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
  for i, id in ipairs(batch.ids) do
    if not batch.codes[i] and redis.call("LREM", active, -1, id) == 0 then
      batch.codes[i] = CODES.not_active
    end
  end
end

-- Ends one job that has left active: frees or passes on its deduplication id, updates its parent, writes its
-- fields and its event. May raise an error, which settle catches: a key of the parent may have a wrong type.
local function end_job(base, events, now, now_text, kind, field, id, key, value, group)
  if group.dedup_id ~= "" then
    release_dedup(base, id, group.dedup_id)
    add_kept_job(base, group.dedup_id, now)
  end
  -- Read now, because a flow may have given the job a parent while it ran.
  local parent_key = redis.call("HGET", key, "parentKey")
  local parent = parent_key and parent_of(parent_key, redis.call("HGET", key, "parent"))
  if parent and kind == "completed" then
    child_completed(parent, key, value, now)
  elseif parent then
    child_failed(parent, key, value, now)
  end
  if group.keep.count == 0 then
    if parent then
      detach_from_parent(key)
    end
    delete_job_keys(key)
  else
    redis.call("HSET", key, field, value, "finishedOn", now_text, "atm", group.attempts_made)
    if kind == "failed" then
      redis.call("HSET", key, "stacktrace", group.stacktrace)
      redis.call("HDEL", key, "defa")
    end
  end
  redis.call("XADD", events, "*", "event", kind, "jobId", id, field, value, "prev", "active")
  if kind == "failed" and tonumber(group.attempts_made) >= group.attempts then
    redis.call("XADD", events, "*", "event", "retries-exhausted", "jobId", id,
      "attemptsMade", group.attempts_made)
  end
end

-- Counts ended jobs in the metrics, which have one number for each minute (wire format 5.21). limit: how many
-- minutes are kept.
local function count_metrics(base, kind, now, count, limit)
  local key = base .. "metrics:" .. kind
  local before = redis.call("HINCRBY", key, "count", count) - count
  local last = redis.call("HMGET", key, "prevTS", "prevCount")
  local now_text = string.format("%.0f", now)
  if not last[1] then
    redis.call("HSET", key, "prevTS", now_text, "prevCount", 0)
    return
  end
  local minutes = math.floor(now / 60000) - math.floor(tonumber(last[1]) / 60000)
  minutes = math.min(minutes, limit)
  if minutes <= 0 then
    return
  end
  local data = key .. ":data"
  redis.call("LPUSH", data, string.format("%.0f", before - (tonumber(last[2] or "0") or 0)))
  for _ = 2, minutes do
    redis.call("LPUSH", data, 0)
  end
  redis.call("LTRIM", data, 0, limit - 1)
  redis.call("HSET", key, "prevCount", string.format("%.0f", before), "prevTS", now_text)
end

-- kind: "completed" or "failed"; at most 250 jobs. Answers for each job 0 if it has ended, else a code of wire
-- format 5 or the text of an error. After an error, the job is back in active without a lock, so that the
-- stalled check makes it run again.
local function settle(base, now, kind, ids, values, groups, max_metrics)
  local field = kind == "completed" and "returnvalue" or "failedReason"
  local events = base .. "events"
  local keys, codes = {}, {}
  for i, id in ipairs(ids) do
    keys[i], codes[i] = base .. id, false
  end
  local batch = {ids = ids, groups = groups, keys = keys, codes = codes}
  -- If a key has a wrong type, the script fails here, before anything is written.
  trim_events(base)
  redis.call("ZCARD", base .. kind)
  check_existence(batch)
  if kind == "completed" then
    check_children(batch)
  end
  unlock(base, batch)
  leave_active_together(base, batch)
  local now_text = string.format("%.0f", now)
  local finished, last, trims, count = {}, 0, {}, 0
  for i, id in ipairs(ids) do
    local is_done, problem = not codes[i], nil
    if is_done then
      is_done, problem = pcall(end_job, base, events, now, now_text, kind, field, id, keys[i],
        values[i], groups[i])
      codes[i] = 0
      if not is_done then
        codes[i] = type(problem) == "table" and problem.err or tostring(problem)
        redis.call("LPUSH", base .. "active", id)
      end
    end
    if is_done then
      count = count + 1
      local keep = groups[i].keep
      if keep.count ~= 0 then
        finished[last + 1], finished[last + 2] = now_text, id
        last = last + 2
        if keep.count > 0 or keep.age then
          trims[keep] = true
        end
      end
    end
  end
  if last > 0 then
    redis.call("ZADD", base .. kind, unpack(finished))
  end
  for keep in pairs(trims) do
    trim_finished(base, kind, now, keep)
  end
  if count > 0 and max_metrics then
    count_metrics(base, kind, now, count, max_metrics)
  end
  return codes
end

-- A keep rule: "count|age in seconds|limit"; age and limit may be empty, e.g. "-1||". See trim_finished.
local function parse_keep(text)
  local count, age, limit = string.match(text, "^(-?%d+)|([%d.]*)|(%d*)$")
  return {count = tonumber(count), age = tonumber(age), limit = tonumber(limit)}
end
