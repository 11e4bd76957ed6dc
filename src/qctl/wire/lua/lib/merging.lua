-- Brings all ready jobs into one list, those of the paused list next, each list in its order, as a resume
-- by BullMQ 6 does.
--
-- At most this many jobs are moved in a call. As a rule one list is empty or short: then one call is
-- enough, and nobody sees jobs in both. Else, in a paused queue, they go into the paused list, bit by bit:
-- a BullMQ 5 resume in between keeps that one, so with every call it would lose less. In a running queue
-- they go to wait, where workers take them.
--
-- Answers the key that has them all, or nil when it takes another call.
local function merge_ready(wait_key, paused_key, most, is_paused)
  local in_wait, in_paused = redis.call("LLEN", wait_key), redis.call("LLEN", paused_key)
  if in_paused == 0 then
    return wait_key
  elseif in_wait == 0 then
    return paused_key
  elseif in_wait <= most or (is_paused and in_paused > most) then
    local ids, next_first = redis.call("LRANGE", wait_key, -most, -1), {}
    for i = #ids, 1, -1 do
      next_first[#next_first + 1] = ids[i]
    end
    redis.call("LPUSH", paused_key, unpack(next_first))
    redis.call("LTRIM", wait_key, 0, -#ids - 1)
    return in_wait <= most and paused_key or nil
  end
  local ids = redis.call("LRANGE", paused_key, 0, most - 1)
  redis.call("RPUSH", wait_key, unpack(ids))
  redis.call("LTRIM", paused_key, #ids, -1)
  return in_paused <= most and wait_key or nil
end
