-- Move some entries of a list towards its head, past others that keep their order: a step on the way of
-- jobs that are to be deleted to where Redis finds them soon. They are in the list at every moment.
--
-- KEYS[1] the list
-- ARGV[1] the index of the first entry that may change; ARGV[2] how many may
-- ARGV[3] … ids
--
-- Answers how many of the ids are there; they are the first of those entries now.
local start, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local wanted, order = {}, {}
for i = 3, #ARGV do
  wanted[ARGV[i]] = true
end

local ids = redis.call("LRANGE", KEYS[1], start, start + count - 1)
for _, id in ipairs(ids) do
  if wanted[id] then
    order[#order + 1] = id
  end
end
local found = #order
for _, id in ipairs(ids) do
  if not wanted[id] then
    order[#order + 1] = id
  end
end
for i, id in ipairs(order) do
  if id ~= ids[i] then
    redis.call("LSET", KEYS[1], start + i - 1, id)
  end
end
return found
