-- Deduplication (wire format 5.5; 5.8 steps 7 and 8). If another job owns the deduplication id of a new job, the
-- new job is usually dropped or kept for later. When the owner ends, the kept job is added and owns the id.
--@include store_job
--@include deleting
--@include json

-- Keeps the new job for later: add_kept_job adds it when the owner, which is running, ends.
local function keep_next(base, job)
  local kept_key = base .. "dn:" .. job.dedup.id
  local fields = {"name", job.name, "data", job.data, "opts", job.opts, "jid", job.id}
  for field, value in pairs({pk = job.parent_key, pd = job.parent, rjk = job.rjk,
      pdk = job.parent_key and job.parent_key .. ":dependencies"}) do
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  redis.call("DEL", kept_key)
  redis.call("HSET", kept_key, unpack(fields))
  -- The id must not expire before the owner ends.
  redis.call("PERSIST", base .. "de:" .. job.dedup.id)
end

-- job.dedup: BullMQ's option, {id =, ttl = ms, extend =, replace =, keepLastIfActive =, reschedule =}; only the
-- id is required.
-- Answers the owner's id if the new job is dropped or kept for later, or nil if the new job must be stored.
local function deduplicate(base, job)
  local dedup = job.dedup
  local key = base .. "de:" .. dedup.id
  local owner = redis.call("GET", key)
  local ttl = (dedup.ttl or 0) > 0 and string.format("%.0f", dedup.ttl) or nil

  local function set_owner(id)
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
    set_owner(job.id)
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
      set_owner(job.id)
    end
    return nil
  end
  -- If the owner is gone (deleted by hand, or evicted), its deduplication id must not block new jobs for ever.
  if redis.call("EXISTS", base .. owner) == 0 and redis.call("PTTL", key) == -1 then
    redis.call("DEL", key, base .. "dn:" .. dedup.id)
    set_owner(job.id)
    return nil
  end
  if dedup.keepLastIfActive and redis.call("LPOS", base .. "active", owner) then
    keep_next(base, job)
    report(owner, job.id)
  elseif not dedup.replace then
    -- With replace, BullMQ writes no event about the dropped job.
    if ttl and dedup.extend then
      set_owner(owner)
    end
    report(owner, job.id)
  end
  if dedup.reschedule and not dedup.replace and redis.call("ZSCORE", base .. "delayed", owner) then
    redis.call("HSET", base .. owner, "delay", job.delay)
    place_delayed(base, owner, tonumber(job.timestamp), tonumber(job.delay))
  end
  return owner
end

-- Frees the deduplication id if this job owns it. But an id with a TTL (throttling) stays until it expires.
local function release_dedup(base, id, dedup_id)
  local key = base .. "de:" .. dedup_id
  local ttl = redis.call("PTTL", key)
  if ttl == 0 or (ttl == -1 and redis.call("GET", key) == id) then
    redis.call("DEL", key)
  end
end

local function integer_text(value)
  return string.format("%.0f", tonumber(value) or 0)
end

-- Adds the job that keep_next has kept, if there is one, and makes it the owner of the deduplication id.
-- BullMQ's field names: jid (job id), pk (parent key), pd (parent as JSON), pdk (key of the parent's
-- dependencies), rjk (scheduler id).
local function add_kept_job(base, dedup_id, now)
  local kept_key = base .. "dn:" .. dedup_id
  local fields = redis.call("HGETALL", kept_key)
  if #fields == 0 then
    return
  end
  local kept = {}
  for i = 1, #fields, 2 do
    kept[fields[i]] = fields[i + 1]
  end
  local opts, counter = decoded(kept.opts), redis.call("INCR", base .. "id")
  local job = {
    id = kept.jid or integer_text(counter),
    name = kept.name or "", data = kept.data or "{}", opts = kept.opts or "{}",
    timestamp = integer_text(now), delay = integer_text(opts.delay),
    priority = integer_text(opts.priority), parent_key = kept.pk, parent = kept.pd, rjk = kept.rjk,
    dedup_id = dedup_id,
  }
  redis.call("SET", base .. "de:" .. dedup_id, job.id)
  store_job(base, job)
  enqueue_stored(base, job, opts.lifo)
  if kept.pdk then
    redis.call("SADD", kept.pdk, base .. job.id)
  end
  redis.call("DEL", kept_key)
end
