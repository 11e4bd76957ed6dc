-- Answers the table that a JSON text contains, or an empty table for any other text or reply of Redis.
local function decoded(text)
  local is_json, value = pcall(cjson.decode, text or "")
  return is_json and type(value) == "table" and value or {}
end
