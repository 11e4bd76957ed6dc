-- Where ready jobs are while a queue is paused (wire format 5.20, 10.2).
--
-- BullMQ 6 sets the flag and leaves them in wait. BullMQ 5 keeps them in the paused list, and its resume
-- renames that list over wait: what is in wait then is lost.

-- Whether the queue's clients only set the flag, by the version of the last Queue object. If that is missing
-- or another library's, the paused list is safer: a resume by BullMQ 6 merges it.
local function is_flag_enough(meta_key)
  local version = redis.call("HGET", meta_key, "version") or ""
  return (tonumber(string.match(version, "^bullmq:(%d+)%.") or "") or 0) >= 6
end

-- Whether ready jobs belong in the paused list. The lists show how the queue was paused, unless it was paused
-- while nothing waited: then it has neither.
local function is_paused_list_used(meta_key, wait_key, paused_key)
  if redis.call("HEXISTS", meta_key, "paused") == 0 then
    return false
  elseif redis.call("EXISTS", paused_key) == 1 then
    return true
  end
  return redis.call("EXISTS", wait_key) == 0 and not is_flag_enough(meta_key)
end
