-- Add one job (wire format 5.1 and 5.3).
--@include dedup

-- The codes of wire format 5 that are answered instead of an id.
local NO_PARENT, OTHER_PARENT = -5, -7

-- Handles a job that exists already: only its parent may change. in_flow: the job is part of a flow, so the
-- caller releases parents after all jobs of the flow exist.
local function add_existing(base, job, now, in_flow)
  local job_key = base .. job.id
  if job.parent_key then
    local old = redis.call("HGET", job_key, "parentKey")
    if old and old ~= job.parent_key and redis.call("EXISTS", old) == 1 then
      if in_flow then
        redis.call("HSET", job.parent_key, "flowAttachmentFailed", 1)
      end
      return OTHER_PARENT
    end
    redis.call("HSET", job_key, "parentKey", job.parent_key, "parent", job.parent)
    if redis.call("ZSCORE", base .. "completed", job.id) then
      redis.call("HSET", job.parent_key .. ":processed", job_key,
        redis.call("HGET", job_key, "returnvalue") or "null")
      if not in_flow then
        release_parent_if_done(parent_of(job.parent_key, job.parent), now)
      end
    else
      redis.call("SADD", job.parent_key .. ":dependencies", job_key)
    end
  end
  emit(base, "duplicated", "jobId", job.id)
  return job.id, "exists"
end

-- Adds rare options to a job. rare: the JSON {id, parent_key, parent, dedup}, or "" for none.
local function with_rare_options(job, rare)
  if rare ~= "" then
    for field, value in pairs(cjson.decode(rare)) do
      job[field] = value
    end
  end
  return job
end

-- job: see store_job; without an id the job gets the queue's next number. Further fields: lifo, has_children
-- (the job waits for its children) and dedup, see deduplicate.
-- Answers the job's id if it was added; one of the codes above; or, if it was not added because of an existing
-- job, the id of the existing job and "exists" or "deduplicated".
local function add_job(base, job, now, in_flow)
  if job.parent_key and redis.call("EXISTS", job.parent_key) == 0 then
    return NO_PARENT
  end
  local counter = redis.call("INCR", base .. "id")
  local has_own_id = job.id ~= nil
  job.id = job.id or string.format("%.0f", counter)
  if has_own_id and redis.call("EXISTS", base .. job.id) == 1 then
    return add_existing(base, job, now, in_flow)
  end
  if job.dedup then
    job.dedup_id = job.dedup.id
    local standing = deduplicate(base, job)
    if standing then
      return standing, "deduplicated"
    end
  end
  store_job(base, job)
  if job.has_children then
    redis.call("ZADD", base .. "waiting-children", job.timestamp, job.id)
    emit(base, "waiting-children", "jobId", job.id)
  else
    enqueue_stored(base, job, job.lifo)
  end
  if job.parent_key then
    redis.call("SADD", job.parent_key .. ":dependencies", base .. job.id)
  end
  return job.id
end
