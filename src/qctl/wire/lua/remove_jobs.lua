-- Delete jobs: single jobs as in wire format 5.18, a whole state as in 5.19 (clean). A parent that waited only
-- for a deleted job becomes ready to run (a soft detach, P17).
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] where the jobs must be: "wait" (with the paused list), "active", the name of a sorted set, or ""
--         for anywhere
-- ARGV[2] "removed" to write an event for each job; "" to write none (see report_cleaned.lua)
-- ARGV[3] "" to skip a job that has unfinished children; "last" to skip it only if it has several. A single
--         unfinished child is deleted together with the job, and the same rule applies to that child
-- ARGV[4] "", or the key of a parent: then only children of this parent are deleted. The last child that the
--         parent waits for stays, because without that child the parent would run. An id that is not a child
--         of the parent is removed from the parent's dependencies if other ids remain there
-- ARGV[5] "" to delete; "dry" to write nothing; "seen" to write nothing and to assume that the jobs are in
--         their list, because they were just read from it
-- ARGV[6] in a dry run of several calls: the text at the end of the previous answer; else ""
-- ARGV[7] … ids, at most 500
--
-- Answers {microseconds that the call took ("" if unknown), words}. The words, one for each job: "removed";
-- "locked" (a worker has the job); "scheduled" (the next run of a scheduler); "parent" (its children have not
-- ended); "child-locked" (a worker has its last child); "last" (the last child that the parent waits for);
-- "inactive" (it is not where it must be); "missing" (it does not exist, or is not a child of the parent);
-- "later" (the call has taken too long, so send this job again; the first job never gets this word). In a dry
-- run, one more text follows the words: ARGV[6] for the next call.
--@include clock
--@include find
--@include deleting
--@include require_types

local base, place, event, with_last = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == "last"
local parent_key, is_dry, is_seen = ARGV[4], ARGV[5] ~= "", ARGV[5] == "seen"
local SETS = {"completed", "waiting-children", "delayed", "failed", "prioritized"}
-- Active comes first, because it is never long.
local LISTS = {"active", "wait", "paused"}
-- The end of the list where LREM begins its search. 1: at the head, because a caller that deletes a whole state
-- deletes from the head on. -1: at the tail, where the jobs that run next are, because a job that the caller
-- names by its id is usually one of them.
local DIRECTION = place == "" and -1 or 1
-- At most this many levels of a flow are deleted together with the job above them.
local MAX_LEVELS = 100
-- In a dry run: parent → how many of its children would be gone by now.
local gone = decoded(ARGV[6])

-- Whether to look for a job in the set or list with this name. where: as ARGV[1].
local function may_be_in(name, where)
  return where == "" or where == name or (where == "wait" and name == "paused")
end

local function set_of(job_base, id, where)
  for _, name in ipairs(SETS) do
    if may_be_in(name, where) and redis.call("ZSCORE", job_base .. name, id) then
      return name
    end
  end
end

local function is_next_run(job_base, id, scheduler)
  local slot = scheduler and tonumber(redis.call("ZSCORE", job_base .. "repeat", scheduler) or "")
  return slot and id == "repeat:" .. scheduler .. ":" .. string.format("%.0f", slot)
end

local function size(command, key)
  local found = redis.pcall(command, key)
  return type(found) == "number" and found or 0
end

local function count_unfinished_children(job_key)
  return size("SCARD", job_key .. ":dependencies") - (gone[job_key] or 0)
end

-- Answers the job if it may be deleted, else nil and the word for why it may not.
local function examine(job_base, id, where)
  local key = job_base .. id
  local fields = is_job(key)
      and redis.call("HMGET", key, "timestamp", "rjk", "deid", "parentKey", "ats") or {}
  -- The id may be the name of another key, such as "meta", and not a job. A worker that takes an id without a
  -- job leaves a hash that has the field "ats", but no timestamp (wire format T8).
  local is_real = fields[1] or fields[5] or false
  if is_real and redis.call("EXISTS", key .. ":lock") == 1 then
    return nil, "locked"
  elseif is_real and is_next_run(job_base, id, fields[2]) then
    return nil, "scheduled"
  elseif not with_last and count_unfinished_children(key) > 0 then
    return nil, "parent"
  end
  return {base = job_base, id = id, key = key, is_real = is_real, dedup_id = fields[3],
    parent_key = fields[4], where = where, set = set_of(job_base, id, where)}
end

-- Splits a job's key into the queue's key prefix and the id. Ids may have colons, but names of queues may not.
local function split(job_key)
  local prefix = string.match(base, "^(.*:)[^:]*:$") or ""
  if string.sub(job_key, 1, #prefix) == prefix then
    local queue, id = string.match(string.sub(job_key, #prefix + 1), "^([^:]+:)(.+)$")
    return queue and prefix .. queue, id
  end
end

-- Whether the job with the key job_key is a child of the job with the key of_parent. The child may have been
-- deleted, and a different job may have its id now.
local function is_child(job_key, of_parent)
  local fields = is_job(job_key) and redis.call("HMGET", job_key, "parentKey", "parent") or {}
  local parent = parent_of(fields[1], fields[2])
  return parent and parent.key == of_parent and parent.base .. parent.id == of_parent
end

-- Answers the job and the jobs to delete together with it, from the top down; or nil and the word for why the
-- job stays.
local function examine_chain(id)
  local jobs = {}
  local job, word = examine(base, id, place)
  while job do
    jobs[#jobs + 1] = job
    local left = count_unfinished_children(job.key)
    -- A dry run does not examine the jobs below this one: some of them would not exist in a real run, because
    -- the caller would have deleted them before.
    if left == 0 or is_dry then
      return jobs
    elseif left > 1 or #jobs > MAX_LEVELS then
      return nil, "parent"
    end
    local last_key = redis.call("SRANDMEMBER", job.key .. ":dependencies")
    if not is_child(last_key, job.key) then
      -- The entry is out of date: its child is gone, so there is nothing below to delete.
      return jobs
    end
    local last_base, last_id = split(last_key)
    if not last_base then
      return nil, "parent"
    end
    require_queue_types(last_base)
    job, word = examine(last_base, last_id, "")
  end
  return nil, #jobs > 0 and word == "locked" and "child-locked" or word
end

-- Frees the deduplication id if this job owns it, and deletes the job that was kept for later (wire format
-- 5.5).
local function free_dedup(job)
  local key = job.base .. "de:" .. job.dedup_id
  if redis.pcall("GET", key) == job.id then
    redis.call("DEL", key, job.base .. "dn:" .. job.dedup_id)
  end
end

-- Takes an id out of a list; in a dry run, only searches the list. Answers whether the id was there.
local function leave_list(key, id)
  if is_dry then
    return is_seen or is_in_list(key, id)
  end
  return redis.call("LREM", key, DIRECTION, id) > 0
end

-- Takes a job out of its state; in a dry run, only finds the state. Answers the name of the set or list, or nil
-- if the job was in none.
local function leave(job)
  if job.set then
    if not is_dry then
      redis.call("ZREM", job.base .. job.set, job.id)
    end
    return job.set
  end
  for _, name in ipairs(LISTS) do
    if may_be_in(name, job.where) and leave_list(job.base .. name, job.id) then
      return name
    end
  end
end

-- Deletes the keys of a job that has left its state.
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
    emit(job.base, "removed", "jobId", job.id, "prev", state or "unknown")
  end
end

-- Counts, in a dry run, that the job's parent would have one unfinished child less.
local function foresee(job)
  local parent = job.parent_key
  if parent and redis.pcall("SISMEMBER", parent .. ":dependencies", job.key) == 1 then
    gone[parent] = (gone[parent] or 0) + 1
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
  local jobs, word = examine_chain(id)
  if not jobs or is_last then
    return word or "last"
  end
  local top = jobs[1]
  local state = leave(top)
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
for i = 7, #ARGV do
  local is_later = i > 7 and may_search and has_worked_enough()
  answers[#answers + 1] = is_later and "later" or remove(ARGV[i])
end
if is_dry then
  answers[#answers + 1] = cjson.encode(gone)
end
return {took(), answers}
