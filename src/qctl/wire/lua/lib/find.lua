-- Find where a job is. Only for scripts whose KEYS[1] is the queue's key prefix.

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

-- Answers the name of the first sorted set in sets that has the id, or nil.
local function find_in_sets(base, sets, id)
  for _, name in ipairs(sets) do
    if redis.call("ZSCORE", base .. name, id) then
      return name
    end
  end
end

-- Answers the name of the first list in lists that has the id, or nil.
local function find_in_lists(base, lists, id)
  for _, name in ipairs(lists) do
    if is_in_list(base .. name, id) then
      return name
    end
  end
end
