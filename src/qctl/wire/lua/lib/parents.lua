-- Find a job's parent in a flow, and update the parent when a child ends (primitives P13-P15, P17; wire format
-- 5.8 step 9).
--@include placing
--@include json

-- The parent of a job, from its fields parentKey and parent: {key =, base =, id =, fpof =, cpof =, …}; nil if
-- the job has none. The JSON in parent is used if possible, because the id in parentKey may have colons.
local function parent_of(parent_key, parent_json)
  if not parent_key or parent_key == "" then
    return nil
  end
  local parent = decoded(parent_json)
  if type(parent.queueKey) == "string" and type(parent.id) == "string" then
    parent.base = parent.queueKey .. ":"
  else
    local queue_key, id = string.match(parent_key, "^(.*):([^:]*)$")
    parent.base, parent.id = (queue_key or "") .. ":", id or parent_key
  end
  parent.key = parent_key
  return parent
end

-- Makes a parent ready or delayed, once it no longer waits for its children (the table of P13).
local function place_parent(parent, now)
  local base, id = parent.base, parent.id
  local fields = redis.call("HMGET", parent.key, "priority", "delay")
  local priority, delay = tonumber(fields[1] or "0") or 0, tonumber(fields[2] or "0") or 0
  if delay > 0 then
    local due = string.format("%.0f", now + delay)
    redis.call("ZADD", base .. "delayed", string.format("%.0f", (now + delay) * 4096), id)
    emit(base, "delayed", "jobId", id, "delay", due)
    mark_delayed(base)
  else
    place_ready(base, id, priority, true, "prev", "waiting-children")
    wake(base)
  end
end

-- Lets a parent run, if it exists and waits for its children (P13).
local function release_parent(parent, now)
  if redis.call("EXISTS", parent.key) == 1
      and redis.call("ZREM", parent.base .. "waiting-children", parent.id) == 1 then
    place_parent(parent, now)
  end
end

-- Lets a parent run if it has no unfinished child (P14).
local function release_parent_if_done(parent, now)
  if redis.call("SCARD", parent.key .. ":dependencies") == 0 then
    release_parent(parent, now)
  end
end

-- Makes the parent of a deleted job stop waiting for that job. The parent is not deleted (soft detach, P17 (a)).
local function detach_from_parent(job_key)
  local fields = redis.call("HMGET", job_key, "parentKey", "parent")
  local parent = parent_of(fields[1], fields[2])
  if not parent or redis.call("EXISTS", parent.key) == 0 then
    return
  end
  local dependencies = parent.key .. ":dependencies"
  if redis.call("SREM", dependencies, job_key) == 1 and redis.call("SCARD", dependencies) == 0
      and redis.call("ZREM", parent.base .. "waiting-children", parent.id) == 1 then
    -- As BullMQ does (P15), this ignores the parent's priority and delay.
    place_ready(parent.base, parent.id, 0, true, "prev", "waiting-children")
    wake(parent.base)
  end
end

local function child_completed(parent, child_key, value, now)
  if redis.call("SREM", parent.key .. ":dependencies", child_key) == 1 then
    redis.call("HSET", parent.key .. ":processed", child_key, value)
    release_parent_if_done(parent, now)
  end
end

-- Makes a parent fail because a child has failed. The parent leaves waiting-children or delayed, and its field
-- defa tells the next worker not to run the parent, but to let it fail.
local function fail_with_child(parent, child_key, now)
  redis.call("ZADD", parent.key .. ":unsuccessful", string.format("%.0f", now), child_key)
  if redis.call("EXISTS", parent.key) == 0 then
    return
  end
  local reason = "child " .. child_key .. " failed"
  if redis.call("ZREM", parent.base .. "waiting-children", parent.id) == 1 then
    redis.call("HSET", parent.key, "defa", reason)
    place_parent(parent, now)
  elseif redis.call("ZREM", parent.base .. "delayed", parent.id) == 1 then
    redis.call("HSET", parent.key, "delay", 0, "defa", reason)
    place_parent(parent, now)
  elseif not redis.call("ZSCORE", parent.base .. "failed", parent.id) then
    redis.call("HSET", parent.key, "defa", reason)
  end
end

-- Applies a child's failure to its parent. fpof: the parent fails. cpof: the parent runs now. idof: the parent
-- records the failure and no longer waits for the child. rdof: the parent forgets the child. Without any of
-- these options, the parent waits until the child is retried.
local function child_failed(parent, child_key, reason, now)
  if not (parent.fpof or parent.cpof or parent.idof or parent.rdof)
      or redis.call("SREM", parent.key .. ":dependencies", child_key) == 0 then
    return
  end
  if parent.fpof then
    fail_with_child(parent, child_key, now)
  elseif parent.cpof then
    redis.call("HSET", parent.key .. ":failed", child_key, reason)
    release_parent(parent, now)
  elseif parent.idof then
    release_parent_if_done(parent, now)
    redis.call("HSET", parent.key .. ":failed", child_key, reason)
  else
    release_parent_if_done(parent, now)
  end
end
