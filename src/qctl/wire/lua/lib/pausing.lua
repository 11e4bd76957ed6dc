-- Functions for both pause and resume (wire format 5.20, 10.2). base is the queue's key prefix, "bull:q:".
-- qctl's pause note is a key that names who paused the queue: see wire/notes.py.
--@include events
--@include json
--@include ready

-- Brings all ready jobs into one list, as a resume by BullMQ 6 does: the jobs of the paused list run next, and
-- the jobs of each list keep their order. Answers the name of the list that holds all ready jobs, or nil if
-- another call is needed.
--
-- One call moves at most max_moved jobs. Usually one of the two lists has at most max_moved jobs: then one call
-- is enough, and no client sees jobs in both lists. If both lists have more than max_moved jobs, several calls
-- move them. If the queue is paused, these calls move jobs to the paused list, because a resume by BullMQ 5 loses
-- the jobs that are still in wait. If the queue is not paused, they move jobs to wait, where workers take them.
local function merge_ready(base, max_moved, is_paused)
  local wait, paused = base .. "wait", base .. "paused"
  local in_wait, in_paused = redis.call("LLEN", wait), redis.call("LLEN", paused)
  if in_paused == 0 then
    return "wait"
  elseif in_wait == 0 then
    return "paused"
  elseif in_wait <= max_moved or (is_paused and in_paused > max_moved) then
    local ids, next_first = redis.call("LRANGE", wait, -max_moved, -1), {}
    for i = #ids, 1, -1 do
      next_first[#next_first + 1] = ids[i]
    end
    redis.call("LPUSH", paused, unpack(next_first))
    redis.call("LTRIM", wait, 0, -#ids - 1)
    return in_wait <= max_moved and "paused" or nil
  end
  local ids = redis.call("LRANGE", paused, 0, max_moved - 1)
  redis.call("RPUSH", wait, unpack(ids))
  redis.call("LTRIM", paused, #ids, -1)
  return in_paused <= max_moved and "wait" or nil
end

-- Whether any client has paused or resumed the queue after the pause that this note records. holder: the note.
-- BullMQ does not change the note, but it writes events. Only the last 1,000 events are read, in about 1 ms.
-- They are enough, because a drain follows the events all the time and has seen older ones.
local function is_overtaken(base, holder)
  local entries = type(holder.event) == "string"
      and redis.pcall("XREVRANGE", base .. "events", "+", holder.event, "COUNT", 1000) or {}
  for _, entry in ipairs(entries) do
    local fields = entry[2] or {}
    for i = 1, entry[1] ~= holder.event and #fields or 0, 2 do
      if fields[i] == "event" and (fields[i + 1] == "paused" or fields[i + 1] == "resumed") then
        return true
      end
    end
  end
  return false
end
