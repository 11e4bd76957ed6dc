-- End jobs, many at once (wire format 5.8 without the fetch). An ordinary job costs three commands: one counts
-- its fields, one writes its fields, one writes its event. Everything else is done once for the batch, or only
-- for jobs that need it.
--@include events
--@include seldom

local call = redis.call  -- faster, as the functions of this file run for every job

-- Why a job cannot end (codes of wire format 5).
local CODES = {missing = -1, no_lock = -2, not_active = -3, children = -4, other_lock = -6,
  failed_children = -9}

-- A batch consists of parallel arrays, which are faster than one table for each job. ids and keys: the ids of
-- the jobs, and the keys of their hashes. groups: for each job, a table {token =, keep =, attempts_made =,
-- dedup_id =, fields =}, for failed jobs also with attempts and stacktrace; jobs with equal values share one table.
-- fields: how many fields the hash has had since the fetch, if it had only the usual fields before; else false or
-- nil. plain: true if the hash still has that number of fields; then nobody has given the job a parent, and none of
-- its children has failed. codes: for each job, nil or the code for why it cannot end. "To mark a job" means to
-- set its code.

-- Marks jobs whose hash is gone, and finds the plain jobs.
local function check_hashes(batch)
  local keys, groups, plain = batch.keys, batch.groups, batch.plain
  for i = 1, #keys do
    local count = redis.pcall("HLEN", keys[i])
    if count == groups[i].fields then
      plain[i] = true
    elseif count == 0 then
      batch.codes[i] = CODES.missing
    end
  end
end

-- Marks jobs whose children have not ended, or have failed: such jobs must not complete. The failure of a child also
-- sets the field defa of its parent. So if a plain job has a set of failed children, they were the children of
-- a deleted job with the same id, and do not count.
local function check_children(batch)
  local keys, count, job_keys, plain = {}, 0, batch.keys, batch.plain
  for i = 1, #job_keys do
    count = count + 1
    keys[count] = job_keys[i] .. ":dependencies"
    if not plain[i] then
      count = count + 1
      keys[count] = job_keys[i] .. ":unsuccessful"
    end
  end
  if call("EXISTS", unpack(keys)) == 0 then
    return
  end
  for i, key in ipairs(job_keys) do
    local is_unmarked = not batch.codes[i]
    if is_unmarked and call("EXISTS", key .. ":dependencies") == 1 then
      batch.codes[i] = CODES.children
    elseif is_unmarked and not plain[i] and call("EXISTS", key .. ":unsuccessful") == 1 then
      batch.codes[i] = CODES.failed_children
    end
  end
end

-- Deletes the locks of the unmarked jobs (P11), and marks each job whose lock is gone or has another token. Answers
-- the ids of the jobs that are still unmarked.
local function unlock(base, batch)
  local locks, codes, groups = {}, batch.codes, batch.groups
  for i = 1, #batch.keys do
    locks[i] = batch.keys[i] .. ":lock"
  end
  local tokens = call("MGET", unpack(locks))
  for i = 1, #tokens do
    if tokens[i] ~= groups[i].token and not codes[i] then
      codes[i] = tokens[i] and CODES.other_lock or CODES.no_lock
    end
  end
  local ids = batch.ids
  if next(codes) then
    local held = {}
    ids = {}
    for i, lock in ipairs(locks) do
      if not codes[i] then
        held[#held + 1] = lock
        ids[#ids + 1] = batch.ids[i]
      end
    end
    locks = held
  end
  if #ids > 0 then
    call("DEL", unpack(locks))
    call("SREM", base .. "stalled", unpack(ids))
  end
  return ids
end

-- Takes the unmarked jobs out of active, and marks each job that is not there. ids: the ids of the unmarked jobs.
-- The jobs that end are usually the oldest in active. These are the tail of the list, which one LTRIM removes.
local function leave_active_together(base, batch, ids)
  local active, count = base .. "active", #ids
  if count > 1 then
    local leaving, matching = {}, 0
    for i = 1, count do
      leaving[ids[i]] = true
    end
    local tail = call("LRANGE", active, -count, -1)
    for i = 1, #tail do
      if leaving[tail[i]] then
        leaving[tail[i]] = nil
        matching = matching + 1
      end
    end
    if matching == count then
      call("LTRIM", active, 0, -count - 1)
      return
    end
  end
  for i, id in ipairs(batch.ids) do
    if not batch.codes[i] and call("LREM", active, "-1", id) == 0 then
      batch.codes[i] = CODES.not_active
    end
  end
end

-- now_text: epoch ms. kind: "completed" or "failed". ids: of at most 250 jobs. max_metrics: minutes of metrics
-- kept, or nil. max_len: see max_events. Answers a table. Its keys are the positions in ids of the jobs that have
-- not ended. Its values are the reasons: a code of wire format 5, or the text of an error. After an error, the job
-- is back in active without a lock; the stalled check then makes the job run again.
local function settle(base, now_text, kind, ids, values, groups, max_metrics, max_len)
  local field = kind == "completed" and "returnvalue" or "failedReason"
  local events = base .. "events"
  local keys, codes, plain = {}, {}, {}
  for i = 1, #ids do
    keys[i] = base .. ids[i]
  end
  local batch = {ids = ids, groups = groups, keys = keys, plain = plain, codes = codes}
  -- If a key has a wrong type, the script fails here, before anything is written.
  trim_events(base, max_len)
  call("ZCARD", base .. kind)
  check_hashes(batch)
  if kind == "completed" then
    check_children(batch)
  end
  leave_active_together(base, batch, unlock(base, batch))
  local finished, last, trims, count, written = {}, 0, {}, 0, {}
  for i = 1, #ids do
    local id = ids[i]
    if not codes[i] then
      local key, value, group, keep = keys[i], values[i], groups[i], groups[i].keep
      -- The parent is read now, because a flow may have given the job a parent while it ran.
      if kind == "completed" and group.dedup_id == "" and keep.count ~= 0
          and (plain[i] or not redis.pcall("HGET", key, "parentKey")) then
        call("HSET", key, field, value, "finishedOn", now_text, "atm", group.attempts_made)
        written[#written + 1] = i
      else
        local is_done, problem = pcall(seldom().end_job, base, events, now_text, kind, field, id, key, value, group)
        if not is_done then
          codes[i] = type(problem) == "table" and problem.err or tostring(problem)
          call("LPUSH", base .. "active", id)
        end
      end
      if not codes[i] then
        count = count + 1
        if keep.count ~= 0 then
          finished[last + 1], finished[last + 2] = now_text, id
          last = last + 2
          if keep.count > 0 or keep.age then
            trims[keep] = true
          end
        end
      end
    end
  end
  -- Another loop, because Redis runs one command many times faster than two commands in turn.
  for i = 1, #written do
    local n = written[i]
    call("XADD", events, "*", "event", kind, "jobId", ids[n], field, values[n], "prev", "active")
  end
  if last > 0 then
    call("ZADD", base .. kind, unpack(finished))
  end
  for keep in pairs(trims) do
    seldom().trim_finished(base, kind, tonumber(now_text), keep)
  end
  if count > 0 and max_metrics then
    seldom().count_metrics(base, kind, tonumber(now_text), count, max_metrics)
  end
  return codes
end

-- A keep rule: "count|age in seconds|limit"; age and limit may be empty, e.g. "-1||". See trim_finished.
local function parse_keep(text)
  if text == "-1||" then
    return {count = -1}  -- the usual rule
  end
  local count, age, limit = string.match(text, "^(-?%d+)|([%d.]*)|(%d*)$")
  return {count = tonumber(count), age = tonumber(age), limit = tonumber(limit)}
end
