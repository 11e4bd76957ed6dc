-- The table in a JSON text; an empty one if there is none. The text may be any reply of Redis.
local function decoded(text)
  local is_json, value = pcall(cjson.decode, text or "")
  return is_json and type(value) == "table" and value or {}
end
