-- Whether somebody has paused or resumed the queue after the pause that a note is about. BullMQ does not
-- change the note, but writes events. Only the last 1,000 events are read, which takes about 1 ms; a drain
-- follows the events all the time, so it has seen the older ones.
local function is_overtaken(events_key, holder)
  local entries = type(holder.event) == "string"
      and redis.pcall("XREVRANGE", events_key, "+", holder.event, "COUNT", 1000) or {}
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
