-- Whether ready jobs belong in the paused list: while a queue is paused the way BullMQ 5 does it, for a
-- BullMQ 5 resume renames that list over wait. One that it paused while nothing waited has neither list
-- yet; then the version of the last Queue object tells.
local function is_paused_list_used(meta_key, wait_key, paused_key)
  if redis.call("HEXISTS", meta_key, "paused") == 0 then
    return false
  elseif redis.call("EXISTS", paused_key) == 1 then
    return true
  end
  return redis.call("EXISTS", wait_key) == 0
      and string.find(redis.call("HGET", meta_key, "version") or "", "^bullmq:5%.") ~= nil
end
