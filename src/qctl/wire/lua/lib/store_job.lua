-- Write a job's hash, and put its id where it belongs (primitive P18; wire format 5.1 step 8).
--@include placing

-- job: {id =, name =, data =, opts =, timestamp =, delay =, priority =} as text; optional parent_key, parent,
-- rjk (scheduler id), dedup_id.
local function store_job(base, job)
  local fields = {"name", job.name, "data", job.data, "opts", job.opts,
    "timestamp", job.timestamp, "delay", job.delay, "priority", job.priority}
  for field, value in pairs({parentKey = job.parent_key, parent = job.parent, rjk = job.rjk,
      deid = job.dedup_id}) do
    if value ~= "" then
      fields[#fields + 1] = field
      fields[#fields + 1] = value
    end
  end
  redis.call("HSET", base .. job.id, unpack(fields))
  emit(base, "added", "jobId", job.id, "name", job.name)
end

-- Adds a stored job to the delayed, prioritised or waiting jobs. The job must not have unfinished children.
-- lifo: true to run the job next.
local function enqueue_stored(base, job, lifo)
  local delay = tonumber(job.delay)
  if delay > 0 then
    place_delayed(base, job.id, tonumber(job.timestamp), delay)
  else
    place_ready(base, job.id, tonumber(job.priority), lifo)
    wake(base)
  end
end
