-- Whether the pause that a note is about is over, or somebody else wants it as well: BullMQ leaves the note
-- where it is, but writes events. The last 1,000 events are read, which takes about 1 ms; a drain follows
-- all of them, so the newest are those that nobody has seen.
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
