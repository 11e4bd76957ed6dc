-- Delete jobs, and trim the finished jobs of a queue by a keep rule (wire format 5.8 step 11; primitives P16,
-- P17).
--@include parents

-- How many finished jobs one call removes at most; later calls remove the rest.
local MAX_REMOVED = 1000

-- Deletes the keys of a job (P16), except its lock, which belongs to the worker. A parent may have had 100,000
-- children: UNLINK frees their entries in the background, but DEL would free them before it answers.
local function delete_job_keys(job_key)
  redis.call("UNLINK", job_key, job_key .. ":logs", job_key .. ":dependencies",
    job_key .. ":processed", job_key .. ":failed", job_key .. ":unsuccessful")
end

-- set: "completed" or "failed".
local function remove_finished(base, set, ids)
  for _, id in ipairs(ids) do
    -- Broken keys of a parent raise an error here. Delete the job all the same.
    pcall(detach_from_parent, base .. id)
    delete_job_keys(base .. id)
  end
  if #ids > 0 then
    redis.call("ZREM", base .. set, unpack(ids))
  end
end

-- Removes the finished jobs that the rule does not keep. keep: {count =, age =, limit =}. count: how many jobs
-- to keep; 0 or less keeps all. age: how many seconds a job is kept; may be nil. limit: one call removes at
-- most this many of the jobs that are too old; may be nil.
local function trim_finished(base, set, now, keep)
  if keep.age then
    local until_ms = string.format("%.0f", now - keep.age * 1000)
    local limit = math.min(keep.limit or MAX_REMOVED, MAX_REMOVED)
    remove_finished(base, set,
      redis.call("ZREVRANGEBYSCORE", base .. set, until_ms, "-inf", "LIMIT", 0, limit))
  end
  if keep.count > 0 then
    local excess = redis.call("ZCARD", base .. set) - keep.count
    if excess > 0 then
      local last = math.min(excess, MAX_REMOVED) - 1
      remove_finished(base, set, redis.call("ZRANGE", base .. set, 0, last))
    end
  end
end
