-- Count a stall of a job (wire format 5.13 step 4).

-- Whether the job belongs to a scheduler that exists: such a job never fails for stalling.
local function is_scheduled(base, job_key)
  local scheduler = redis.call("HGET", job_key, "rjk")
  return scheduler and (redis.call("EXISTS", base .. "repeat:" .. scheduler) == 1
    or redis.call("ZSCORE", base .. "repeat", scheduler))
end

local function count_stall(base, job_key, max_stalls, reason)
  local stalls = redis.pcall("HINCRBY", job_key, "stc", 1)
  if type(stalls) ~= "number" then
    -- The field was not a number. The job has already left active, so the script must not fail here.
    stalls = 1
    redis.call("HSET", job_key, "stc", stalls)
  end
  if stalls > max_stalls and not is_scheduled(base, job_key) then
    redis.call("HSET", job_key, "defa", reason)
  end
end
