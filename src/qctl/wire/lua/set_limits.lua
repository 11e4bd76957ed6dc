-- Set or remove a queue's global concurrency and global rate limit, as BullMQ 5 and 6 do (wire format 2.2).
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"   KEYS[2] meta
-- ARGV[1] the concurrency; "none" to remove it; "" to leave it as it is
-- ARGV[2] the rate limit: how many jobs; "none" to remove it; "" to leave it as it is
-- ARGV[3] the rate limit: within how many ms
-- ARGV[4] "dry" to write nothing
--
-- Answers the fields concurrency, max and duration before the change, "" for those that are missing. Answers
-- {} and writes nothing if the queue does not exist.

local base, meta = unpack(KEYS)
local concurrency, max, duration, dry = unpack(ARGV)

if redis.call("EXISTS", meta) == 0 and redis.call("EXISTS", base .. "id") == 0 then
  return {}
end
local before = redis.call("HMGET", meta, "concurrency", "max", "duration")
for index = 1, 3 do
  before[index] = before[index] or ""
end
if dry == "dry" then
  return before
end

if concurrency == "none" then
  redis.call("HDEL", meta, "concurrency")
elseif concurrency ~= "" then
  redis.call("HSET", meta, "concurrency", concurrency)
end
if max == "none" then
  redis.call("HDEL", meta, "max", "duration")
elseif max ~= "" then
  redis.call("HSET", meta, "max", max, "duration", duration)
end
return before
