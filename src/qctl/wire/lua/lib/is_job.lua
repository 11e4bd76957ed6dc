-- Whether a key is the hash of a job. An id may be the name of another key of the queue, such as "wait".

local function is_job(job_key)
  local fields = redis.pcall("HLEN", job_key)
  return type(fields) == "number" and fields > 0
end
