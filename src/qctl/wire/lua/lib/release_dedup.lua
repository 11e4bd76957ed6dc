-- When a job with a deduplication id ends: free the id, and add the job that was kept for later (wire format
-- 5.5 "Release"; 5.8 steps 7 and 8).
--@include store_job
--@include json

-- Frees the deduplication id if this job holds it. Keeps it while the TTL of a throttle runs, or if another
-- job holds it.
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

-- Adds the last job that was kept (keepLastIfActive) while this one ran, and gives it the deduplication id.
-- BullMQ's field names: jid job id, pk parent key, pd parent as JSON, pdk key of the parent's dependencies,
-- rjk scheduler id.
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
