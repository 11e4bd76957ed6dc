-- Whether an id is in a list. Only for scripts whose KEYS[1] is the queue's key prefix.

-- Redis before 6.0.6 has no LPOS.
local has_lpos = type(redis.pcall("LPOS", KEYS[1] .. "wait", "", "MAXLEN", 1)) ~= "table"

local function is_in_list(key, id)
  if has_lpos then
    return redis.call("LPOS", key, id) and true
  end
  for _, entry in ipairs(redis.call("LRANGE", key, 0, -1)) do
    if entry == id then
      return true
    end
  end
end
