-- Delete jobs. Wire format 5.18, and 5.19 (clean) for a whole state; a parent that waits for none but
-- the deleted job goes on (soft, P17).
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] where the jobs must be: "wait" (with the paused list), "active", the name of a sorted set, or
--         "" for any place
-- ARGV[2] "removed": an event a job; "": none, since the caller reports many in one (cleaned.lua)
-- ARGV[3] "" to leave jobs alone whose children have not ended; "last" to delete one with the only
--         child that has not, and with the only one below that, and so on
-- ARGV[4] "" or the key of a parent: only children of it go, except the last one that it waits for,
--         so that it neither goes on nor waits for nothing; what is no child of it holds it up no more
-- ARGV[5] "dry" to write nothing; "seen" for the same with jobs that were just seen in their list
-- ARGV[6] … ids, at most 500
--
-- Answers how long it took, in microseconds or "" if it cannot tell, and one word a job:
-- "removed", "locked" (a worker has it), "scheduled" (the next run of a
-- scheduler), "parent" (children of it have not ended), "child-locked" (a worker has the last of them),
-- "last" (the last that the parent waits for), "inactive" (it is not there), "missing" (nor anywhere,
-- or no child of the parent), "later" (this call has worked long enough; never the first).
--
-- Redis searches a list entry by entry: a job in the middle of a million takes it about 10 ms.
--@include clock
--@include in_list
--@include keep
--@include types

local base, place, event, goes_with_last = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == "last"
local parent_key, is_dry, is_seen = ARGV[4], ARGV[5] ~= "", ARGV[5] == "seen"
local SETS = {"completed", "waiting-children", "delayed", "failed", "prioritized"}
-- The one that is never long comes first.
local LISTS = {"active", "wait", "paused"}
-- Where a search of a list begins. Who walks through a state walks from the head; a job that is named is
-- more often one of those that run next.
local DIRECTION = place == "" and -1 or 1
-- Of a flow, at most, in one call.
local LEVELS = 100
-- A dry run: parent → children that would be gone by now.
local gone = {}

local function is_meant(name, where)
  return where == "" or where == name or (where == "wait" and name == "paused")
end

local function set_of(from, id, where)
  for _, name in ipairs(SETS) do
    if is_meant(name, where) and redis.call("ZSCORE", from .. name, id) then
      return name
    end
  end
end

-- Answers the name of the first list for which test(key) holds, or nil.
local function first_list(job, test)
  for _, name in ipairs(LISTS) do
    if is_meant(name, job.where) and test(job.base .. name) then
      return name
    end
  end
end

local function is_next_run(from, id, scheduler)
  local slot = scheduler and tonumber(redis.call("ZSCORE", from .. "repeat", scheduler) or "")
  return slot and id == "repeat:" .. scheduler .. ":" .. string.format("%.0f", slot)
end

local function size(command, key)
  local found = redis.pcall(command, key)
  return type(found) == "number" and found or 0
end

local function unfinished(job_key)
  return size("SCARD", job_key .. ":dependencies") - (gone[job_key] or 0)
end

-- A job that may go, and where it is; or nil and why it may not.
local function look(from, id, where)
  local key = from .. id
  local fields = is_job(key)
      and redis.call("HMGET", key, "timestamp", "rjk", "deid", "parentKey", "ats") or {}
  -- The id may be the name of another key, such as "meta": then there is no job to delete. Of an id
  -- that a worker took without a job there is a hash with its starts alone (wire format T8).
  local is_real = fields[1] or fields[5] or false
  if is_real and redis.call("EXISTS", key .. ":lock") == 1 then
    return nil, "locked"
  elseif is_real and is_next_run(from, id, fields[2]) then
    return nil, "scheduled"
  elseif not goes_with_last and unfinished(key) > 0 then
    return nil, "parent"
  end
  return {base = from, id = id, key = key, is_real = is_real, dedup_id = fields[3],
    parent_key = fields[4], where = where, set = set_of(from, id, where)}
end

-- A queue's name has no colon, an id may have.
local function split(job_key)
  local prefix = string.match(base, "^(.*:)[^:]*:$") or ""
  if string.sub(job_key, 1, #prefix) == prefix then
    local queue, id = string.match(string.sub(job_key, #prefix + 1), "^([^:]+:)(.+)$")
    return queue and prefix .. queue, id
  end
end

-- The child may have been deleted, and another job may have its id.
local function is_child(job_key, of)
  local fields = is_job(job_key) and redis.call("HMGET", job_key, "parentKey", "parent") or {}
  local is_json, parent = pcall(cjson.decode, fields[2] or "")
  if is_json and type(parent) == "table" and parent.queueKey and parent.id then
    return fields[1] == of and tostring(parent.queueKey) .. ":" .. tostring(parent.id) == of
  end
  return fields[1] == of
end

-- All jobs that go with one, from the top; or nil and why it stays.
local function look_down(id)
  local jobs = {}
  local job, word = look(base, id, place)
  while job do
    jobs[#jobs + 1] = job
    local left = unfinished(job.key)
    -- What a dry run has left below it would be gone.
    if left == 0 or is_dry then
      return jobs
    elseif left > 1 or #jobs > LEVELS then
      return nil, "parent"
    end
    local last_key = redis.call("SRANDMEMBER", job.key .. ":dependencies")
    if not is_child(last_key, job.key) then
      return jobs
    end
    local from, last_id = split(last_key)
    if not from then
      return nil, "parent"
    end
    require_queue_types(from)
    job, word = look(from, last_id, "")
  end
  return nil, #jobs > 0 and word == "locked" and "child-locked" or word
end

-- Nobody may reuse it: neither the throttled nor those to come (wire format 5.5).
local function free_dedup(job)
  local key = job.base .. "de:" .. job.dedup_id
  if redis.pcall("GET", key) == job.id then
    redis.call("DEL", key, job.base .. "dn:" .. job.dedup_id)
  end
end

-- Takes a job out of its state. Answers the state's name, or nil when it is in none.
local function leave(job)
  if job.set then
    redis.call("ZREM", job.base .. job.set, job.id)
    return job.set
  end
  return first_list(job, function(key)
    return redis.call("LREM", key, DIRECTION, job.id) > 0
  end)
end

-- The same for a dry run.
local function find(job)
  return job.set or first_list(job, function(key)
    return is_seen or is_in_list(key, job.id)
  end)
end

-- Deletes what is left of a job that has left its state.
local function delete(job, state)
  redis.call("SREM", job.base .. "stalled", job.id)
  if job.is_real then
    pcall(detach_from_parent, job.key)
    if job.dedup_id then
      free_dedup(job)
    end
    delete_job_keys(job.key)
  end
  if event == "removed" then
    emit(job.base .. "events", job.base .. "meta", "event", "removed", "jobId", job.id,
      "prev", state or "unknown")
  end
end

local function foresee(job)
  local of = job.parent_key
  if of and redis.pcall("SISMEMBER", of .. ":dependencies", job.key) == 1 then
    gone[of] = (gone[of] or 0) + 1
  end
end

local function remove(id)
  local pending = parent_key .. ":dependencies"
  local is_last = parent_key ~= "" and size("SCARD", pending) == 1
      and redis.call("SISMEMBER", pending, base .. id) == 1
  if parent_key ~= "" and not is_child(base .. id, parent_key) then
    if not is_last and not is_dry then
      redis.pcall("SREM", pending, base .. id)
    end
    return "missing"
  end
  local jobs, word = look_down(id)
  if not jobs or is_last then
    return word or "last"
  end
  local top = jobs[1]
  local state = is_dry and find(top) or not is_dry and leave(top)
  if not state and (place ~= "" or not top.is_real) then
    return top.is_real and "inactive" or "missing"
  end
  for i, job in ipairs(jobs) do
    if is_dry then
      foresee(job)
    else
      if i > 1 then
        state = leave(job)
      end
      delete(job, state)
    end
  end
  return "removed"
end

require_queue_types(base)
redis.call("SCARD", base .. "stalled")

local may_search = place == "" or place == "wait" or place == "active"
local answers = {}
for i = 6, #ARGV do
  local is_later = i > 6 and may_search and has_worked_enough()
  answers[#answers + 1] = is_later and "later" or remove(ARGV[i])
end
return {took(), answers}
