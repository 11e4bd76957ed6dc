-- Renew the locks of jobs that run. Wire format 5.7.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] lock TTL, ms
-- ARGV[2], ARGV[3] … id, lock token; in pairs, at most 250
--
-- Answers the ids whose lock is lost: gone, or another's.

local base, lost, held = KEYS[1], {}, {}
for i = 2, #ARGV, 2 do
  local lock_key = base .. ARGV[i] .. ":lock"
  if redis.call("GET", lock_key) == ARGV[i + 1] then
    redis.call("PEXPIRE", lock_key, ARGV[1])
    held[#held + 1] = ARGV[i]
  else
    lost[#lost + 1] = ARGV[i]
  end
end
if #held > 0 then
  redis.call("SREM", base .. "stalled", unpack(held))
end
return lost
