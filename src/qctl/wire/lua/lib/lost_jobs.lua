-- Find lost jobs and put them back. A lost job is unfinished and in no state, for example because a resume by
-- BullMQ 5 overwrote the list that held the job (wire format 10.2). Jobs change their state only inside scripts,
-- so a script never sees a job between two states.
--@include placing
--@include find

-- Answers "lost"; nil if the job is in some state; or why the job is not put back: "ghost" (its hash lacks a
-- name or a timestamp), "ended" (it has finished, and only its hash is left), "locked" (a worker has it),
-- "children" (some of its children have not ended).
local function find_lost(base, id)
  local sets = {"prioritized", "delayed", "waiting-children", "completed", "failed"}
  if find_in_sets(base, sets, id) then
    return nil
  end
  local job_key = base .. id
  local fields = redis.call("HMGET", job_key, "name", "timestamp", "finishedOn")
  local pending = redis.pcall("SCARD", job_key .. ":dependencies")
  if not fields[1] or not tonumber(fields[2] or "") then
    return "ghost"
  elseif fields[3] then
    return "ended"
  elseif redis.call("EXISTS", job_key .. ":lock") == 1 then
    return "locked"
  elseif find_in_lists(base, {"active", "wait", "paused"}, id) then
    return nil
  end
  return type(pending) == "number" and pending > 0 and "children" or "lost"
end

-- Makes a lost job delayed if its delay is not over, else ready. The delay counts from the job's last start, or
-- from its timestamp if it has not started. now: epoch ms. The caller writes the marker that wakes a worker for
-- a ready job.
local function put_back(base, id, is_lifo, now)
  local fields = redis.call("HMGET", base .. id, "timestamp", "processedOn", "delay", "priority")
  local start = math.max(tonumber(fields[1]), tonumber(fields[2] or "") or 0)
  local delay, priority = tonumber(fields[3] or "") or 0, tonumber(fields[4] or "") or 0
  if delay > 0 and start + delay > now then
    place_delayed(base, id, start, delay, "prev", "unknown")
  else
    redis.call("HSET", base .. id, "delay", "0")
    place_ready(base, id, priority, is_lifo, "prev", "unknown")
  end
end
