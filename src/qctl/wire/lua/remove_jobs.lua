-- Delete jobs. Wire format 5.18 without the children, and 5.19 (clean) for a whole state; a parent that
-- waits for none but the deleted job goes on (soft, P17).
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] where the jobs must be: "wait" (with the paused list), "active", the name of a sorted set, or
--         "" for any place
-- ARGV[2] "removed": an event a job; "cleaned": one for all
-- ARGV[3] "" to leave jobs alone whose children have not ended; "parents" to delete them, too
-- ARGV[4] … ids, at most 500
--
-- Answers one word a job: "removed", "locked" (a worker has it), "scheduled" (the next run of a
-- scheduler), "parent" (children of it have not ended), "inactive" (it is not there), "missing" (nor
-- anywhere), "deep" (far from both ends of a list; finding it would take Redis too long).
--@include keep
--@include types

local base, place, event, takes_parents = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == "parents"
local PLACES = {"completed", "waiting-children", "delayed", "failed", "prioritized", "wait",
  "paused", "active"}
local LISTS = {wait = true, paused = true, active = true}
-- Entries that are looked through from each end; two milliseconds each.
local SEARCHED = 100000

-- Answers true when the id was there, "deep" when it may be.
local function leave_list(key, id)
  local length = redis.call("LLEN", key)
  if length == 0 then
    return false
  end
  -- The head first: that is where a walk through a list begins.
  for _, rank in ipairs({1, -1}) do
    local found = redis.pcall("LPOS", key, id, "RANK", rank, "MAXLEN", SEARCHED)
    -- Redis before 6.0.6 has no LPOS.
    if found and (type(found) == "number" or length <= SEARCHED) then
      return redis.call("LREM", key, rank, id) > 0
    end
  end
  return length > 2 * SEARCHED and "deep" or false
end

-- Answers where the job was, "deep", or nil.
local function leave(id)
  for _, name in ipairs(PLACES) do
    if place == "" or place == name or (place == "wait" and name == "paused") then
      local left
      if LISTS[name] then
        left = leave_list(base .. name, id)
      else
        left = redis.call("ZREM", base .. name, id) == 1
      end
      if left then
        return left == "deep" and left or name
      end
    end
  end
end

local function is_next_run(id, scheduler)
  local slot = scheduler and tonumber(redis.call("ZSCORE", base .. "repeat", scheduler) or "")
  return slot and id == "repeat:" .. scheduler .. ":" .. string.format("%.0f", slot)
end

local function size(command, key)
  local found = redis.pcall(command, key)
  return type(found) == "number" and found or 0
end

-- Nobody may reuse it: neither the throttled nor those to come (wire format 5.5).
local function free_dedup(id, dedup_id)
  local key = base .. "de:" .. dedup_id
  if redis.pcall("GET", key) == id then
    redis.call("DEL", key, base .. "dn:" .. dedup_id)
  end
end

local function remove(id)
  local job_key = base .. id
  local is_hash = is_job(job_key)
  local fields = is_hash and redis.call("HMGET", job_key, "timestamp", "rjk", "deid") or {}
  -- The id may be the name of another key, such as "meta": then there is no job to delete.
  local is_real = fields[1] or false
  if is_real and redis.call("EXISTS", job_key .. ":lock") == 1 then
    return "locked"
  elseif is_real and is_next_run(id, fields[2]) then
    return "scheduled"
  elseif not takes_parents and size("SCARD", job_key .. ":dependencies") > 0 then
    return "parent"
  end
  local left = leave(id)
  if left == "deep" then
    return "deep"
  elseif not left and (place ~= "" or not is_real) then
    return is_real and "inactive" or "missing"
  end
  redis.call("SREM", base .. "stalled", id)
  if is_real then
    pcall(detach_from_parent, job_key)
    if fields[3] then
      free_dedup(id, fields[3])
    end
    delete_job_keys(job_key)
  end
  if event == "removed" then
    emit(base .. "events", base .. "meta", "event", "removed", "jobId", id, "prev", left or "unknown")
  end
  return "removed"
end

require_queue_types(base)
redis.call("SCARD", base .. "stalled")

local answers, removed = {}, 0
for i = 4, #ARGV do
  local answer = remove(ARGV[i])
  answers[#answers + 1] = answer
  removed = removed + (answer == "removed" and 1 or 0)
end
if event == "cleaned" and removed > 0 then
  emit(base .. "events", base .. "meta", "event", "cleaned", "count", string.format("%.0f", removed))
end
return answers
