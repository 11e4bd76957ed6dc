-- Set a job's progress or data, or add a row to its log, in any state. Wire format 5.22.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] job id   ARGV[2] "progress", "data" or "log"
-- ARGV[3] the value: JSON, or the row   ARGV[4] how many rows of the log are kept, "" for all
--
-- Answers 0, or for "log" how many rows the log has; -1 if there is no such job.
--@include events

local base = KEYS[1]
local id, what, value, kept_rows = unpack(ARGV)
local job_key = base .. id
if redis.call("EXISTS", job_key) == 0 then
  return -1
end
if what == "log" then
  local rows = redis.call("RPUSH", job_key .. ":logs", value)
  local max_rows = tonumber(kept_rows)
  if max_rows then
    redis.call("LTRIM", job_key .. ":logs", string.format("%.0f", -max_rows), -1)
    rows = math.min(rows, max_rows)
  end
  return rows
end
redis.call("HSET", job_key, what, value)
if what == "progress" then
  emit(base, "progress", "jobId", id, "data", value)
end
return 0
