-- Bring all ready jobs into one list, as a resume by BullMQ 6 does: the jobs of the paused list run next, and
-- the jobs of each list keep their order.
--
-- One call moves at most max_moved jobs. Usually one list is empty or short: then one call is enough, and
-- nobody sees jobs in both. Otherwise, in a paused queue, the jobs move to the paused list step by step: a
-- resume by BullMQ 5 keeps that list, so with every call it would lose fewer jobs. In a running queue they
-- move to wait, where workers take them.
--
-- Answers the key of the list that has all jobs, or nil if another call is needed.
local function merge_ready(wait_key, paused_key, max_moved, is_paused)
  local in_wait, in_paused = redis.call("LLEN", wait_key), redis.call("LLEN", paused_key)
  if in_paused == 0 then
    return wait_key
  elseif in_wait == 0 then
    return paused_key
  elseif in_wait <= max_moved or (is_paused and in_paused > max_moved) then
    local ids, next_first = redis.call("LRANGE", wait_key, -max_moved, -1), {}
    for i = #ids, 1, -1 do
      next_first[#next_first + 1] = ids[i]
    end
    redis.call("LPUSH", paused_key, unpack(next_first))
    redis.call("LTRIM", wait_key, 0, -#ids - 1)
    return in_wait <= max_moved and paused_key or nil
  end
  local ids = redis.call("LRANGE", paused_key, 0, max_moved - 1)
  redis.call("RPUSH", wait_key, unpack(ids))
  redis.call("LTRIM", paused_key, #ids, -1)
  return in_paused <= max_moved and wait_key or nil
end
