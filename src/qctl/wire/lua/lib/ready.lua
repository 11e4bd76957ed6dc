-- Find the list for ready jobs, and write the markers that wake idle workers (wire format 5.20, 7.2, 10.2;
-- primitives P3-P7). base is the queue's key prefix, "bull:q:".
--
-- To pause a queue, BullMQ 6 sets a flag and leaves ready jobs in wait. BullMQ 5 sets the flag and moves ready
-- jobs to the paused list. To resume, BullMQ 5 renames the paused list to wait, so it loses any jobs in wait.

-- Whether the queue's clients pause with the flag alone. They do if the last Queue object was made by BullMQ 6
-- or newer. If the version is unknown, the result is false. The paused list is the safer choice, because BullMQ 6
-- also handles that list: the resume of BullMQ 6 merges the paused list with wait.
local function is_flag_enough(base)
  local version = redis.call("HGET", base .. "meta", "version") or ""
  return (tonumber(string.match(version, "^bullmq:(%d+)%.") or "") or 0) >= 6
end

-- Answers the list for jobs that are ready now (P4). In a paused queue, the list that exists shows how the
-- queue was paused. If no job waited, neither list exists, and the version of the queue's clients decides.
local function target_list(base)
  local wait, paused = base .. "wait", base .. "paused"
  if redis.call("HEXISTS", base .. "meta", "paused") == 0 then
    return wait
  elseif redis.call("EXISTS", paused) == 1 then
    return paused
  end
  return (redis.call("EXISTS", wait) == 1 or is_flag_enough(base)) and wait or paused
end

-- Whether no job may start: the queue is paused, or its concurrency limit is reached (P3).
local function is_blocked(base)
  if redis.call("HEXISTS", base .. "meta", "paused") == 1 then
    return true
  end
  local concurrency = tonumber(redis.call("HGET", base .. "meta", "concurrency") or "")
  return concurrency ~= nil and redis.call("LLEN", base .. "active") >= concurrency
end

-- Writes the marker that means "there may be a job now" (P5).
local function mark_ready(base)
  redis.call("ZADD", base .. "marker", 0, "0")
end

-- Writes the marker that means "wake up when the next delayed job is due" (P6).
local function mark_delayed(base)
  local next_up = redis.call("ZRANGE", base .. "delayed", 0, 0, "WITHSCORES")
  if next_up[2] then
    local due = string.format("%.4f", tonumber(next_up[2]) / 4096)
    redis.call("ZADD", base .. "marker", due, "1")
  end
end

-- Wakes one idle worker if a job may start (P5).
local function wake(base)
  if not is_blocked(base) then
    mark_ready(base)
  end
end

-- The priority in a job's hash, or 0 if there is none.
local function priority_of(base, id)
  return tonumber(redis.call("HGET", base .. id, "priority") or "0") or 0
end

-- Puts a job where it runs next: at the tail of the list of ready jobs, or before the other jobs of its
-- priority (P7, front-of-class variant). The caller wakes a worker.
local function enqueue_next(base, id)
  local priority = priority_of(base, id)
  if priority > 0 then
    redis.call("ZADD", base .. "prioritized", string.format("%.0f", priority * 4294967296), id)
  else
    redis.call("RPUSH", target_list(base), id)
  end
end
