-- Move a block of entries of a list towards its head, past others that keep their order, and take more
-- entries into it on the way: a step of jobs that are to be deleted to where Redis finds them soon. All are
-- in the list at every moment. However large the block is, passing an entry takes two changes.
--
-- KEYS[1] the list
-- ARGV[1] the index at which the block begins; or, if there were adds at the head, up to ARGV[2] further
--         in; or a little nearer, if others were deleted there
-- ARGV[3] its size; ARGV[4] its first id, ARGV[5] its last
-- ARGV[6] how many entries it passes at most
-- ARGV[7] … ids of those before it that come into it
--
-- Answers how long it took, in microseconds or "" if it cannot tell; and the index, size, first and last id of
-- the block, and the ids that came into it, or nothing when the block is not there.
--@include clock

local CLOSER = 100
local at, slack, size, steps = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
local wanted = {}
for i = 7, #ARGV do
  wanted[ARGV[i]] = true
end

local function is_from(index)
  return redis.call("LINDEX", KEYS[1], index) == ARGV[4]
      and redis.call("LINDEX", KEYS[1], index + size - 1) == ARGV[5]
end

local function is_within(low, high)
  for i, id in ipairs(redis.call("LRANGE", KEYS[1], low, high)) do
    if id == ARGV[4] and is_from(low + i - 1) then
      at = low + i - 1
      return true
    end
  end
end

-- Since the last step few were added, as a rule: so what is near to where it was comes first.
local function is_there()
  if is_from(at) then
    return true
  end
  local low, far = math.max(at - CLOSER, 0), at + slack
  local high = math.min(at + CLOSER, far)
  while not is_within(low, high) do
    if high >= far then
      return false
    end
    low, high = high + 1, math.min(high + 3 * (high - low), far)
  end
  return true
end

if not is_there() then
  return {took(), {}}
end

-- What is looked at: the entries before the block, and as many of its last as change places with them.
local from = math.max(at - steps, 0)
local passed = at - from
local ids = passed > 0 and redis.call("LRANGE", KEYS[1], from, at - 1) or {}
local others, come = {}, {}
for _, id in ipairs(ids) do
  local part = wanted[id] and come or others
  part[#part + 1] = id
end
local last = math.min(size, #others)
for i, id in ipairs(last > 0 and redis.call("LRANGE", KEYS[1], at + size - last, at + size - 1) or {}) do
  ids[passed + size - last + i] = id
end

local new_size = size + #come
local behind = {}
for i = new_size + 1, passed + size do
  if i > passed or wanted[ids[i]] then
    behind[#behind + 1] = ids[i]
  end
end
local function set(i, id)
  if ids[i] ~= id then
    redis.call("LSET", KEYS[1], from + i - 1, id)
  end
end
local taken = 0
for i = 1, math.min(passed, new_size) do
  if not wanted[ids[i]] then
    taken = taken + 1
    set(i, behind[taken])
  end
end
for i, id in ipairs(others) do
  set(new_size + i, id)
end
return {took(), {from, new_size, redis.call("LINDEX", KEYS[1], from),
  redis.call("LINDEX", KEYS[1], from + new_size - 1), unpack(come)}}
