-- Take one job out of active before it has ended, and unlock it (primitive P11).

-- Answers 0 if the job has left active, else a code of wire format 5: -1 no hash, -2 no lock, -6 the lock has
-- another token, -3 not in active. With -3, the lock is deleted nevertheless.
local function leave_active(base, id, token)
  if redis.call("EXISTS", base .. id) == 0 then
    return -1
  end
  local lock_key = base .. id .. ":lock"
  local held = redis.call("GET", lock_key)
  if held ~= token then
    return held and -6 or -2
  end
  redis.call("DEL", lock_key)
  redis.call("SREM", base .. "stalled", id)
  if redis.call("LREM", base .. "active", -1, id) == 0 then
    return -3
  end
  return 0
end
