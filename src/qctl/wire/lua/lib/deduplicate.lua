-- When a job with a deduplication id is added: whether another job stands for it (wire format 5.5).
--@include deleting

-- Keeps the new job for later: it is added when the running owner of the id ends (add_kept_job).
local function keep_next(base, job, owner)
  local kept_key = base .. "dn:" .. job.dedup.id
  local fields = {"name", job.name, "data", job.data, "opts", job.opts, "jid", job.id}
  for field, value in pairs({pk = job.parent_key, pd = job.parent, rjk = job.rjk,
      pdk = job.parent_key and job.parent_key .. ":dependencies"}) do
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  redis.call("DEL", kept_key)
  redis.call("HSET", kept_key, unpack(fields))
  redis.call("PERSIST", base .. "de:" .. job.dedup.id)
end

-- job.dedup: BullMQ's option, {id =, ttl = ms, extend =, replace =, keepLastIfActive =, reschedule =}; all but
-- the id may be missing.
-- Answers the id of the job that stands for the new one, or nil if the new job is to be stored.
local function deduplicate(base, job)
  local dedup = job.dedup
  local key = base .. "de:" .. dedup.id
  local owner = redis.call("GET", key)
  local ttl = (dedup.ttl or 0) > 0 and string.format("%.0f", dedup.ttl) or nil

  local function own(id)
    if ttl and not dedup.keepLastIfActive then
      redis.call("SET", key, id, "PX", ttl)
    else
      redis.call("SET", key, id)
    end
  end
  local function report(survivor, dropped)
    emit(base, "deduplicated", "jobId", survivor,
      "deduplicationId", dedup.id, "deduplicatedJobId", dropped)
  end

  if not owner then
    own(job.id)
    return nil
  end
  if dedup.replace and redis.call("ZREM", base .. "delayed", owner) == 1 then
    delete_job_keys(base .. owner)
    emit(base, "removed", "jobId", owner, "prev", "delayed")
    report(job.id, owner)
    redis.call("DEL", base .. "dn:" .. dedup.id)
    if ttl and not dedup.extend and not dedup.keepLastIfActive then
      redis.call("SET", key, job.id, "KEEPTTL")
    else
      own(job.id)
    end
    return nil
  end
  -- The owner is gone, deleted by hand or evicted: it must not block new jobs for ever.
  if redis.call("EXISTS", base .. owner) == 0 and redis.call("PTTL", key) == -1 then
    redis.call("DEL", key, base .. "dn:" .. dedup.id)
    own(job.id)
    return nil
  end
  if dedup.keepLastIfActive and redis.call("LPOS", base .. "active", owner) then
    keep_next(base, job, owner)
    report(owner, job.id)
  elseif not dedup.replace then
    if ttl and dedup.extend then
      own(owner)
    end
    report(owner, job.id)
  end
  if dedup.reschedule and not dedup.replace and redis.call("ZSCORE", base .. "delayed", owner) then
    redis.call("HSET", base .. owner, "delay", job.delay)
    place_delayed(base, owner, tonumber(job.timestamp), tonumber(job.delay))
  end
  return owner
end
