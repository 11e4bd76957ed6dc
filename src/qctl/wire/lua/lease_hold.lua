-- Take or renew a lease.
--
-- KEYS[1] the lease
-- ARGV[1] the holder as JSON   ARGV[2] its owner   ARGV[3] time to live, ms
--
-- Answers "" when it is held now, else the present holder's JSON.

local held = redis.call("GET", KEYS[1])
if held and cjson.decode(held).owner ~= ARGV[2] then
  return held
end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[3])
return ""
