-- Take or renew a lease, a key that names the one process that may drain a queue: see wire/notes.py.
--
-- KEYS[1] the lease
-- ARGV[1] the holder as JSON   ARGV[2] its owner   ARGV[3] time to live, ms
--
-- Answers "" if the caller has the lease now, else the JSON of its holder.
--@include json

local owner = decoded(redis.pcall("GET", KEYS[1])).owner
if type(owner) == "string" and owner ~= ARGV[2] then
  return redis.call("GET", KEYS[1])
end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[3])
return ""
