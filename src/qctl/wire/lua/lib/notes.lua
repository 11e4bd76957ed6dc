-- Pause notes and leases (wire/notes.py).

-- The holder in a note or lease, as a table; an empty table if there is none, or if the value is not one
-- that qctl writes.
local function holder_at(key)
  local text = redis.pcall("GET", key)
  if type(text) ~= "string" then
    return {}
  end
  local is_json, holder = pcall(cjson.decode, text)
  return is_json and type(holder) == "table" and holder or {}
end
